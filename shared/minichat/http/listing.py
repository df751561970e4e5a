"""Lists as pages: from a query to the rows, and to the cursors of the neighbouring pages."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from starlette.requests import Request

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.identity import Call, Caller, ChatId, MessageId, from_micros, uuid7_floor
from minichat.domain.message import Message
from minichat.domain.message_size import told_bytes
from minichat.domain.names import in_key
from minichat.http import odata
from minichat.http.odata import Field, Filter, Order, Value
from minichat.http.paging import Cursor, CursorCodec, CutPage, cut, fits
from minichat.http.response_models import (
    AttachmentDetail,
    AttachmentSummary,
    ChatDetail,
    MessageView,
    Page,
    PageInfo,
    attachment_detail,
    attachment_summary,
    chat_detail,
    message_view,
)
from minichat.observability import measured
from minichat.storage import attachments as attachment_store
from minichat.storage import chats as chat_store
from minichat.storage import messages as message_store
from minichat.storage.messages import FoundMessages, Window

NEWEST_FIRST = "updated_at desc"
LAST_ADDED_FIRST = "created_at desc"
LONGEST_TURN = timedelta(hours=1)
"""An assistant message's id dates from its turn's start, its `created_at` from the end: 15 minutes at most."""

_ORDERED = Field("instant", frozenset({"eq", "ne", "gt", "ge", "lt", "le"}))
_NAMED = Field("id", frozenset({"eq", "ne", "in"}))
_WORD = frozenset({"eq", "ne", "in"})
MESSAGE_FIELDS = {"created_at": _ORDERED, "role": Field("text", _WORD), "id": _NAMED}
"""Fields that messages can be filtered by."""
CHAT_FIELDS = {"updated_at": _ORDERED, "title": Field("text", _WORD | odata.FUNCTIONS), "id": _NAMED}
"""Fields that chats can be filtered by; a chat without a title counts as having an empty one."""

THUMBNAILS_MAX_BYTES = 1_000_000
"""Per page: a response from Lambda has at most 6 MB. Only `GET …/attachments/ID` shows thumbnails beyond it."""

PAGE_MAX_BYTES = 6_200_000
"""For the messages of one page, as sent: Lambda's response, with headers and the page's cursors, has at most
6,291,556 bytes. Any one message is smaller (`TOLD_MAX_BYTES`, 64 attachments, and their thumbnails)."""

_MESSAGE_MEMBERS = frozenset(MessageView.model_fields)

LOOKED_AT = 1000
"""Chats, or attachments, that one list request reads at most; the cursor continues a filter that few pass."""

PICTURES_AT_ONCE = 25
"""Attachments whose thumbnails are read at once: a page may not have room for all of them."""


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a list request; None for what it leaves out."""

    limit: int
    cursor: str | None
    select: str | None = None
    orderby: str | None = None
    filter_: str | None = None

    @classmethod
    def of(cls, request: Request, limit: int, cursor: str | None, **options: str | None) -> "Query":
        """The query of a request whose `$` options are all understood.

        Raises InvalidRequest naming those that are not.
        """
        understood = frozenset(f"${name.rstrip('_')}" for name in options)
        odata.refuse_unknown_options(request.query_params.keys(), understood)
        return cls(limit, cursor, **options)


@dataclass(frozen=True, slots=True)
class _List:
    """The order, filter and scope that the cursors of one list are bound to."""

    codec: CursorCodec
    scope: str
    order: str
    filter_: str = ""

    def info(self, limit: int, page: CutPage[Any]) -> PageInfo:
        """The cursors of the neighbouring pages."""
        return PageInfo(
            limit=limit,
            next_cursor=self._encoded(page.next_position, backward=False),
            prev_cursor=self._encoded(page.prev_position, backward=True),
        )

    def _encoded(self, position: str | None, *, backward: bool) -> str | None:
        if position is None:
            return None
        return self.codec.encode(Cursor(position, backward, self.order, self.filter_), self.scope)


