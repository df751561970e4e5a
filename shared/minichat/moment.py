"""The current instant, and ids made from it: a process's edge passes them to the services, which read neither clock nor
randomness.

Machines' clocks differ, and leases compare them. So there is one clock, the store's: each of its answers has the time,
and this process adds its own clock's error to that clock (domain.store_clock).
"""

import secrets
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from minichat.domain.identity import uuid7
from minichat.domain.store_clock import Offset

_offset = Offset()


def now() -> datetime:
    """The current instant by the store's clock; by this process's own until the store's time is known."""
    return datetime.fromtimestamp(time.time() + _offset.seconds, UTC)


def new_id(instant: datetime) -> str:
    """A new id that sorts by `instant`."""
    return str(uuid7(instant, secrets.randbits(62)))


def heard(date: str, sent: float, received: float) -> None:
    """Takes the store's time from the `Date` of an answer, whose request was sent and which was received at these Unix
    times of this process's clock."""
    global _offset  # noqa: PLW0603  replaced as a whole: of two threads at once, one sample is lost
    try:
        told = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    _offset = _offset.narrowed(told, sent, received)


def has_heard() -> bool:
    """Whether this process knows the store's time."""
    return _offset != Offset()
