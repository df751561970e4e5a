"""Messages: stored whole whatever their length, listed in the order of the conversation, hidden with their turn."""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from minichat.domain.chat import Chat
from minichat.domain.citations import Citation
from minichat.domain.identity import ChatId, MessageId, RequestId, TenantId
from minichat.domain.message import Message
from minichat.storage import chats, keys
from minichat.storage.items import MessageItem, MessagePartItem, Raw, between, together
from minichat.storage.transact import Put, Update

INLINE_MAX_BYTES = 16_384
"""A longer text goes into part items alone, so that hiding or marking its message never rewrites the text."""

PART_MAX_BYTES = 350_000
"""UTF-8 of one part item: an item may have 400 KB with its keys (AWS limit)."""

WORTH_PACKING_BYTES = 100
"""A text that would save less stays readable. Two kilobytes of prose pack into one, at half the write units."""

PAGE_ITEMS = 120
"""Items of one query of messages: more than any page, so that hidden messages and parts rarely cost a second call."""

Keep = Callable[[Message], bool]


def put(tenant_id: TenantId, chat_id: ChatId, message: Message) -> list[Put]:
    """The writes that store a message: one item, and numbered parts when the text is long."""
    item = MessageItem(
        *keys.message(tenant_id, chat_id, message.message_id),
        request_id=message.request_id,
        role=message.role,
        created_at=message.created_at,
        model=message.model,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        attachment_ids=message.attachment_ids or None,
        citations=_packed(message.citations) if message.citations else None,
    )
    text = message.content.encode()
    if len(text) <= INLINE_MAX_BYTES:
        item.content, item.packed = pack(message.content)
        return [Put(f"{message.role} message", item)]
    parts = [
        Put(
            f"{message.role} message part {number}",
            MessagePartItem(*keys.message_part(tenant_id, chat_id, message.message_id, number), content=part),
        )
        for number, part in enumerate(text[at : at + PART_MAX_BYTES] for at in range(0, len(text), PART_MAX_BYTES))
    ]
    item.parts = len(parts)
    return [Put(f"{message.role} message", item), *parts]


def pack(text: str) -> tuple[str | None, bytes | None]:
    """The text as it is, or compressed where that is worth it: the other one is None."""
    plain = text.encode()
    packed = zlib.compress(plain)
    return (None, packed) if len(packed) < len(plain) - WORTH_PACKING_BYTES else (text, None)


def unpacked(text: str | None, packed: bytes | None) -> str:
    """The text that `pack` stored."""
    return zlib.decompress(packed).decode() if packed else text or ""


def _packed(citations: Sequence[Citation]) -> bytes:
    rows = [[one.source, one.target, one.title, one.snippet, one.span] for one in citations]
    return zlib.compress(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode())


def _citations(packed: bytes | None) -> tuple[Citation, ...]:
    rows = json.loads(zlib.decompress(packed)) if packed else []
    return tuple(
        Citation(source, target, title, snippet, tuple(span) if span else None)
        for source, target, title, snippet, span in rows
    )


def hide(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId, now: datetime) -> Update:
    """The write that takes a message out of every list and context; its text stays."""
    item = MessageItem(*keys.message(tenant_id, chat_id, message_id))
    return Update(f"hide {message_id}", item, [MessageItem.deleted_at.set(now)], MessageItem.pk.exists())


