"""Erases a user, or a tenant: everything of theirs goes, and the ledger keeps sums that name nobody (ADR 24).

Passes over the table take whatever they meet a step further: a chat is deleted as by its owner; once its turn has
ended, its usage is in the ledger and its files are gone, its items go. A pass that meets nothing ends the erasure.
Whoever is killed has lost nothing but a page: the next one begins where the last noted page ended, and finds done what
was done.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from minichat.domain.erasure import PSEUDONYM, STOPPING, Erasure, ErasureNotFound
from minichat.domain.errors import ChatNotFound, ServiceUnavailable
from minichat.domain.identity import AttachmentId, Call, Caller, ChatId, Clock, NewId, TenantId, UserId
from minichat.domain.usage_ledger import LedgerSums, Total
from minichat.events.erasures import EraseTask, ErasureCompleted, ErasureRequested
from minichat.observability import logger
from minichat.services import chats
from minichat.services.erase_manifest import check_secret, signed
from minichat.services.erase_waits import reason_to_wait
from minichat.settings import Settings
from minichat.storage import chats as stored_chats
from minichat.storage import (
    erasures,
    exports,
    keys,
    objects,
    outbox,
    persons,
    quota,
    scan,
    unreadable,
    usage_ledger,
)
from minichat.storage.keys import Key, Raw
from minichat.storage.persons import Whose
from minichat.storage.unreadable import Unreadable

PAGE = 500
"""Items of the table that are looked at between two notes of how far it is."""
A_MONTH_EITHER_WAY = timedelta(days=1)
"""A turn that is under way may begin by a clock on the other side of a month's end."""

Stage = Literal["complete", "waiting", "unfinished"]


@dataclass(frozen=True, slots=True)
class ErasingDeps:
    """What erasing takes."""

    settings: Settings
    clock: Clock
    new_id: NewId


def accept(call: Call, user_id: UserId | None, settings: Settings) -> Erasure:
    """Begins to erase a user of the call's tenant, or without one the whole tenant: from now on nothing new of theirs
    begins.

    Raises ErasureRunning, ServiceUnavailable; also when there is no secret to sign the manifest with.
    """
    check_secret(settings)
    tenant_id, erasure_id = call.caller.tenant_id, call.new_id(call.now)
    scope: Literal["user", "tenant"] = "tenant" if user_id is None else "user"
    # Nothing leads from a user to the pseudonym, nor from one erasure to another.
    pseudonym = UserId(f"{PSEUDONYM}{hashlib.sha256(call.new_id(call.now).encode()).hexdigest()[:32]}")
    erasure = Erasure(tenant_id, erasure_id, scope, call.now, user_id, pseudonym)
    asked = ErasureRequested(
        tenant_id=tenant_id,
        timestamp=call.now,
        requester_type=call.caller.subject_type,
        trace_id=call.trace_id or None,
        actor_user_id=call.caller.user_id,
        erasure_id=erasure_id,
        scope=scope,
        erased_user_id=user_id,
    )
    task = outbox.item(call, ChatId(EraseTask.queue), EraseTask(tenant_id=tenant_id, erasure_id=erasure_id))
    events = [outbox.of_tenant(asked, call.new_id(call.now)), task]
    instants = () if user_id is None else (call.now - A_MONTH_EITHER_WAY, call.now, call.now + A_MONTH_EITHER_WAY)
    months = list(dict.fromkeys(quota.key(tenant_id, user_id, at) for at in instants if user_id is not None))
    erasures.accept(erasure, months, events, retention_days=settings.quota.retention_days)
    return erasure


def shown(tenant_id: TenantId, erasure_id: str) -> Erasure:
    """One erasure of the tenant.

    Raises ErasureNotFound, ServiceUnavailable.
    """
    if (found := erasures.read(tenant_id, erasure_id)) is None:
        raise ErasureNotFound
    return found


def go_on(tenant_id: TenantId, erasure_id: str, means: ErasingDeps, *, ends_at: datetime) -> Stage:
    """Takes an erasure as far as that goes: to its end, until something else must happen first, or until time is up.

    May be killed anywhere and called again, by any number at once. Raises ErasureNotFound, ServiceUnavailable.
    """
    while True:
        erasure = shown(tenant_id, erasure_id)
        if erasure.is_complete:
            return "complete"
        now = means.clock()
        if erasure.scope == "tenant" and now < erasure.requested_at + STOPPING:
            return "waiting"
        if now >= ends_at:
            return "unfinished"
        page = _Page(erasure, means)
        end = page.worked()
        progress = erasure.progress.at(end, page.met, page.chats, page.waits_for)
        if end is not None or progress.chats_left or erasure.progress.met + page.met:
            went_on = erasures.went_on(erasure, progress)
            if went_on and end is None and progress.waits_for is not None:
                return "waiting"
        elif _completed(erasure, page.whose, means):
            return "complete"


