"""This instant, and ids of it: what a process's edge hands to the services, which ask neither clock nor chance.

Machines' clocks differ, and leases compare them. So there is one clock, the store's: every answer of it says what time
it was, and what this process's own clock is off is added to that one (domain.store_clock).
"""

import secrets
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from minichat.domain.identity import uuid7
from minichat.domain.store_clock import Offset

_offset = Offset()


def now() -> datetime:
    """This instant, as the store's clock shows it: as this process's own does until the store has told its time."""
    return datetime.fromtimestamp(time.time() + _offset.seconds, UTC)


def new_id(instant: datetime) -> str:
    """A new id that sorts by `instant`."""
    return str(uuid7(instant, secrets.randbits(62)))


def heard(date: str, sent: float, received: float) -> None:
    """Takes the store's time from the `Date` of an answer; its request was sent, and it was received, at these Unix
    times of this process's clock."""
    global _offset  # noqa: PLW0603  replaced as a whole: of two threads at once, one sample is lost
    try:
        told = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    _offset = _offset.narrowed(told, sent, received)


def has_heard() -> bool:
    """Whether the store has told this process its time."""
    return _offset != Offset()