def chats(call: Call, codec: CursorCodec, query: Query) -> Page[ChatDetail]:
    """The caller's chats that the filter wants, the most recently active first.

    A page may be short, or empty, and have a next one: a request reads at most `LOOKED_AT` chats.
    Raises InvalidRequest (an option that is not understood), InvalidCursor.
    """
    wanted = odata.parse_filter(query.filter_, CHAT_FIELDS)
    scope = f"{_owner(call.caller)}/chats"
    cursor = None
    if query.cursor is not None:
        filter_ = None if query.filter_ is None else wanted.canonical()
        cursor = fits(codec.decode(query.cursor, scope), order=NEWEST_FIRST, filter_=filter_)
        wanted = odata.parse_filter(cursor.filter, CHAT_FIELDS)
    with measured("read"):
        found, left_at = _looked_through(call, wanted, cursor, query.limit + 1)
    page = cut(found, query.limit, cursor, lambda entry: entry[0])
    if left_at is not None and len(found) <= query.limit:
        backward = cursor is not None and cursor.backward
        page = replace(page, prev_position=left_at) if backward else replace(page, next_position=left_at)
    return Page(
        items=[chat_detail(chat) for _, chat in page.rows],
        page_info=_List(codec, scope, NEWEST_FIRST, wanted.canonical()).info(query.limit, page),
    )


