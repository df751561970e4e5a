"""Erases a user, or a tenant: everything of theirs goes, and the ledger keeps sums that name nobody (ADR 24).

Passes over the table take whatever they meet a step further: a chat is deleted as by its owner; once its turn has ended,
its usage is in the ledger and its files are gone, its items go. A pass that meets nothing ends the erasure. Whoever is
killed has lost nothing but a page: the next one begins where the last noted page ended, and finds done what was done.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from minichat.domain.chat import Chat
from minichat.domain.cleanup import CleanupStatus
from minichat.domain.erasure import STOPPING, Erasure, ErasureNotFound
from minichat.domain.errors import ChatNotFound, ServiceUnavailable
from minichat.domain.identity import AttachmentId, Call, Caller, ChatId, Clock, NewId, TenantId, UserId, instant_of
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage_ledger import LedgerSums, Total
from minichat.events.erasures import ErasureCompleted, ErasureRequested, EraseTask
from minichat.observability import logger
from minichat.services import chats
from minichat.services.orphans import end_if_dead
from minichat.settings import Settings
from minichat.storage import attachments, erasures, keys, objects, outbox, persons, quota, scan, turn_lists, unreadable
from minichat.storage import chats as stored_chats
from minichat.storage import usage_ledger, vector_stores
from minichat.storage.keys import Key, Raw
from minichat.storage.persons import Whose
from minichat.storage.unreadable import Unreadable

PAGE = 500
"""Items of the table that are looked at between two notes of how far it is."""
UNBOOKED = timedelta(days=14)
"""For so long a turn that has ended may still come into the ledger: no queue keeps its event for longer (AWS limit)."""
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
    _secret(settings)
    tenant_id, erasure_id = call.caller.tenant_id, call.new_id(call.now)
    scope: Literal["user", "tenant"] = "tenant" if user_id is None else "user"
    # Nothing leads from a user to the pseudonym, nor from one erasure to another.
    pseudonym = UserId(f"erased-{hashlib.sha256(call.new_id(call.now).encode()).hexdigest()[:32]}")
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
        assert erasure.pseudonym is not None, "it is there until the erasure is complete"
        self.erasure, self.means = erasure, means
        self.whose = Whose(erasure.tenant_id, erasure.user_id, erasure.pseudonym)
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
        for day in dict.fromkeys(self._day(raw) for raw in by_fate.get("usage", [])):
            self._move(*day)
        for raw in by_fate.get("names", []):
            erasures.renamed(self.erasure, raw, self.whose)
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
            elif (reason := self._in_the_way(call, chat)) is not None:
                self._wait(f"chat {chat.chat_id}: {reason}")
            else:
                self._remove(chat.tenant_id, chat.chat_id)
        except (ServiceUnavailable, ChatNotFound):
            logger.exception("a chat cannot be erased now", extra={"chat_id": chat.chat_id})
            self._wait(f"chat {chat.chat_id}: the store did not answer")

    def _in_the_way(self, call: Call, chat: Chat) -> str | None:
        """What must happen before the items of a deleted chat may go; None when nothing."""
        if chat.running_request_id is not None and not end_if_dead(call, chat, self.means.settings):
            return "a turn has not ended yet"
        ended: list[Turn] = []
        for turn in turn_lists.of_chat(chat.tenant_id, chat.chat_id):
            if isinstance(turn, Unreadable):
                return f"{turn.key} cannot be read"
            if turn.state is TurnState.RUNNING or turn.completed_at is None:
                return "a turn has not ended yet"
            if turn.completed_at > call.now - UNBOOKED:
                ended.append(turn)
        if len(usage_ledger.of_turns(ended)) < len(ended):
            # Its event would enter the user's name once more.
            return "the usage of a turn is not in the ledger yet"
        for file in attachments.of_chat(chat.tenant_id, chat.chat_id):
            if (reason := self._of_file(file, call.now)) is not None:
                return reason
        for store in vector_stores.of_chat(chat.tenant_id, chat.chat_id):
            if isinstance(store, Unreadable) or store.gone_at is None:
                return "a vector store is not cleaned up yet"
        return None

    def _of_file(self, file: Any, now: datetime) -> str | None:
        if isinstance(file, Unreadable):
            return f"{file.key} cannot be read"
        if file.cleanup.status is CleanupStatus.FAILED:
            return f"the cleanup of attachment {file.attachment_id} failed (minichat cleanup again)"
        if file.cleanup.status is not CleanupStatus.DONE:
            return f"attachment {file.attachment_id} is not cleaned up yet"
        seconds = self.means.settings.attachments.upload_seconds
        if now < file.created_at + timedelta(seconds=seconds):
            return f"attachment {file.attachment_id} can still be uploaded"
        return None

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

    def _day(self, raw: Raw) -> tuple[str, UserId]:
        return usage_ledger.whose(raw)

    def _move(self, day: str, user_id: UserId) -> None:
        """Enters what a user has used on a day under the pseudonym."""
        tenant_id = self.erasure.tenant_id
        while True:
            totals = usage_ledger.of_user(tenant_id, user_id, [day])
            total = totals[0] if totals else Total(tenant_id, day, user_id, LedgerSums())
            theirs = [entry for entry in usage_ledger.entries(tenant_id, day) if entry.user_id == user_id]
            if not theirs and not totals:
                return
            batch = theirs[: usage_ledger.MOVED_AT_ONCE]
            counts = {"ledger_entries_kept": len(batch), "days_of_usage_kept": int(len(theirs) == len(batch))}
            counted = erasures.counted(self.erasure, {kind: count for kind, count in counts.items() if count})
            if not usage_ledger.move(total, batch, self.whose.pseudonym, counted):
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
    manifest = signed(erasure.told(counts, now), _secret(means.settings))
    return erasures.complete(erasure, last, manifest, counts, now, outbox.of_tenant(event, means.new_id(now)))


def signed(says: dict[str, Any], secret: str) -> str:
    """A manifest as a JSON Web Signature (RFC 7515, compact, HS256)."""
    header = {"alg": "HS256", "typ": "minichat-erasure+jws"}
    said = b".".join(_url(json.dumps(part, separators=(",", ":"), sort_keys=True).encode()) for part in (header, says))
    return b".".join((said, _url(hmac.digest(secret.encode(), said, hashlib.sha256)))).decode()


def verifies(manifest: str, secret: str) -> bool:
    """Whether a deployment with this secret has signed a manifest."""
    said, _, signature = manifest.rpartition(".")
    expected = _url(hmac.digest(secret.encode(), said.encode(), hashlib.sha256)).decode()
    return hmac.compare_digest(signature.encode(), expected.encode())


def _url(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


def _secret(settings: Settings) -> str:
    secret = settings.manifest_secret.get_secret_value()
    if not secret:
        logger.error("manifest_secret is not set: nothing can be erased")
        raise ServiceUnavailable
    return secret
