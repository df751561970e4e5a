"""Whether and when something is tried again. Decides, and does nothing."""

import random

from minichat_client.errors import MiniChatError, Refused, Unreachable

PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before tries one after another that bring nothing; the last one stands for all further ones."""
JITTER = 0.2
"""Of a pause: clients that lost the same server do not come back all at once."""
LONGEST_WAIT_SECONDS = 60.0
"""A server that asks for more is not waited for: its refusal is the caller's to decide on."""
_NOT_NOW = {429, 502, 503, 504}
_HOPELESS = {"quota_exceeded"}
"""Refused as 429, and not a matter of seconds."""


class Patience:
    """Counts tries that bring nothing, until `attempts` of them followed each other."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._in_vain = 0

    def progressed(self) -> None:
        """Something came: what follows is counted anew."""
        self._in_vain = 0

    def pause(self, error: MiniChatError, *, begun: bool) -> float | None:
        """Seconds before another try, or None when there shall be none.

        `begun`: this was tried before, so that a conflict may be with the first try, which only just arrived.
        """
        wait = error.retry_after or 0.0 if isinstance(error, Refused) else 0.0
        if self._in_vain >= self._attempts or wait > LONGEST_WAIT_SECONDS or not _may_pass(error, begun=begun):
            return None
        seconds = PAUSES_SECONDS[min(self._in_vain, len(PAUSES_SECONDS) - 1)]
        self._in_vain += 1
        return max(wait, seconds) * random.uniform(1, 1 + JITTER)  # noqa: S311  nobody gains by guessing it

    def given_up(self, error: MiniChatError) -> MiniChatError:
        """What the caller is told in the end."""
        if isinstance(error, Refused) or not self._in_vain:
            return error
        return type(error)(f"{error} Given up after {self._in_vain} attempts.")


def _may_pass(error: MiniChatError, *, begun: bool) -> bool:
    if isinstance(error, Refused):
        not_now = error.status in _NOT_NOW and error.code not in _HOPELESS
        return not_now or (begun and (_is_overtaken(error) or error.status >= 500))
    return isinstance(error, Unreachable)


def _is_overtaken(error: Refused) -> bool:
    """A repeated request came while its first try was being written down; one whose turn was deleted is over."""
    return error.status == 409 and (error.code != "request_id_conflict" or "stream_url" in error.problem)
