"""Erasures: their items, and their writes.

What is removed is counted in the same transaction, so the counts are right whoever was killed and however many work on
the same erasure at once. Nobody holds a lease: every write has a condition that says what it relies on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action

from minichat.domain.erasure import Erasure, ErasureRunning, Progress
from minichat.domain.identity import TenantId, UserId
from minichat.storage import keys, persons, policies, quota
from minichat.storage.attributes import InstantAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.conditions import all_of, is_still, still_counts
from minichat.storage.items import ConversationItem, OutboxItem, batch_get, between
from minichat.storage.keys import Key, Raw
from minichat.storage.persons import Whose
from minichat.storage.transact import Delete, Put, Refused, Update, Write, commit, try_commit, update_one

AT_ONCE = 25
"""Items that are removed together: a transaction takes 4 MB (AWS limit), and parts of texts have up to 350 KB."""
LARGE = ("TEXT#", "PART#", "THUMB#")
LARGE_AT_ONCE = 8
PAGE = 50
_COUNT = "n_"


class ErasureItem(ConversationItem):
    """An erasure. Each kind of item that it has removed is an attribute of its own, `n_<kind>`."""

    scope = UnicodeAttribute()
    requested_at = InstantAttribute()
    user_id = UnicodeAttribute(attr_name="user", null=True)
    pseudonym = UnicodeAttribute(null=True)
    at_pk = UnicodeAttribute(null=True)
    at_sk = UnicodeAttribute(null=True)
    met = NumberAttribute(null=True)
    chats_met = NumberAttribute(null=True)
    chats_left = NumberAttribute(null=True)
    passes = NumberAttribute(null=True)
    waits_for = UnicodeAttribute(null=True)
    completed_at = InstantAttribute(null=True)
    manifest = UnicodeAttribute(null=True)


class StoppedItem(ConversationItem):
    """There while a tenant is erased."""

    erasure_id = UnicodeAttribute()


def read(tenant_id: TenantId, erasure_id: str) -> Erasure | None:
    """An erasure of the tenant, or of one of its users.

    Raises ServiceUnavailable.
    """
    key = keys.erasure(tenant_id, erasure_id)
    raw = batch_get([key]).get(key)
    return None if raw is None else _from_raw(raw)


def of_tenant(tenant_id: TenantId) -> Iterator[Erasure]:
    """Every erasure in the tenant, the oldest first.

    Raises ServiceUnavailable.
    """
    return (_from_raw(raw) for raw in between(keys.erasure(tenant_id, "").pk, "0", "~", page=PAGE))


def accept(erasure: Erasure, months: Sequence[Key], events: Sequence[OutboxItem], *, retention_days: int) -> None:
    """Begins an erasure, in one transaction with the words that refuse everything new, and its events.

    `months` are the quotas in which a turn of the user that is under way now may begin.
    Raises ErasureRunning, ServiceUnavailable.
    """
    item = ErasureItem(
        *keys.erasure(erasure.tenant_id, erasure.erasure_id),
        scope=erasure.scope,
        requested_at=erasure.requested_at,
        user_id=erasure.user_id,
        pseudonym=erasure.pseudonym,
    )
    writes: list[Write] = [Put("erasure", item, ErasureItem.pk.does_not_exist())]
    if erasure.user_id is None:
        stopped = StoppedItem(*keys.stopped(erasure.tenant_id), erasure_id=erasure.erasure_id)
        writes.append(Put("stopped", stopped, StoppedItem.pk.does_not_exist()))
    else:
        writes.append(policies.stop(erasure.tenant_id, erasure.user_id, erasure.erasure_id))
        writes += [
            replace(quota.stop(month, erasure.erasure_id, retention_days=retention_days), name=f"stop {month.sk}")
            for month in months
        ]
    writes += [Put(f"event {event.sk}", event) for event in events]
    try:
        commit(writes, token=erasure.erasure_id, op="erase")
    except Refused as refused:
        raise ErasureRunning from refused


def went_on(seen: Erasure, progress: Progress) -> bool:
    """Notes how far an erasure is; False when another worker has gone on from where it was seen.

    Raises ServiceUnavailable.
    """
    at_pk, at_sk = progress.position or (None, None)
    said = {"at_pk": at_pk, "at_sk": at_sk, "met": progress.met, "chats_met": progress.chats_met}
    said |= {"chats_left": progress.chats_left, "passes": progress.passes, "waits_for": progress.waits_for}
    paths = {name: getattr(ErasureItem, name) for name in said}
    actions: list[Action] = [
        paths[name].remove() if value is None else paths[name].set(value) for name, value in said.items()
    ]
    was_pk, was_sk = seen.progress.position or (None, None)
    same_place = all_of(is_still(ErasureItem.at_pk, was_pk), is_still(ErasureItem.at_sk, was_sk))
    same_pass = still_counts(ErasureItem.passes, seen.progress.passes)
    item = ErasureItem(*keys.erasure(seen.tenant_id, seen.erasure_id))
    return update_one(item, actions, all_of(_runs(), same_place, same_pass), op="erase")


def removed(erasure: Erasure, found: Sequence[Raw]) -> int:
    """Removes items, and counts them by their kinds; how many. Those that somebody else removed meanwhile are left to
    the next pass, with the batch that they are in.

    Raises ServiceUnavailable.
    """
    done = 0
    for batch in _batches(found):
        is_there = ConversationItem.pk.exists()
        deletes = [Delete(f"item {number}", ConversationItem(*keys.of(raw)), is_there) for number, raw in batch]
        counted = _counted(erasure, [persons.kind_of(keys.of(raw)) for _, raw in batch])
        done += len(batch) * try_commit([*deletes, counted], token=str(uuid4()), op="erase")
    return done


def renamed(erasure: Erasure, raw: Raw, whose: Whose) -> bool:
    """Puts the pseudonym where an item of the tenant's names the user; False when the item has changed meanwhile.

    Raises ServiceUnavailable.
    """
    named = [Path(name) for name in persons.names(raw, whose)]
    actions = [path.set(erasure.pseudonym) for path in named]
    still_named = [path == whose.user_id for path in named]
    writes = [
        Update("item", ConversationItem(*keys.of(raw)), actions, all_of(*still_named)),
        counted(erasure, {"names_replaced": len(named)}),
    ]
    return try_commit(writes, token=str(uuid4()), op="erase")


def complete(erasure: Erasure, done: Erasure, last: Sequence[Raw], event: OutboxItem) -> bool:
    """Makes an erasure as it was read one that is `done`: the last items go, and with them who it was about. False when
    it is not as it was, or those items are not.

    Raises ServiceUnavailable.
    """
    assert done.completed_at is not None
    assert done.manifest is not None
    is_there = ConversationItem.pk.exists()
    writes: list[Write] = [
        Delete(f"item {number}", ConversationItem(*keys.of(raw)), is_there) for number, raw in enumerate(last)
    ]
    gone = ("user_id", "pseudonym", "at_pk", "at_sk", "met", "chats_met", "chats_left", "waits_for")
    actions: list[Action] = [getattr(ErasureItem, name).remove() for name in gone]
    actions += [ErasureItem.completed_at.set(done.completed_at), ErasureItem.manifest.set(done.manifest)]
    actions += [Path(f"{_COUNT}{kind}").set(count) for kind, count in done.counts.items()]
    # Whatever another worker counted since would be missing in the manifest.
    nothing_counted = [still_counts(Path(f"{_COUNT}{kind}"), erasure.counts.get(kind, 0)) for kind in done.counts]
    same_pass = still_counts(ErasureItem.passes, erasure.progress.passes)
    item = ErasureItem(*keys.erasure(erasure.tenant_id, erasure.erasure_id))
    writes += [
        Update("erasure", item, actions, all_of(_runs(), same_pass, *nothing_counted)),
        Put("event", event),
    ]
    return try_commit(writes, token=str(uuid4()), op="erase")


def left_for_last(whose: Whose) -> list[Raw]:
    """The items that go with the end of the erasure.

    Raises ServiceUnavailable.
    """
    if whose.user_id is None:
        return list(batch_get([keys.stopped(whose.tenant_id)]).values())
    found = between(keys.owner(whose.tenant_id, whose.user_id), " ", "~", page=PAGE)
    return [raw for raw in found if persons.fate(raw, whose) == "last"]


def counted(erasure: Erasure, counts: Mapping[str, int]) -> Update:
    """The write that counts what the rest of its transaction does."""
    item = ErasureItem(*keys.erasure(erasure.tenant_id, erasure.erasure_id))
    return Update("erasure", item, [Path(f"{_COUNT}{kind}").add(count) for kind, count in counts.items()], _runs())


def _counted(erasure: Erasure, kinds: Sequence[str]) -> Update:
    return counted(erasure, {kind: kinds.count(kind) for kind in set(kinds)})


def _runs() -> Condition:
    # Its item is there, and nobody has ended it.
    is_there, not_ended = ErasureItem.pk.exists(), ErasureItem.completed_at.does_not_exist()
    return all_of(is_there, not_ended)


def _batches(found: Sequence[Raw]) -> Iterator[list[tuple[int, Raw]]]:
    batch: list[tuple[int, Raw]] = []
    room = 1.0
    for number, raw in enumerate(found):
        share = 1 / (LARGE_AT_ONCE if keys.of(raw).sk.startswith(LARGE) else AT_ONCE)
        if batch and share > room:
            yield batch
            batch, room = [], 1.0
        batch.append((number, raw))
        room -= share
    if batch:
        yield batch


def _from_raw(raw: Raw) -> Erasure:
    item = ErasureItem.from_raw_data(dict(raw))
    return Erasure(
        tenant_id=keys.tenant_of(item.pk),
        erasure_id=item.sk,
        scope="user" if item.scope == "user" else "tenant",
        requested_at=item.requested_at,
        user_id=None if item.user_id is None else UserId(item.user_id),
        pseudonym=None if item.pseudonym is None else UserId(item.pseudonym),
        progress=Progress(
            position=None if item.at_pk is None else (item.at_pk, item.at_sk),
            met=int(item.met or 0),
            chats_met=int(item.chats_met or 0),
            chats_left=None if item.chats_left is None else int(item.chats_left),
            passes=int(item.passes or 0),
            waits_for=item.waits_for,
        ),
        counts={name.removeprefix(_COUNT): keys.number(raw, name) for name in sorted(raw) if name.startswith(_COUNT)},
        completed_at=item.completed_at,
        manifest=item.manifest,
    )
