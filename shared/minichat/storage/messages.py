"""Messages: stored whole whatever their length, listed in the order of the conversation, taken back with their turn.

    MSG#<id>          what the conversation shows, and nothing else: a reader pays only for what it gets
    WITHDRAWN#<id>    a message that was taken back, still found by its id
    TEXT#<id>#<n>     a text above 16 KB, wherever its message is, read by its keys

Chats of an earlier version have hidden messages among the others (`deleted_at`), and the parts of long texts right
behind their messages (`parts` without `bytes`). They are read as they are; nothing writes them so any more.
"""

import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pynamodb.expressions.condition import Condition

from minichat import greenlets
from minichat.domain.chat import Chat
from minichat.domain.citations import Citation
from minichat.domain.identity import ChatId, MessageId, RequestId, TenantId
from minichat.domain.message import Message
from minichat.domain.turn import ToolCalls, Turn
from minichat.storage import chats, keys
from minichat.storage.conditions import all_of, is_still
from minichat.storage.items import MessageItem, MessagePartItem, batch_get, between
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Check, Delete, Put, Update, Write

INLINE_MAX_BYTES = 16_384
"""A longer text has items of its own, so that moving or marking its message never rewrites the text."""

PART_MAX_BYTES = 350_000
"""UTF-8 of one part item: an item may have 400 KB with its keys (AWS limit)."""

WORTH_PACKING_BYTES = 100
"""A text that would save less stays readable. Two kilobytes of prose pack into one, at half the write units."""

STRETCH_ITEMS = 50
"""Messages per query when a long stretch is read from end to end."""

TAKEN_BACK = "take back "
"""The name of the writes that are refused when a message is not as it was found."""

Keep = Callable[[Message], bool]
"""Whether a message is wanted, judged by everything but its text: a long text is only read after that."""


@dataclass(frozen=True, slots=True)
class FoundMessages:
    """A message as it was found, and its item. A text in `parts` is missing until `whole` reads it.

    `size` is the text's, in bytes.
    """

    message: Message
    raw: Raw
    parts: int
    size: int


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
        cut=message.cut,
        selected_model=message.selected_model,
        downgrade_reason=message.downgrade_reason,
        tool_calls=message.tool_calls if message.tool_calls != ToolCalls() else None,
    )
    text = message.content.encode()
    if len(text) <= INLINE_MAX_BYTES:
        item.content, item.packed = pack(message.content)
        return [Put(f"{message.role} message", item)]
    parts = [
        Put(
            f"{message.role} message part {number}",
            MessagePartItem(*keys.message_text(tenant_id, chat_id, message.message_id, number), content=part),
        )
        for number, part in enumerate(text[at : at + PART_MAX_BYTES] for at in range(0, len(text), PART_MAX_BYTES))
    ]
    item.parts, item.text_bytes = len(parts), len(text)
    return [Put(f"{message.role} message", item), *parts]


def pack(text: str) -> tuple[str | None, bytes | None]:
    """The text as it is, or compressed if that saves enough; the other value is None."""
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


def withdraw(tenant_id: TenantId, chat_id: ChatId, found: FoundMessages, now: datetime) -> list[Write]:
    """The writes that take a message out of the conversation. It moves as it was found, if it is unchanged."""
    message_id = found.message.message_id
    here, name = MessageItem(*keys.message(tenant_id, chat_id, message_id)), f"{TAKEN_BACK}{message_id}"
    if _parts_behind(found.raw):
        return [Update(name, here, [MessageItem.deleted_at.set(now)], MessageItem.pk.exists())]
    moved = {**found.raw, "sk": {"S": keys.withdrawn(tenant_id, chat_id, message_id).sk}}
    there = MessageItem.from_raw_data(moved)
    there.deleted_at = now
    is_there = MessageItem.pk.exists()
    # Only a message's reaction ever changes; one that was taken back and given again has another time.
    same_reaction = is_still(MessageItem.reaction, there.reaction)
    same_time = is_still(MessageItem.reacted_at, there.reacted_at)
    return [Delete(name, here, all_of(is_there, same_reaction, same_time)), Put(f"withdrawn {message_id}", there)]


def is_in_place() -> Condition:
    """The message is where the conversation shows it: nobody has taken it back."""
    is_there = MessageItem.pk.exists()
    # In chats of an earlier version a withdrawn message stays where it is.
    is_shown = MessageItem.deleted_at.does_not_exist()
    return all_of(is_there, is_shown)


