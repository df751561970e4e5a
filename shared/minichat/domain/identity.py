"""Who asks, and the ids everything is named by."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, NewType
from uuid import UUID

from minichat.domain.actions import Action

TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
ChatId = NewType("ChatId", str)
RequestId = NewType("RequestId", str)
MessageId = NewType("MessageId", str)
AttachmentId = NewType("AttachmentId", str)

SubjectType = Literal["user", "system"]
Clock = Callable[[], datetime]
NewId = Callable[[datetime], str]
"""A new UUID version 7 of the given instant; `uuid7` with randomness from the process edge."""

SETTLING_SECONDS = 10
"""What an answer that was cut short needs to be settled and stored."""

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Resource:
    """What an action is about: its tenant (None: the deployment), its owner (None: the tenant itself), its chat."""

    tenant_id: TenantId | None
    owner: UserId | None = None
    chat_id: ChatId | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is permitted, and the ids of the policies because of which; none where nothing permits it."""

    allowed: bool
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified subject. Only `minichat.http.auth` makes one from the outside world."""

    tenant_id: TenantId
    user_id: UserId
    subject_type: SubjectType = "user"
    roles: frozenset[str] = frozenset()
    """What the issuer says of them besides: `domain.actions.ROLES`."""
    scopes: frozenset[str] | None = None
    """Of an API key: the actions that it may be used for; None where no key narrows them."""
    action: Action | None = None
    """What the request is to do. None where there is none: a worker may do what the owner may, and no more."""
    decides: Callable[[Action, Resource], Decision] | None = field(default=None, compare=False, repr=False)
    """Decides in place of the default policies alone: for callers with roles, whose use of them is audited, and for
    tenants with policies of their own. Raises ServiceUnavailable."""


@dataclass(frozen=True, slots=True)
class Call:
    """One use of the product: who asks, at what instant, where new ids come from, and when its time is up."""

    caller: Caller
    now: datetime
    new_id: NewId
    trace_id: str = ""
    ends_at: datetime | None = None

    def seconds_left(self, *, at_most: float) -> float:
        """How many seconds a stream that is told from now on may take: less than `at_most` when its time is up before.

        What is left then is enough to settle and store an answer that was cut short.
        """
        left = math.inf if self.ends_at is None else (self.ends_at - self.now).total_seconds() - SETTLING_SECONDS
        return max(min(at_most, left), 0)


def micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly: no float is involved."""
    return (instant - _EPOCH) // MICROSECOND


def from_micros(value: int) -> datetime:
    """The UTC instant of `micros`."""
    return _EPOCH + timedelta(microseconds=value)


def from_seconds(value: int) -> datetime:
    """The UTC instant that is so many seconds after 1970, as times to live are stored."""
    return _EPOCH + timedelta(seconds=value)


def uuid7(instant: datetime, random_bits: int) -> UUID:
    """A UUID version 7 that sorts by `instant` to the microsecond (RFC 9562 section 6.2, method 3).

    The twelve bits after the milliseconds hold the fraction of the millisecond, so two ids whose instants differ by a
    microsecond sort as their instants do. `random_bits` fills the other 62.
    """
    milliseconds, fraction = divmod(micros(instant), 1000)
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (fraction * 4096 // 1000) << 64
    value |= 0b10 << 62 | random_bits & (1 << 62) - 1
    return UUID(int=value)


def instant_of(uuid: UUID) -> datetime:
    """The instant of an id that `uuid7` made, to the microsecond."""
    milliseconds, fraction = uuid.int >> 80, uuid.int >> 64 & 0xFFF
    return from_micros(milliseconds * 1000 + -(-fraction * 1000 // 4096))


def uuid7_floor(instant: datetime) -> UUID:
    """The smallest version 7 id of that instant: the bound of a range of ids."""
    return uuid7(instant, 0)