def read(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> Message | None:
    """One message, hidden or not, with its whole text."""
    prefix = keys.message(tenant_id, chat_id, message_id)
    items = between(prefix.pk, prefix.sk, prefix.sk + "~", page=PAGE_ITEMS, descending=False)
    return next((message for _, message in _assembled(items, descending=False)), None)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest visible messages of a chat, oldest first, and when its newest message was made, hidden or not."""

    messages: list[Message]
    last_message_at: datetime | None

    def is_of(self, chat: Chat) -> bool:
        """Whether both were read of the same state of the chat.

        They are read side by side, and a turn may begin, end or be deleted in between. The head names the latest turn,
        whose message is the newest visible one, and tells when the newest message was made. Messages that are read
        again, after the head, may be newer than it but not older; the conditions on the head notice what is newer.
        """
        latest = self.messages[-1].request_id if self.messages else None
        return (latest, self.last_message_at) == (chat.latest_request_id, chat.last_message_at)


def recent(tenant_id: TenantId, chat_id: ChatId, limit: int, *, at_most_bytes: int) -> Newest:
    """`limit` of the newest visible messages, at least one, or fewer once their text exceeds `at_most_bytes`."""
    pk = keys.partition(tenant_id, chat_id)
    items = between(pk, keys.MESSAGE_PREFIX, keys.MESSAGE_END, page=PAGE_ITEMS, descending=True)
    newest: list[Message] = []
    size, last_at = 0, None
    for hidden, message in _assembled(items, descending=True):
        last_at = last_at or message.created_at
        if not hidden:
            newest.append(message)
            size += len(message.content)
        if len(newest) >= max(limit, 1) or size > at_most_bytes:
            break
    return Newest(newest[::-1], last_at)


def stretch(tenant_id: TenantId, chat_id: ChatId, after: MessageId | None, up_to: MessageId) -> Iterator[Message]:
    """The visible messages after one (from the first, without it) up to another, that one too, oldest first."""
    pk = keys.partition(tenant_id, chat_id)
    start = keys.message(tenant_id, chat_id, after).sk + "~" if after else keys.MESSAGE_PREFIX
    items = between(pk, start, keys.message(tenant_id, chat_id, up_to).sk + "~", page=PAGE_ITEMS, descending=False)
    yield from (message for hidden, message in _assembled(items, descending=False) if not hidden)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a conversation: between two message ids, both exclusive, "" for open; travelled in one direction."""

    after: str = ""
    before: str = ""
    descending: bool = False


def page(
    tenant_id: TenantId, chat_id: ChatId, window: Window, *, limit: int, keep: Keep
) -> tuple[Chat | None, list[Message]]:
    """The chat's head, and up to `limit` visible messages of the window that `keep` accepts, in travel order.

    The first page from the start is a single query: the head's key stands right before the messages'. Elsewhere the
    head is read beside them.
    """
    pk = keys.partition(tenant_id, chat_id)
    after, before, descending = window.after, window.before, window.descending
    end = keys.message(tenant_id, chat_id, MessageId(before)).sk if before else keys.MESSAGE_END
    if not after and not descending:
        items = between(pk, keys.CHAT_SK, end, page=PAGE_ITEMS, descending=False)
        first = next(items, None)
        if first is None or first["sk"]["S"] != keys.CHAT_SK:
            return None, []
        return chats.from_raw(first), _take(items, limit, keep, descending=False)
    start = keys.message(tenant_id, chat_id, MessageId(after)).sk + "~" if after else keys.MESSAGE_PREFIX
    return together(
        lambda: chats.read(tenant_id, chat_id),
        lambda: _take(
            between(pk, start, end, page=PAGE_ITEMS, descending=descending), limit, keep, descending=descending
        ),
    )


def _take(items: Iterator[Raw], limit: int, keep: Keep, *, descending: bool) -> list[Message]:
    taken: list[Message] = []
    for hidden, message in _assembled(items, descending=descending):
        if not hidden and keep(message):
            taken.append(message)
            if len(taken) == limit:
                break
    return taken


def _assembled(items: Iterable[Raw], *, descending: bool) -> Iterator[tuple[bool, Message]]:
    """Whether each message is hidden, and the message with its parts joined, in the items' order."""
    waiting: MessageItem | None = None
    parts: list[bytes] = []
    for raw in items:
        if raw["sk"]["S"].count("#") > 1:
            parts.append(MessagePartItem.from_raw_data(dict(raw)).content)
        else:
            waiting = MessageItem.from_raw_data(dict(raw))
        # Forwards a message's parts follow it; backwards they came before it, the last one first.
        if waiting is not None and len(parts) == (waiting.parts or 0):
            yield waiting.deleted_at is not None, _message(waiting, parts[::-1] if descending else parts)
            waiting, parts = None, []


def _message(item: MessageItem, parts: Sequence[bytes]) -> Message:
    message = Message(
        message_id=MessageId(item.sk.removeprefix(keys.MESSAGE_PREFIX)),
        request_id=RequestId(item.request_id),
        role=item.role,  # type: ignore[arg-type]  # only `put` writes it
        content=unpacked(item.content, item.packed),
        created_at=item.created_at,
        model=item.model,
        input_tokens=int(item.input_tokens) if item.input_tokens else None,
        output_tokens=int(item.output_tokens) if item.output_tokens else None,
        attachment_ids=item.attachment_ids or (),
        citations=_citations(item.citations),
        reaction=item.reaction,  # type: ignore[arg-type]  # only `reactions` writes it
    )
    return replace(message, content=b"".join(parts).decode()) if item.parts else message
