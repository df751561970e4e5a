"""Exports a chat, a user or a tenant as files of JSON Lines in the bucket of uploads (ADR 28).

A file is written, then noted on the export with the place up to which it goes. Whoever is killed in between has left a
file that nobody is shown, and the next one writes those lines into another. A chat that is deleted before its own
export is ready takes the export with it.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from minichat.domain.chat_visibility import visible
from minichat.domain.export import (
    DataExport,
    ExportedFile,
    ExportNotFound,
    ExportProgress,
    ExportScope,
    merged,
)
from minichat.domain.identity import Call, Caller, ChatId, Clock, NewId, TenantId, UserId
from minichat.events.exports import ExportEnded, ExportRequested, ExportTask
from minichat.services.export_lines import line_of
from minichat.settings import Settings
from minichat.storage import chats, export_pages, exports, keys, objects, outbox
from minichat.storage.items import OutboxItem
from minichat.storage.keys import Key
from minichat.storage.persons import Whose

FILE_BYTES = 8_000_000
"""A file is closed once it has so much: what one process holds in memory, and loses when it is killed."""
LAST_WRITE = timedelta(seconds=30)
"""How long after its time is up a process may still be writing: the bucket's client gives up well before."""
MANIFEST = "manifest.json"

ExportStage = Literal["ready", "gone", "unfinished"]


@dataclass(frozen=True, slots=True)
class ExportingDeps:
    """What exporting takes."""

    settings: Settings
    clock: Clock
    new_id: NewId
    file_bytes: int = FILE_BYTES


@dataclass(frozen=True, slots=True)
class ExportLink:
    """A file of an export, and where anybody can fetch it until then."""

    name: str
    size: int
    url: str
    until: datetime


def of_chat(call: Call, chat_id: ChatId, settings: Settings) -> DataExport:
    """Begins to export a chat of the caller.

    Raises ChatNotFound, Forbidden, ExportRunning, BeingErased, ServiceUnavailable.
    """
    chat = visible(chats.read(call.caller.tenant_id, chat_id), call.caller)
    return _accepted(call, "chat", chat.user_id, chat_id, settings)


def accept(call: Call, user_id: UserId | None, settings: Settings) -> DataExport:
    """Begins to export everything that is kept of a user of the call's tenant, or of the whole tenant.

    Raises as `of_chat`, but for the chat.
    """
    return _accepted(call, "tenant" if user_id is None else "user", user_id, None, settings)


def _accepted(
    call: Call, scope: ExportScope, user_id: UserId | None, chat_id: ChatId | None, settings: Settings
) -> DataExport:
    tenant_id, export_id = call.caller.tenant_id, call.new_id(call.now)
    over_at = call.now + timedelta(days=settings.retention.exports_days)
    export = DataExport(tenant_id, export_id, scope, call.caller.user_id, call.now, over_at, user_id, chat_id)
    asked = ExportRequested(
        tenant_id=tenant_id,
        timestamp=call.now,
        requester_type=call.caller.subject_type,
        trace_id=call.trace_id or None,
        actor_user_id=call.caller.user_id,
        export_id=export_id,
        scope=scope,
        exported_user_id=user_id,
        chat_id=chat_id,
    )
    exports.accept(export, [outbox.of_tenant(asked, call.new_id(call.now)), _task(call, export_id)])
    return export


def _task(call: Call, export_id: str) -> OutboxItem:
    # By its own name: in a queue that keeps an order, one export does not wait for another.
    return outbox.item(call, ChatId(export_id), ExportTask(tenant_id=call.caller.tenant_id, export_id=export_id))


def shown(tenant_id: TenantId, export_id: str, now: datetime) -> DataExport:
    """One export of the tenant, until it is over.

    Raises ExportNotFound, ServiceUnavailable.
    """
    found = exports.read(tenant_id, export_id)
    if found is None or found.is_over(now):
        raise ExportNotFound
    return found


def own(call: Call, export_id: str) -> DataExport:
    """One export that the caller asked for, of their own data. Raises as `shown`."""
    found = shown(call.caller.tenant_id, export_id, call.now)
    if not found.is_own(call.caller.user_id):
        raise ExportNotFound
    return found


def links(export: DataExport, now: datetime, settings: Settings) -> list[ExportLink]:
    """Links to the files of an export that is ready; none before.

    Raises ServiceUnavailable.
    """
    if export.state != "ready":
        return []
    until = min(now + timedelta(seconds=settings.retention.export_link_seconds), export.over_at)
    seconds = max(int((until - now).total_seconds()), 1)
    folder = keys.export_folder(export.tenant_id, export.export_id)
    return [
        ExportLink(
            shown_name(one.name),
            one.size,
            objects.link(folder + one.name, shown_name(one.name), seconds=seconds),
            until,
        )
        for one in export.progress.files
    ]


def shown_name(name: str) -> str:
    """What a file is called outside: without what tells apart what several processes wrote."""
    stem, _, rest = name.partition(".")
    return f"{stem}.{rest.partition('.')[2]}"


def go_on(tenant_id: TenantId, export_id: str, means: ExportingDeps, *, ends_at: datetime) -> ExportStage:
    """Takes an export as far as it goes until then; what is left then, a task in the outbox goes on with.

    May be killed anywhere and called again, by any number at once. Raises ExportNotFound, ServiceUnavailable.
    """
    while True:
        export = exports.read(tenant_id, export_id)
        if export is None:
            _clear(tenant_id, export_id)
            raise ExportNotFound
        if export.state == "gone":
            _clear(tenant_id, export_id)
            return "gone"
        if export.state == "ready":
            _clear(tenant_id, export_id, {one.name for one in export.progress.files})
            return "ready"
        if not exports.begins(export, ends_at + LAST_WRITE):
            continue
        work = _Work(export, means)
        if export.is_over(means.clock()) or not work.chat_is_there():
            work.gone()
        elif work.written(ends_at) == "unfinished":
            return "unfinished"


