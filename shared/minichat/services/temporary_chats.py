"""Temporary chats: deleted automatically once nobody has used them for so long.

    created, or looked at      ends_at: when to look next      then
    |--------x----x------------------------|                   used since: looked at again, as long after that use
    |--------------------------------------|                   not used: deleted, as by its owner

Using a chat writes nothing for this: the sweep finds out. A deletion requires the chat to be unchanged since it was
read, so a request in that instant either succeeds or finds the chat gone.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from minichat.domain.chat import Chat
from minichat.domain.errors import ChatNotFound, ServiceUnavailable
from minichat.domain.identity import Call, Caller, NewId
from minichat.observability import count, logger
from minichat.pauses import CHANCE
from minichat.services import chats
from minichat.settings import Settings
from minichat.storage import chats as stored_chats
from minichat.storage import keys, transact
from minichat.storage.unreadable import Unreadable

CHAT_SECONDS = 2
"""How long a sweep tries to delete one chat; the next sweep tries again."""


@dataclass(frozen=True, slots=True)
class TemporarySweep:
    """What one sweep did; `failed` chats could not be read or deleted, and the next sweep tries them again."""

    expired: int
    failed: int = 0


def sweep(now: datetime, new_id: NewId, settings: Settings, *, seconds: float) -> TemporarySweep:
    """Deletes expired temporary chats of all tenants, as many as so many seconds allow.

    Any number of sweeps may run at once. Each chat is judged and deleted by itself: one that fails stops no other.
    """
    until, expired, failed = time.monotonic() + seconds, 0, 0
    for shard in CHANCE.sample(keys.TEMPORARY_SHARDS, len(keys.TEMPORARY_SHARDS)):
        try:
            for chat in _in_random_order(stored_chats.ending(shard, now)):
                if time.monotonic() >= until:
                    break
                if isinstance(chat, Unreadable):
                    failed += 1
                    logger.error("a temporary chat cannot be read", extra={"item": chat.key, "reason": chat.reason})
                    continue
                try:
                    with transact.patience(CHAT_SECONDS):
                        expired += _expired(chat, now, new_id, settings)
                except Exception:  # the edge of one chat: whatever went wrong, the chats behind it still get their turn
                    failed += 1
                    logger.exception("a temporary chat cannot be deleted", extra={"chat_id": chat.chat_id})
        except ServiceUnavailable:
            failed += 1
            logger.exception("temporary chats cannot be listed", extra={"shard": shard})
    count("temporary_chats_expired_total", expired)
    count("temporary_chats_failed_total", failed)
    return TemporarySweep(expired, failed)


def _in_random_order(pages: Iterator[list[Chat | Unreadable]]) -> Iterator[Chat | Unreadable]:
    """Keeps chats that cannot be deleted from using up the time of the others in every run."""
    for page in pages:
        yield from CHANCE.sample(page, len(page))


def _expired(chat: Chat, now: datetime, new_id: NewId, settings: Settings) -> bool:
    """Whether the chat's time was over, and it was deleted here."""
    ends_at = chats.ends_at(chat.updated_at, settings)
    if ends_at > now:
        stored_chats.postpone(chat, ends_at)
        return False
    try:
        return chats.expire(Call(Caller(chat.tenant_id, chat.user_id, "system"), now, new_id), chat)
    except ChatNotFound:
        return False
