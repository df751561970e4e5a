"""Chats that nobody has used for as long as their tenant keeps such: deleted, as by their owners.

Found in the daily reading of the table, which reconciliation makes anyway. A deletion requires the chat to be unchanged
since it was read, so a request in that instant either succeeds or finds the chat gone.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from minichat.domain.chat import Chat
from minichat.domain.errors import ChatNotFound, ServiceUnavailable
from minichat.domain.identity import Call, Caller, NewId, TenantId
from minichat.observability import logger
from minichat.services import chats
from minichat.services.tenant_layers import TenantLayers
from minichat.storage import chats as stored_chats
from minichat.storage import keys, transact, unreadable
from minichat.storage.keys import Raw

MOST = 20_000
"""Chats of one reading: more are found by the next one, a day later."""
SECONDS = 300
"""How long one run deletes: the rest is found again by the next one."""
CHAT_SECONDS = 2


@dataclass(slots=True)
class IdleChats:
    """The idle chats of one reading of the table, which others may share, at an instant."""

    layers: TenantLayers
    now: datetime
    found: list[Chat] = field(default_factory=list)
    _kept: dict[TenantId, timedelta | None] = field(default_factory=dict)

    def noted(self, items: Iterable[Raw]) -> Iterator[Raw]:
        """The items as they come, noting each chat that is idle."""
        for raw in items:
            if keys.of(raw).sk == keys.CHAT_SK and "deleted_at" not in raw and len(self.found) < MOST:
                chat = unreadable.read(raw, stored_chats.from_raw)
                if isinstance(chat, Chat) and self._is_idle(chat):
                    self.found.append(chat)
            yield raw

    def delete(self, new_id: NewId, *, seconds: float = SECONDS) -> int:
        """Deletes what was found, as much as so many seconds allow; how many. One that fails stops no other."""
        until, deleted = time.monotonic() + seconds, 0
        for chat in self.found:
            if time.monotonic() >= until:
                break
            call = Call(Caller(chat.tenant_id, chat.user_id, "system"), self.now, new_id)
            try:
                with transact.patience(CHAT_SECONDS):
                    deleted += chats.expire(call, chat, "idle")
            except ChatNotFound:
                continue
            except Exception:  # the edge of one chat: whatever went wrong, the chats behind it still get their turn
                logger.exception("an idle chat cannot be deleted", extra={"chat_id": chat.chat_id})
        return deleted

    def _is_idle(self, chat: Chat) -> bool:
        # One in which a turn runs is in use, however old its last message is.
        if chat.running_request_id is not None:
            return False
        if chat.tenant_id not in self._kept:
            self._kept[chat.tenant_id] = self._asked(chat.tenant_id)
        kept = self._kept[chat.tenant_id]
        return kept is not None and chat.updated_at <= self.now - kept

    def _asked(self, tenant_id: TenantId) -> timedelta | None:
        """How long a tenant keeps idle chats; None for ever, and for as long as it is not known."""
        try:
            layer = self.layers.newest(tenant_id, None).layer
        except ServiceUnavailable:
            logger.exception("a tenant's policy is not known: its idle chats stay", extra={"tenant_id": tenant_id})
            return None
        days = None if layer is None else layer.idle_chats_days
        return None if days is None else timedelta(days=days)
