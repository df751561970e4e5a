"""This instant, and ids of it: what a process's edge hands to the services, which ask neither clock nor chance."""

import secrets
from datetime import UTC, datetime

from minichat.domain.identity import uuid7


def now() -> datetime:
    """This instant."""
    return datetime.now(UTC)


def new_id(instant: datetime) -> str:
    """A new id that sorts by `instant`."""
    return str(uuid7(instant, secrets.randbits(62)))
