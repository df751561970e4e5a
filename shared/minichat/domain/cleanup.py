"""How far the cleanup of an attachment has come (events-and-workers 4): pure.

    nobody asked yet ──┐
                       ├──> pending ──> done      the provider has nothing of it any more
                       │     │    │
                       │     └────┘ an attempt failed, others are left
                       └──────────> failed        attempts are used up, or the provider will never do it

Done and failed are final: an event that comes again changes nothing. A failed cleanup is tried again only when an
operator asks.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class CleanupStatus(StrEnum):
    """Where a cleanup stands."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class CleanupOutcome(StrEnum):
    """What became of one attempt.

    DONE and ALREADY_TERMINAL need nothing more, PENDING is to be tried again later, FAILED is for a person to look at.
    UNFINISHED is only a chat's: time ran out before anything went wrong, and the next attempt goes on at once.
    """

    DONE = "done"
    PENDING = "pending"
    FAILED = "failed"
    ALREADY_TERMINAL = "already_terminal"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Cleanup:
    """The state on an attachment; `status` is None until somebody asks for its cleanup."""

    status: CleanupStatus | None = None
    attempts: int = 0
    last_error: str | None = None
    updated_at: datetime | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether nothing is left to do, or nothing more will be tried."""
        return self.status in (CleanupStatus.DONE, CleanupStatus.FAILED)

    @property
    def reopened(self) -> "Cleanup":
        """The state once an operator asks for another try: a failed one gets all of its attempts back."""
        return replace(self, status=CleanupStatus.PENDING, attempts=0) if self.status is CleanupStatus.FAILED else self


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, in words that name no key and no id, and whether another could succeed."""

    reason: str
    may_pass: bool


def after_attempt(
    cleanup: Cleanup, failure: Failure | None, *, max_attempts: int, at: datetime
) -> tuple[Cleanup, CleanupOutcome]:
    """The state after an attempt that ended `at` this instant (`failure` None: it succeeded), and what became of it.

    `attempts` counts the failed ones; the last one's reason is kept.
    """
    if cleanup.is_terminal:
        return cleanup, CleanupOutcome.ALREADY_TERMINAL
    if failure is None:
        return Cleanup(CleanupStatus.DONE, cleanup.attempts, cleanup.last_error, at), CleanupOutcome.DONE
    attempts = cleanup.attempts + 1
    if failure.may_pass and attempts < max_attempts:
        return Cleanup(CleanupStatus.PENDING, attempts, failure.reason, at), CleanupOutcome.PENDING
    return Cleanup(CleanupStatus.FAILED, attempts, failure.reason, at), CleanupOutcome.FAILED