class _Page:
    """One page of the table: what of it is met, and what must be waited for."""

    def __init__(self, erasure: Erasure, means: ErasingDeps) -> None:
        self.erasure, self.means = erasure, means
        self.whose = Whose(erasure.tenant_id, erasure.user_id)
        self.met = self.chats = 0
        self.waits_for: str | None = None

    def worked(self) -> tuple[str, str] | None:
        """Does what can be done with the page; where the next one begins, None at the end of the table."""
        start = self.erasure.progress.position
        found, end = scan.page_of(self.erasure.tenant_id, None if start is None else Key(*start), limit=PAGE)
        by_fate: dict[persons.Fate, list[Raw]] = {}
        for raw in found:
            if (fate := persons.fate(raw, self.whose)) is not None:
                by_fate.setdefault(fate, []).append(raw)
        self.met = sum(len(those) for fate, those in by_fate.items() if fate != "last")
        for raw in by_fate.get("chat", []):
            self._chat(raw)
        self._headless(by_fate.get("of_chat", []))
        for day in dict.fromkeys(usage_ledger.whose(raw) for raw in by_fate.get("usage", [])):
            self._move(*day)
        for raw in by_fate.get("names", []):
            erasures.renamed(self.erasure, raw, self.whose)
        for raw in by_fate.get("export", []):
            self._export(raw)
        erasures.removed(self.erasure, by_fate.get("remove", []))
        if self.erasure.progress.chats_left == 0:
            erasures.removed(self.erasure, by_fate.get("late", []))
        return end

    def _wait(self, what: str) -> None:
        self.waits_for = self.waits_for or what

    def _chat(self, raw: Raw) -> None:
        self.chats += 1
        chat = unreadable.read(raw, stored_chats.from_raw)
        if isinstance(chat, Unreadable) or chat is None:
            self._wait(f"{keys.of(raw)} cannot be read")
            return
        call = Call(Caller(chat.tenant_id, chat.user_id, "system"), self.means.clock(), self.means.new_id)
        try:
            if chat.deleted_at is None:
                # Its cleanup begins, and its turn is asked to stop.
                chats.expire(call, chat, "erased")
                self._wait(f"chat {chat.chat_id}: its cleanup has begun")
            elif (reason := reason_to_wait(call, chat, self.means.settings)) is not None:
                self._wait(f"chat {chat.chat_id}: {reason}")
            else:
                self._remove(chat.tenant_id, chat.chat_id)
        except (ServiceUnavailable, ChatNotFound):
            logger.exception("a chat cannot be erased now", extra={"chat_id": chat.chat_id})
            self._wait(f"chat {chat.chat_id}: the store did not answer")

    def _export(self, raw: Raw) -> None:
        """Stops an export, and removes it once nobody can be writing a file of it any more."""
        export, now = exports.from_raw(raw), self.means.clock()
        if export.state != "gone":
            exports.stop(export, now)
        if export.state != "gone" or (export.busy_until is not None and export.busy_until > now):
            self._wait(f"export {export.export_id}: it may still be written")
            return
        for name in objects.listed(keys.export_folder(export.tenant_id, export.export_id)):
            objects.delete(name)
        erasures.removed(self.erasure, [raw])

    def _headless(self, found: list[Raw]) -> None:
        """Removes what is left of chats whose heads have expired already."""
        places = {keys.of(raw).pk for raw in found}
        heads = scan.heads_of(places)
        for pk in sorted(places - heads):
            self._remove(*keys.chat_of(pk))

    def _remove(self, tenant_id: TenantId, chat_id: ChatId) -> None:
        for raw in scan.of_kind(tenant_id, chat_id, keys.ATTACHMENT_PREFIX):
            name = keys.of(raw).sk.removeprefix(keys.ATTACHMENT_PREFIX)
            objects.delete(keys.upload(tenant_id, chat_id, AttachmentId(name)))
        # The head goes last: it leads to the others.
        head = keys.chat(tenant_id, chat_id)
        found = scan.of_kind(tenant_id, chat_id, "")
        erasures.removed(self.erasure, [raw for raw in found if keys.of(raw) != head])
        if all(keys.of(raw) == head for raw in scan.of_kind(tenant_id, chat_id, "")):
            erasures.removed(self.erasure, [raw for raw in found if keys.of(raw) == head])

    def _move(self, day: str, user_id: UserId) -> None:
        """Enters what a user has used on a day under the pseudonym."""
        tenant_id, pseudonym = self.erasure.tenant_id, self.erasure.pseudonym
        assert pseudonym is not None, "it is there until the erasure is complete"
        while True:
            totals = usage_ledger.of_user(tenant_id, user_id, [day])
            total = totals[0] if totals else Total(tenant_id, day, user_id, LedgerSums())
            theirs = [entry for entry in usage_ledger.entries(tenant_id, day) if entry.user_id == user_id]
            if not theirs and not totals:
                return
            batch = theirs[: usage_ledger.MOVED_AT_ONCE]
            counted = erasures.counted(self.erasure, {"ledger_entries_kept": len(batch)})
            if not usage_ledger.move(total, batch, pseudonym, counted):
                # A late booking: the next pass sees it.
                return


def _completed(erasure: Erasure, whose: Whose, means: ErasingDeps) -> bool:
    """Ends an erasure of which nothing is left; False when something is, after all."""
    now, last = means.clock(), erasures.left_for_last(whose)
    counts = dict(erasure.counts)
    for raw in last:
        if keys.of(raw) != keys.stopped(erasure.tenant_id):
            kind = persons.kind_of(keys.of(raw))
            counts[kind] = counts.get(kind, 0) + 1
    event = ErasureCompleted(
        tenant_id=erasure.tenant_id,
        timestamp=now,
        requester_type="system",
        erasure_id=erasure.erasure_id,
        scope=erasure.scope,
        counts=counts,
    )
    manifest = signed(erasure.told(counts, now), means.settings)
    done = replace(erasure, counts=counts, completed_at=now, manifest=manifest)
    return erasures.complete(erasure, done, last, outbox.of_tenant(event, means.new_id(now)))
