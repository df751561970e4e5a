"""Deleted chats: what they left at providers goes, then their items."""

from typing import Any

from minichat.events import queues
from minichat.events.consume import PermanentFailure, Received, consume
from minichat.events.payloads import ChatCleanup
from minichat.moment import new_id, now
from minichat.services import purge
from minichat.settings import current
from minichat.storage.items import connect

connect(current().store)
queues.connect(current())


def handler(event: dict[str, Any], context: object) -> object:
    """Which messages have to come again."""
    del context
    return consume(event, "chat-cleanup", ChatCleanup, _clean)


def _clean(event: ChatCleanup, received: Received) -> str:
    del received
    try:
        purge.expire(event, current(), now(), new_id)
    except purge.NotDeleted:
        raise PermanentFailure("the chat is not deleted") from None
    return "cleaned"
