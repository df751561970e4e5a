"""Exports: their items, and their writes.

Any number may work on one export at once: each file is noted on the condition that the export is where its writer saw
it, and a file that is not noted is not part of it. `busy_until` is no lease: it only says until when somebody may still
be writing, for whoever removes an export.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import uuid4

from pynamodb.attributes import UnicodeAttribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.erasure import BeingErased
from minichat.domain.export import (
    OUTLIVES_ITS_FILES,
    DataExport,
    ExportedFile,
    ExportProgress,
    ExportRunning,
    ExportScope,
    ExportState,
)
from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.storage import chats, keys
from minichat.storage.attributes import InstantAttribute
from minichat.storage.conditions import all_of, at_most, is_still
from minichat.storage.items import ChatItem, ConversationItem, ExpiringItem, OutboxItem, batch_get, between
from minichat.storage.keys import Raw
from minichat.storage.policies import PolicyPointer
from minichat.storage.transact import Check, Put, Refused, Update, Write, commit, try_commit, update_one

PAGE = 50


class ExportItem(ExpiringItem):
    """An export. `files` and `counts` are JSON: each file's name and size, and lines by kind."""

    scope = UnicodeAttribute()
    state = UnicodeAttribute()
    requested_by = UnicodeAttribute()
    requested_at = InstantAttribute()
    over_at = InstantAttribute()
    user_id = UnicodeAttribute(attr_name="user", null=True)
    chat_id = UnicodeAttribute(attr_name="chat", null=True)
    at_pk = UnicodeAttribute(null=True)
    at_sk = UnicodeAttribute(null=True)
    files = UnicodeAttribute(null=True)
    counts = UnicodeAttribute(null=True)
    busy_until = InstantAttribute(null=True)
    ended_at = InstantAttribute(null=True)


class LastExportItem(ExpiringItem):
    """The last export that a user asked for."""

    export_id = UnicodeAttribute(attr_name="export")


def read(tenant_id: TenantId, export_id: str) -> DataExport | None:
    """An export of the tenant, or of anybody in it.

    Raises ServiceUnavailable.
    """
    key = keys.export(tenant_id, export_id)
    raw = batch_get([key]).get(key)
    return None if raw is None else from_raw(raw)


def of_tenant(tenant_id: TenantId) -> Iterator[DataExport]:
    """Every export in the tenant, the oldest first.

    Raises ServiceUnavailable.
    """
    return (from_raw(raw) for raw in between(keys.export(tenant_id, "").pk, "0", "~", page=PAGE))


def accept(export: DataExport, events: Sequence[OutboxItem]) -> None:
    """Begins an export, in one transaction with its events, unless its user or tenant is being erased. One that users
    ask for themselves is refused while their last one is still being made.

    Raises ExportRunning, BeingErased, ServiceUnavailable.
    """
    expires_at = _expires_at(export)
    item = ExportItem(
        *keys.export(export.tenant_id, export.export_id),
        scope=export.scope,
        state=export.state,
        requested_by=export.requested_by,
        requested_at=export.requested_at,
        over_at=export.over_at,
        user_id=export.user_id,
        chat_id=export.chat_id,
        expires_at=expires_at,
    )
    tenant = ConversationItem(*keys.stopped(export.tenant_id))
    writes: list[Write] = [
        Put("export", item, ExportItem.pk.does_not_exist()),
        Check("tenant", tenant, ConversationItem.pk.does_not_exist()),
    ]
    if export.user_id is not None:
        limits = PolicyPointer(*keys.user_policy(export.tenant_id, export.user_id))
        writes.append(Check("user", limits, PolicyPointer.erased_by.does_not_exist()))
    if export.is_own(export.requested_by):
        last = _last(export)
        own = LastExportItem(
            *keys.last_export(export.tenant_id, export.requested_by), export_id=export.export_id, expires_at=expires_at
        )
        writes.append(Put("last", own, is_still(LastExportItem.export_id, last)))
    writes += [Put(f"event {event.sk}", event) for event in events]
    try:
        commit(writes, token=export.export_id, op="export")
    except Refused as refused:
        raise (BeingErased if {"tenant", "user"} & set(refused.old) else ExportRunning) from refused


def _last(export: DataExport) -> str | None:
    key = keys.last_export(export.tenant_id, export.requested_by)
    raw = batch_get([key]).get(key)
    if raw is None:
        return None
    last = read(export.tenant_id, keys.text(raw, "export"))
    if last is not None and last.holds_up(export.requested_at):
        raise ExportRunning
    return keys.text(raw, "export")


