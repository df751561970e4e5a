"""Policy versions: immutable items, and a pointer to the one in force (turns-and-quota 5)."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pynamodb.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute

from minichat.domain.policy import MAX_VERSION, Policy
from minichat.storage import keys, outbox
from minichat.storage.attributes import InstantAttribute
from minichat.storage.conditions import any_of
from minichat.storage.items import ConversationItem, batch_get, query
from minichat.storage.transact import Put, Refused, Update, commit

MAX_STORED_BYTES = 390_000
"""Compressed size of a version, which is one item: DynamoDB's 400 KB (AWS limit), less its other attributes."""

MAX_BYTES = 3_000_000
"""Size of a version's JSON: its models must fit one Lambda answer (6,291,556 bytes), where quotes count twice."""


class PolicyItem(ConversationItem):
    """One version of the policy, as compressed JSON; never changed once written."""

    document = BinaryAttribute(legacy_encoding=False)
    published_at = InstantAttribute()
    published_by = UnicodeAttribute()


class PolicyPointer(ConversationItem):
    """Which version is in force."""

    version = NumberAttribute()


class VersionTaken(Exception):
    """This version, or a later one, is already published: versions only go up, and never change."""

    def __init__(self, current: int) -> None:
        self.current = current
        super().__init__(str(current))


class PolicyTooLarge(ValueError):
    """The policy does not fit one item, even compressed."""


@dataclass(frozen=True, slots=True)
class Published:
    """A version, and when and by whom it was published."""

    policy: Policy
    at: datetime
    by: str


def current_version() -> int | None:
    """The version in force; None before the first was published.

    Raises ServiceUnavailable.
    """
    raw = batch_get([keys.POLICY_IN_FORCE]).get(keys.POLICY_IN_FORCE)
    return None if raw is None else int(PolicyPointer.from_raw_data(dict(raw)).version)


def read(version: int) -> Published | None:
    """One version.

    Raises ServiceUnavailable.
    """
    raw = batch_get([keys.policy_version(version)])
    return next((_published(PolicyItem.from_raw_data(dict(item))) for item in raw.values()), None)


def history() -> Iterator[Published]:
    """Every version, the newest first.

    Raises ServiceUnavailable.
    """
    newest, more = MAX_VERSION, True
    while more:
        versions = PolicyItem.sk.between(keys.policy_version(0).sk, keys.policy_version(newest).sk)
        found, more = query(keys.POLICY, versions, limit=10, descending=True)
        for raw in found:
            published = _published(PolicyItem.from_raw_data(dict(raw)))
            newest = published.policy.policy_version - 1
            yield published


def publish(policy: Policy, *, at: datetime, by: str, token: str) -> None:
    """Stores the version, puts it in force and audits it, in one transaction; `token` is the event's id.

    Raises VersionTaken, PolicyTooLarge, ServiceUnavailable; the version in force is unchanged then.
    """
    plain = policy.model_dump_json(exclude_unset=True).encode()
    if len(plain) > MAX_BYTES:
        raise PolicyTooLarge(
            f"The policy has {len(plain)} bytes; its models fit one answer if it has at most {MAX_BYTES}."
        )
    document = zlib.compress(plain, 9)
    if len(document) > MAX_STORED_BYTES:
        raise PolicyTooLarge(f"The policy has {len(document)} bytes, compressed; {MAX_STORED_BYTES} fit.")
    item = PolicyItem(*keys.policy_version(policy.policy_version), document=document, published_at=at, published_by=by)
    previous = current_version()
    is_first = PolicyPointer.version.does_not_exist()
    is_newer = PolicyPointer.version < policy.policy_version
    try:
        commit(
            [
                Put("version", item, PolicyItem.pk.does_not_exist()),
                Update(
                    "pointer",
                    PolicyPointer(*keys.POLICY_IN_FORCE),
                    [PolicyPointer.version.set(policy.policy_version)],
                    any_of(is_first, is_newer),
                ),
                Put("event", outbox.of_policy(policy.policy_version, previous=previous, at=at, by=by, event_id=token)),
            ],
            token=token,
        )
    except Refused as refused:
        raise VersionTaken(current_version() or policy.policy_version) from refused


def _published(item: PolicyItem) -> Published:
    policy = Policy.model_validate_json(zlib.decompress(item.document))
    return Published(policy, item.published_at, item.published_by)