def _looked_through(
    call: Call, wanted: Filter, cursor: Cursor | None, limit: int
) -> tuple[list[tuple[str, Chat]], str | None]:
    """Up to `limit` matching chats, each with its position, and where the search stopped short of the end."""
    descending = not (cursor and cursor.backward)
    found: list[tuple[str, Chat]] = []
    position = cursor.position if cursor else None
    at_once = limit if wanted == Filter() else max(limit, LOOKED_AT // 10)
    for _ in range(LOOKED_AT // at_once or 1):
        entries = chat_store.listed(call.caller, start=position, descending=descending, limit=at_once)
        # The index lags: it may still name a deleted chat.
        there = [(where, chat) for where, chat in entries if chat is not None and chat.deleted_at is None]
        found += [(where, chat) for where, chat in there if wanted.matches(_members(chat))]
        if len(found) >= limit or len(entries) < at_once:
            return found[:limit], None
        position = entries[-1][0]
    return found, position


def _members(chat: Chat) -> dict[str, Value]:
    return {"title": chat.title or "", "updated_at": chat.updated_at, "id": UUID(chat.chat_id)}


def attachments(call: Call, codec: CursorCodec, chat_id: ChatId, query: Query) -> Page[AttachmentDetail]:
    """The attachments of a chat that are not deleted, the last added first, each with its thumbnail.

    A page may have fewer than `limit`, or none, and a next one: thumbnails take up room, and a request reads at most
    `LOOKED_AT` attachments, deleted ones included. Raises InvalidCursor, ChatNotFound.
    """
    scope = f"{_owner(call.caller)}/chats/{chat_id}/attachments"
    cursor = None
    if query.cursor is not None:
        cursor = fits(codec.decode(query.cursor, scope), order=LAST_ADDED_FIRST, filter_=None)
    backward = cursor is not None and cursor.backward
    position = "" if cursor is None else cursor.position
    window = Window(after=position) if backward else Window(before=position, descending=True)
    with measured("read"):
        chat, found = attachment_store.page(
            call.caller.tenant_id, chat_id, window, limit=query.limit + 1, looked_at=LOOKED_AT
        )
    visible(chat, call.caller)
    with measured("attachments"):
        shown = _that_fit_with_pictures(found.there[: query.limit])
    page = cut([*shown, *found.there[len(shown) :]], max(len(shown), 1), cursor, lambda one: one.attachment_id)
    if found.left_at is not None and len(found.there) == len(shown):
        there = found.left_at
        page = replace(page, prev_position=there) if backward else replace(page, next_position=there)
    info = _List(codec, scope, LAST_ADDED_FIRST).info(query.limit, page)
    return Page(items=[attachment_detail(one) for one in page.rows], page_info=info)


def _that_fit_with_pictures(files: Sequence[Attachment]) -> list[Attachment]:
    """The first of these attachments, with their thumbnails, that fit in one response; at least one."""
    shown: list[Attachment] = []
    left = PAGE_MAX_BYTES
    for start in range(0, len(files), PICTURES_AT_ONCE):
        for one in attachment_store.pictured(files[start : start + PICTURES_AT_ONCE]):
            left -= told_bytes(attachment_detail(one).model_dump(mode="json")) + len(", ")
            if shown and left < 0:
                return shown
            shown.append(one)
    return shown


def messages(call: Call, codec: CursorCodec, chat_id: ChatId, query: Query) -> dict[str, Any]:
    """The visible messages of a chat, as JSON: whole, or the members that `$select` names.

    Raises InvalidRequest (an option that is not understood), InvalidCursor, ChatNotFound.
    """
    members = odata.parse_select(query.select, _MESSAGE_MEMBERS)
    order, wanted = odata.parse_orderby(query.orderby), odata.parse_filter(query.filter_, MESSAGE_FIELDS)
    scope = f"{_owner(call.caller)}/chats/{chat_id}/messages"
    cursor = None
    if query.cursor is not None:
        cursor = fits(
            codec.decode(query.cursor, scope),
            order=None if query.orderby is None else order.canonical(),
            filter_=None if query.filter_ is None else wanted.canonical(),
        )
        order, wanted = odata.parse_orderby(cursor.order), odata.parse_filter(cursor.filter, MESSAGE_FIELDS)
    with measured("read"):
        chat, found = message_store.page(
            call.caller.tenant_id,
            chat_id,
            _window(order, wanted, cursor),
            limit=query.limit + 1,
            keep=lambda m: wanted.matches({"created_at": m.created_at, "role": m.role, "id": UUID(m.message_id)}),
        )
    visible(chat, call.caller)
    candidates = found[: query.limit]
    if members is None or "content" in members:
        with measured("read"):
            # Texts that cannot be on the page are not read.
            candidates = message_store.whole(call.caller.tenant_id, chat_id, candidates[: _worth_reading(candidates)])
    wants_attachments = members is None or "attachments" in members
    sent_with = _summaries(call, chat_id, [one.message for one in candidates]) if wants_attachments else {}
    shown = [_shown(one.message, members, sent_with) for one in candidates]
    fitting = _that_fit(shown)
    page = cut(found, fitting, cursor, lambda one: one.message.message_id)
    info = _List(codec, scope, order.canonical(), wanted.canonical()).info(query.limit, page)
    items = shown[:fitting]
    if cursor is not None and cursor.backward:
        items.reverse()
    return {"items": items, "page_info": info.model_dump()}


def _summaries(call: Call, chat_id: ChatId, messages: Sequence[Message]) -> dict[str, AttachmentSummary]:
    """The attachments of a page's messages, by id; read together, and only when there are any."""
    wanted = dict.fromkeys(one for message in messages for one in message.attachment_ids)
    if not wanted:
        return {}
    with measured("attachments"):
        found = attachment_store.shown(call.caller.tenant_id, chat_id, wanted)
    left, summaries = THUMBNAILS_MAX_BYTES, dict[str, AttachmentSummary]()
    for attachment in found:
        if attachment.deleted_at is None:
            left -= 0 if attachment.thumbnail is None else len(attachment.thumbnail.data)
            summaries[attachment.attachment_id] = attachment_summary(attachment, pictured=left >= 0)
    return summaries


def _worth_reading(found: Sequence[FoundMessages]) -> int:
    """How many of these can be on one page, by the size of their texts alone; at least one."""
    sizes = itertools.accumulate(one.size for one in found)
    return 1 + sum(size <= PAGE_MAX_BYTES for size in sizes)


def _that_fit(shown: Sequence[dict[str, Any]]) -> int:
    """How many of these fit in one answer; at least one."""
    sizes = itertools.accumulate(told_bytes(one) + len(", ") for one in shown)
    return max(sum(size <= PAGE_MAX_BYTES for size in sizes), 1)


def _window(order: Order, wanted: Filter, cursor: Cursor | None) -> Window:
    """Where in the conversation to read: after or before the cursor, and only where the filter can match."""
    backward = cursor is not None and cursor.backward
    descending = order.descending != backward
    after = _id_at(wanted.not_before, -LONGEST_TURN) if wanted.not_before else ""
    before = _id_at(wanted.not_after, timedelta(milliseconds=1)) if wanted.not_after else ""
    if cursor is not None and descending:
        before = min(before or cursor.position, cursor.position)
    elif cursor is not None:
        after = max(after, cursor.position)
    return Window(MessageId(after), MessageId(before), descending)


def _id_at(instant: datetime, margin: timedelta) -> str:
    """The smallest id of that instant, moved by the margin; ids begin in 1970."""
    try:
        return str(uuid7_floor(max(instant + margin, from_micros(0))))
    except OverflowError:
        return str(uuid7_floor(instant))


def _shown(
    message: Message, members: frozenset[str] | None, sent_with: Mapping[str, AttachmentSummary]
) -> dict[str, Any]:
    shown = message_view(message, sent_with).model_dump(mode="json")
    return shown if members is None else {name: value for name, value in shown.items() if name in members}


def _owner(caller: Caller) -> str:
    return f"{in_key(caller.tenant_id)}/{in_key(caller.user_id)}"