def must_be_gone(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> Check:
    """The check for a message that was not found: it must really be gone, or the transaction is refused."""
    item = MessageItem(*keys.message(tenant_id, chat_id, message_id))
    return Check(f"{TAKEN_BACK}{message_id}", item, MessageItem.pk.does_not_exist())


def visible(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> Message | None:
    """One message, with its whole text; None when it does not exist or was taken back.

    Raises ServiceUnavailable.
    """
    key = keys.message(tenant_id, chat_id, message_id)
    raw = batch_get([key]).get(key)
    return None if raw is None or "deleted_at" in raw else of_item(tenant_id, chat_id, key, raw)


def read(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> Message | None:
    """One message, taken back or not, with its whole text.

    Raises ServiceUnavailable.
    """
    own, withdrawn = keys.message(tenant_id, chat_id, message_id), keys.withdrawn(tenant_id, chat_id, message_id)
    # One after the other: a message that is no longer in its place has been moved by then.
    raw = batch_get([own]).get(own) or batch_get([withdrawn]).get(withdrawn)
    return None if raw is None else of_item(tenant_id, chat_id, own, raw)


def of_item(tenant_id: TenantId, chat_id: ChatId, own: Key, raw: Raw) -> Message:
    """The message of a stored item, with its whole text; `own` is where it was in the conversation.

    Raises ServiceUnavailable.
    """
    items: Iterable[Raw] = [raw]
    if _parts_behind(raw):
        items = between(own.pk, own.sk, own.sk + "~", page=STRETCH_ITEMS)
    return whole(tenant_id, chat_id, [found for _, found in _joined(items, descending=False)])[0].message


def cited(turn: Turn) -> tuple[Citation, ...]:
    """The citations of a turn's answer; read only if the turn says that there are any.

    Raises ServiceUnavailable.
    """
    if not turn.cites:
        return ()
    key = keys.message(turn.tenant_id, turn.chat_id, turn.assistant_message_id)
    raw = batch_get([key]).get(key)
    return () if raw is None else _found(raw, ()).message.citations


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest messages of a conversation, oldest first."""

    found: list[FoundMessages]

    @property
    def messages(self) -> list[Message]:
        """The messages alone."""
        return [one.message for one in self.found]

    def of(self, request_id: RequestId) -> tuple[FoundMessages, ...]:
        """Those of one turn."""
        return tuple(one for one in self.found if one.message.request_id == request_id)

    def is_of(self, chat: Chat) -> bool:
        """Whether these messages and the head show the same state of the chat.

        Both are read concurrently, and a turn may begin, end or be deleted in between. Only the latest turn can change,
        and none comes back, so the latest turn and whether it is answered decide all that a conversation shows. The
        head names that turn. If its answer came after the messages were read, the head's time is later than the time of
        the turn's own message. (It is later, too, if a later turn was deleted: the messages are then read again for
        nothing.) Messages read again, after the head, may be newer than it but not older; the conditions on the head
        notice newer ones.
        """
        if not self.found:
            return chat.latest_request_id is None
        newest = self.found[-1].message
        is_whole = newest.role == "assistant" or newest.created_at == chat.last_message_at
        return newest.request_id == chat.latest_request_id and is_whole


def recent(tenant_id: TenantId, chat_id: ChatId, limit: int, *, at_most_bytes: int) -> Newest:
    """`limit` of the newest messages, at least one, or fewer once their text exceeds `at_most_bytes`.

    Raises ServiceUnavailable.
    """
    found: list[FoundMessages] = []
    size = 0
    for one in _backwards(tenant_id, chat_id, max(limit, 1)):
        found.append(one)
        size += one.size
        if size > at_most_bytes:
            break
    return Newest(whole(tenant_id, chat_id, found[::-1]))


def newest(tenant_id: TenantId, chat_id: ChatId, limit: int) -> Newest:
    """`limit` of the newest messages, the long ones without their texts.

    Raises ServiceUnavailable.
    """
    return Newest([*_backwards(tenant_id, chat_id, limit)][::-1])


def _backwards(tenant_id: TenantId, chat_id: ChatId, limit: int) -> Iterator[FoundMessages]:
    pk = keys.partition(tenant_id, chat_id)
    items = between(pk, keys.MESSAGE_PREFIX, keys.MESSAGE_END, page=limit, descending=True)
    return itertools.islice(_shown(items, descending=True), limit)


def stretch(tenant_id: TenantId, chat_id: ChatId, after: MessageId | None, up_to: MessageId) -> Iterator[Message]:
    """The messages after one (from the first, without it) up to another, that one too, oldest first.

    Long texts are read one by one: together they may not fit into memory.
    Raises ServiceUnavailable.
    """
    pk = keys.partition(tenant_id, chat_id)
    start = keys.message(tenant_id, chat_id, after).sk + "~" if after else keys.MESSAGE_PREFIX
    end = keys.message(tenant_id, chat_id, up_to).sk + "~"
    for found in _shown(between(pk, start, end, page=STRETCH_ITEMS), descending=False):
        yield whole(tenant_id, chat_id, [found])[0].message


@dataclass(frozen=True, slots=True)
class Window:
    """A range of a chat's ids, both bounds exclusive, "" for open; traversed in one direction."""

    after: str = ""
    before: str = ""
    descending: bool = False


def page(
    tenant_id: TenantId, chat_id: ChatId, window: Window, *, limit: int, keep: Keep
) -> tuple[Chat | None, list[FoundMessages]]:
    """The chat's head, and up to `limit` messages of the window that `keep` accepts, in its direction, as found.

    The first page from the start is a single query: the head's key sorts right before the messages'. Other pages read
    the head separately, at the same time.
    Raises ServiceUnavailable.
    """
    pk = keys.partition(tenant_id, chat_id)
    after, before, descending = window.after, window.before, window.descending
    end = keys.message(tenant_id, chat_id, MessageId(before)).sk if before else keys.MESSAGE_END
    if not after and not descending:
        items = between(pk, keys.CHAT_SK, end, page=limit + 1)
        first = next(items, None)
        if first is None or first["sk"]["S"] != keys.CHAT_SK:
            return None, []
        return chats.from_raw(first), _taken(items, limit, keep, descending=False)
    start = keys.message(tenant_id, chat_id, MessageId(after)).sk + "~" if after else keys.MESSAGE_PREFIX
    return greenlets.together(
        lambda: chats.read(tenant_id, chat_id),
        lambda: _taken(between(pk, start, end, page=limit, descending=descending), limit, keep, descending=descending),
    )


def whole(tenant_id: TenantId, chat_id: ChatId, found: Sequence[FoundMessages]) -> list[FoundMessages]:
    """The same messages, with the long texts too: no call when there is none, else one for each hundred parts.

    Raises ServiceUnavailable.
    """
    wanted = {
        one.message.message_id: [
            keys.message_text(tenant_id, chat_id, one.message.message_id, number) for number in range(one.parts)
        ]
        for one in found
    }
    texts = batch_get(key for parts in wanted.values() for key in parts)
    return [_with_text(one, [texts[key] for key in wanted[one.message.message_id]]) for one in found]


def _with_text(found: FoundMessages, parts: Sequence[Raw]) -> FoundMessages:
    if not parts:
        return found
    text = b"".join(MessagePartItem.from_raw_data(dict(part)).content for part in parts).decode()
    return replace(found, message=replace(found.message, content=text))


def _taken(items: Iterator[Raw], limit: int, keep: Keep, *, descending: bool) -> list[FoundMessages]:
    kept = (found for found in _shown(items, descending=descending) if keep(found.message))
    return list(itertools.islice(kept, limit))


def _shown(items: Iterable[Raw], *, descending: bool) -> Iterator[FoundMessages]:
    """The messages that a conversation shows, in the items' order."""
    return (found for hidden, found in _joined(items, descending=descending) if not hidden)


def _joined(items: Iterable[Raw], *, descending: bool) -> Iterator[tuple[bool, FoundMessages]]:
    """Whether each message is hidden, and the message with the parts behind it, in the items' order."""
    waiting: Raw | None = None
    parts: list[bytes] = []
    for raw in items:
        if raw["sk"]["S"].count("#") > 1:
            parts.append(MessagePartItem.from_raw_data(dict(raw)).content)
        else:
            waiting = raw
        # Forwards a message's parts follow it; backwards they came before it, the last one first.
        if waiting is not None and len(parts) == _parts_behind(waiting):
            yield "deleted_at" in waiting, _found(waiting, parts[::-1] if descending else parts)
            waiting, parts = None, []


def _parts_behind(raw: Raw) -> int:
    """How many items right behind a message of an earlier version hold its text."""
    return int(raw["parts"]["N"]) if "parts" in raw and "bytes" not in raw else 0


def _found(raw: Raw, parts_behind: Sequence[bytes]) -> FoundMessages:
    item = MessageItem.from_raw_data(dict(raw))
    content = b"".join(parts_behind).decode() if parts_behind else unpacked(item.content, item.packed)
    message = Message(
        message_id=MessageId(item.sk.rpartition("#")[2]),
        request_id=RequestId(item.request_id),
        role=item.role,  # type: ignore[arg-type]  # only `put` writes it
        content=content,
        created_at=item.created_at,
        model=item.model,
        input_tokens=None if item.input_tokens is None else int(item.input_tokens),
        output_tokens=None if item.output_tokens is None else int(item.output_tokens),
        attachment_ids=item.attachment_ids or (),
        citations=_citations(item.citations),
        reaction=item.reaction,  # type: ignore[arg-type]  # only `reactions` writes it
        cut=item.cut,
        tool_calls=item.tool_calls or ToolCalls(),
        selected_model=item.selected_model,
        downgrade_reason=item.downgrade_reason,
    )
    elsewhere = int(item.text_bytes or 0)
    return FoundMessages(message, raw, int(item.parts or 0) if elsewhere else 0, elsewhere or len(content.encode()))