def _clear(tenant_id: TenantId, export_id: str, but: Collection[str] = ()) -> None:
    """Removes what an export has in the bucket but for the files that it shows: a killed process may have left others.

    Only of an export that has ended: of one that runs, a file may be about to be noted.
    """
    folder = keys.export_folder(tenant_id, export_id)
    for key in objects.listed(folder):
        if key.removeprefix(folder) not in but:
            objects.delete(key)


class _Work:
    """One process at work on an export: the lines that wait to be written, and up to where they go."""

    def __init__(self, export: DataExport, means: ExportingDeps) -> None:
        self.export, self.means = export, means
        self.whose = Whose(export.tenant_id, export.user_id)
        self.lines: list[bytes] = []
        self.size = 0
        self.counts: dict[str, int] = {}
        self.position: tuple[str, str] | None = export.progress.position

    def chat_is_there(self) -> bool:
        """Whether the one chat, if it is one chat's, is not deleted."""
        if self.export.chat_id is None:
            return True
        chat = chats.read(self.export.tenant_id, self.export.chat_id)
        return chat is not None and chat.deleted_at is None

    def gone(self) -> None:
        """Ends the export with nothing; its files go with the next look at it."""
        now = self.means.clock()
        exports.ended(self.export, replace(self.export, state="gone", ended_at=now), self._event("gone", now))

    def written(self, ends_at: datetime) -> Literal["unfinished", "looked"]:
        """Writes and notes files, to the end or until time is up."""
        for _ in self._read():
            is_time_up = self.means.clock() >= ends_at
            if not is_time_up and self.size < self.means.file_bytes:
                continue
            if not self._noted(self._continued() if is_time_up else None):
                return "looked"
            if is_time_up:
                return "unfinished"
        if self.lines and not self._noted():
            return "looked"
        self._ready()
        return "looked"

    def _read(self) -> Iterator[None]:
        """Takes in one item after the other; between two, what was taken in may be written."""
        at = self.export.progress.position
        days = self.means.settings.quota.retention_days
        for found, end in export_pages.pages(self.export, None if at is None else Key(*at), usage_days=days):
            heads = export_pages.heads(found)
            for raw in found:
                line = line_of(raw, self.whose, heads)
                if line is not None:
                    self._take(line)
                self.position = keys.of(raw)
                yield
            self.position = end
            yield

    def _take(self, line: dict[str, object]) -> None:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
        self.lines.append(text)
        self.size += len(text)
        kind = str(line["type"])
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def _noted(self, event: OutboxItem | None = None) -> bool:
        """Writes the lines into a file, and notes it; False when somebody else has gone on meanwhile."""
        seen, files = self.export, self.export.progress.files
        written = (
            self._put(f"data-{len(files) + 1:05d}.{self._token()}.jsonl", b"".join(self.lines)) if self.lines else ()
        )
        progress = ExportProgress(self.position, files + written, merged(seen.progress.counts, self.counts))
        if not exports.went_on(seen, progress, event):
            self._take_back(written)
            return False
        self.export = replace(seen, progress=progress)
        self.lines, self.size, self.counts = [], 0, {}
        return True

    def _ready(self) -> None:
        now = self.means.clock()
        said = json.dumps(self._manifest(now), ensure_ascii=False, indent=2).encode()
        written = self._put(f"manifest.{self._token()}.json", said)
        progress = replace(self.export.progress, files=self.export.progress.files + written)
        done = replace(self.export, state="ready", ended_at=now, progress=progress)
        if not exports.ended(self.export, done, self._event("ready", now)):
            self._take_back(written)

    def _manifest(self, now: datetime) -> dict[str, object]:
        files = tuple(ExportedFile(shown_name(one.name), one.size) for one in self.export.progress.files)
        return replace(self.export, progress=replace(self.export.progress, files=files)).told(now)

    def _token(self) -> str:
        # Of a file that nobody else has, even where two are at the same lines.
        return self.means.new_id(self.means.clock())[-12:]

    def _put(self, name: str, content: bytes) -> tuple[ExportedFile]:
        kind = "application/json" if name.endswith(".json") else "application/x-ndjson"
        objects.put(keys.export_folder(self.export.tenant_id, self.export.export_id) + name, content, kind)
        return (ExportedFile(name, len(content)),)

    def _take_back(self, written: tuple[ExportedFile, ...]) -> None:
        for one in written:
            objects.delete(keys.export_folder(self.export.tenant_id, self.export.export_id) + one.name)

    def _continued(self) -> OutboxItem:
        caller = Caller(self.export.tenant_id, self.export.requested_by, "system")
        return _task(Call(caller, self.means.clock(), self.means.new_id), self.export.export_id)

    def _event(self, outcome: Literal["ready", "gone"], now: datetime) -> OutboxItem:
        event = ExportEnded(
            tenant_id=self.export.tenant_id,
            timestamp=now,
            requester_type="system",
            export_id=self.export.export_id,
            scope=self.export.scope,
            outcome=outcome,
            counts=dict(self.export.progress.counts),
        )
        return outbox.of_tenant(event, self.means.new_id(now))