def begins(export: DataExport, busy_until: datetime) -> bool:
    """Notes that somebody works on an export until then at most; False when it does not run any more.

    Raises ServiceUnavailable.
    """
    item = _item(export)
    nobody_longer = at_most(ExportItem.busy_until, busy_until)
    if update_one(item, [ExportItem.busy_until.set(busy_until)], all_of(_runs(), nobody_longer), op="export"):
        return True
    # Somebody else is at it for longer than that.
    seen = read(export.tenant_id, export.export_id)
    return seen is not None and seen.state == "running"


def went_on(seen: DataExport, progress: ExportProgress, event: OutboxItem | None = None) -> bool:
    """Notes how far an export is, with the task that goes on if there is to be one; False when it is not where it was
    seen any more.

    Raises ServiceUnavailable.
    """
    actions = [
        ExportItem.files.set(_files(progress)),
        ExportItem.counts.set(json.dumps(dict(progress.counts))),
        *_moved(progress),
    ]
    writes: list[Write] = [Update("export", _item(seen), actions, all_of(_runs(), *_place(seen)))]
    if event is not None:
        writes.append(Put("event", event))
    return try_commit(writes, token=str(uuid4()), op="export")


def ended(seen: DataExport, done: DataExport, event: OutboxItem) -> bool:
    """Ends an export as it was seen: it is `ready` with its last file, or `gone`. False when it is not as it was, or
    when its one chat was deleted before it was ready.

    Raises ServiceUnavailable.
    """
    assert done.ended_at is not None
    actions: list[Action] = [ExportItem.state.set(done.state), ExportItem.ended_at.set(done.ended_at)]
    actions.append(ExportItem.files.remove() if done.state == "gone" else ExportItem.files.set(_files(done.progress)))
    writes: list[Write] = [Update("export", _item(seen), actions, all_of(_runs(), *_place(seen))), Put("event", event)]
    if done.state == "ready" and done.chat_id is not None:
        head = ChatItem(*keys.chat(done.tenant_id, done.chat_id))
        writes.append(Check("chat", head, chats.is_alive()))
    return try_commit(writes, token=str(uuid4()), op="export")


def stop(export: DataExport, now: datetime) -> bool:
    """Has an export end with nothing, whether it runs or is ready; False when it had.

    Raises ServiceUnavailable.
    """
    is_there, is_kept = ExportItem.pk.exists(), ExportItem.state != "gone"
    actions: list[Action] = [ExportItem.state.set("gone"), ExportItem.ended_at.set(now), ExportItem.files.remove()]
    return update_one(_item(export), actions, all_of(is_there, is_kept), op="export")


def from_raw(raw: Raw) -> DataExport:
    """The export of a stored item."""
    item = ExportItem.from_raw_data(dict(raw))
    scope: ExportScope = item.scope  # type: ignore[assignment]  # only `accept` writes it
    state: ExportState = item.state  # type: ignore[assignment]  # only this module writes it
    files = json.loads(item.files or "[]")
    return DataExport(
        tenant_id=keys.tenant_of(item.pk),
        export_id=item.sk,
        scope=scope,
        requested_by=UserId(item.requested_by),
        requested_at=item.requested_at,
        over_at=item.over_at,
        user_id=None if item.user_id is None else UserId(item.user_id),
        chat_id=None if item.chat_id is None else ChatId(item.chat_id),
        state=state,
        progress=ExportProgress(
            position=None if item.at_pk is None else (item.at_pk, item.at_sk),
            files=tuple(ExportedFile(name, size) for name, size in files),
            counts=json.loads(item.counts or "{}"),
        ),
        busy_until=item.busy_until,
        ended_at=item.ended_at,
    )


def _item(export: DataExport) -> ExportItem:
    return ExportItem(*keys.export(export.tenant_id, export.export_id))


def _files(progress: ExportProgress) -> str:
    return json.dumps([[one.name, one.size] for one in progress.files], separators=(",", ":"))


def _moved(progress: ExportProgress) -> list[Action]:
    assert progress.position is not None, "it has moved"
    at_pk, at_sk = progress.position
    return [ExportItem.at_pk.set(at_pk), ExportItem.at_sk.set(at_sk)]


def _place(seen: DataExport) -> list[Condition]:
    at_pk, at_sk = seen.progress.position or (None, None)
    # Each file moves it on.
    return [is_still(ExportItem.at_pk, at_pk), is_still(ExportItem.at_sk, at_sk)]


def _runs() -> Condition:
    runs: Condition = ExportItem.state == "running"
    return runs


def _expires_at(export: DataExport) -> int:
    return int((export.over_at + OUTLIVES_ITS_FILES).timestamp())
