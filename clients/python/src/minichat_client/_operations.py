"""What can be done with an API, each operation once: AsyncMiniChat has these as they are, MiniChat runs them."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar
from uuid import uuid4

from minichat_client._decoding import decoded
from minichat_client._exchange import KEY, Exchange, Token, path_of, with_body
from minichat_client._following import Following
from minichat_client._wire import Request, Upload, Wire
from minichat_client.answers import AsyncAnswer
from minichat_client.errors import AttachmentFailed, MiniChatError
from minichat_client.pages import AsyncPages
from minichat_client.types import (
    AttachmentDetail,
    AttachmentUpload,
    ChatDetail,
    Health,
    MessageView,
    ModelList,
    ModelView,
    QuotaStatus,
    ReactionView,
    TurnStatus,
    UsageReport,
)

T = TypeVar("T")

AChat = ChatDetail | str
"""A chat, or its id."""
File = str | os.PathLike[str] | bytes | BinaryIO
"""A path, or what is in a file."""
WAIT_SECONDS = 15
"""For a file, in one request."""
ASK_AGAIN_SECONDS = 0.3


class Operations:
    """Everything that a caller can do. All of it raises Refused and Unreachable."""

    def __init__(
        self, wire: Wire, token: Token, attempts: int, on_reconnect: Callable[[MiniChatError], None] | None
    ) -> None:
        self._exchange = Exchange(wire, token)
        self._attempts = attempts
        self._on_reconnect = on_reconnect

    # Chats

    async def create_chat(
        self, *, title: str | None = None, model: str | None = None, temporary: bool = False, key: str | None = None
    ) -> ChatDetail:
        """A new chat. With the same `key` it is the same chat for 24 hours; the default is a new one per call."""
        body = {"title": title, "model": model, "is_temporary": temporary}
        request = with_body("POST", "chats", body={name: value for name, value in body.items() if value})
        return decoded(ChatDetail, await self._exchange.json(request.with_header(KEY, key or str(uuid4()))))

    def chats(self, *, filter: str | None = None, page_size: int = 100) -> AsyncPages[ChatDetail]:
        """The caller's chats, the most recently active first, without temporary ones; `filter` is the contract's."""
        return self._listed(ChatDetail, page_size, {"$filter": filter}, "chats")

    async def chat(self, chat: AChat) -> ChatDetail:
        """A chat as it is now."""
        return decoded(ChatDetail, await self.call("GET", "chats", _id(chat)))

    async def rename_chat(self, chat: AChat, title: str) -> ChatDetail:
        """Gives a chat another title."""
        request = with_body("PATCH", "chats", _id(chat), body={"title": title})
        return decoded(ChatDetail, await self._exchange.json(request, repeatable=True))

    async def delete_chat(self, chat: AChat) -> None:
        """Deletes a chat and everything in it; a running turn is cancelled."""
        await self.call("DELETE", "chats", _id(chat))

    # Messages and turns

    def messages(
        self,
        chat: AChat,
        *,
        newest_first: bool = False,
        filter: str | None = None,
        page_size: int = 100,
    ) -> AsyncPages[MessageView]:
        """What was said in a chat, in order; `filter` is the contract's."""
        params = {"$filter": filter, "$orderby": "created_at desc" if newest_first else None}
        return self._listed(MessageView, page_size, params, "chats", _id(chat), "messages")

    async def react(
        self, chat: AChat, message: MessageView | str, reaction: Literal["like", "dislike"] | None
    ) -> ReactionView | None:
        """Says what the caller thinks of an answer; None takes that back."""
        place = ("chats", _id(chat), "messages", _id(message), "reaction")
        if reaction is None:
            await self.call("DELETE", *place)
            return None
        return decoded(ReactionView, await self.call("PUT", *place, body={"reaction": reaction}))

    def send(
        self,
        chat: AChat,
        content: str,
        *,
        attachments: Iterable[AttachmentDetail | str] = (),
        web_search: bool = False,
        request_id: str | None = None,
    ) -> AsyncAnswer:
        """Sends a message and gives its answer, event by event.

        `request_id` is a UUID that makes the send happen once: who keeps it and sends the same again, after a crash
        too, is told the same turn. Without one it is made here, before the first try, and kept by the answer.
        """
        named = request_id or str(uuid4())
        body: dict[str, Any] = {"content": content, "request_id": named}
        if given := [_id(one) for one in attachments]:
            body["attachment_ids"] = given
        if web_search:
            body["web_search"] = {"enabled": True}
        following = self._following(chat, with_body("POST", "chats", _id(chat), "messages:stream", body=body))
        following.request_id, following.may_be_known = named, request_id is not None
        return self._answer(following)

    def retry(self, chat: AChat, request_id: str) -> AsyncAnswer:
        """Has the message of the latest turn answered again: a turn of its own, in the other's place."""
        path = path_of("chats", _id(chat), "turns", request_id, "retry")
        return self._answer(self._following(chat, Request("POST", path)))

    def edit(self, chat: AChat, request_id: str, content: str) -> AsyncAnswer:
        """Has another message answered instead of that of the latest turn."""
        body = {"content": content}
        return self._answer(
            self._following(chat, with_body("PATCH", "chats", _id(chat), "turns", request_id, body=body))
        )

    def resume(self, chat: AChat, request_id: str, *, after: int = 0) -> AsyncAnswer:
        """Joins a turn's stream after the event of that number, wherever it was begun, and follows it to its end."""
        following = self._following(chat, None)
        following.request_id, following.number = request_id, after
        return self._answer(following)

    async def turn(self, chat: AChat, request_id: str) -> TurnStatus:
        """Where a turn stands."""
        return decoded(TurnStatus, await self.call("GET", "chats", _id(chat), "turns", request_id))

    async def delete_turn(self, chat: AChat, request_id: str) -> None:
        """Deletes the latest turn: the message and its answer."""
        await self.call("DELETE", "chats", _id(chat), "turns", request_id)

    async def cancel(self, chat: AChat, request_id: str) -> TurnStatus:
        """Has a running turn end within two seconds; one that has ended stays as it is."""
        path = path_of("chats", _id(chat), "turns", request_id, "cancel")
        return decoded(TurnStatus, await self._exchange.json(Request("POST", path), repeatable=True))

    # Attachments

    async def attach(
        self, chat: AChat, file: File, *, filename: str | None = None, wait: bool = True
    ) -> AttachmentDetail:
        """Gives a file to a chat; its type follows from the name. Waits until it can be sent along.

        Raises AttachmentFailed when it could not be taken in, OSError when it cannot be read.
        """
        name, content = _read(file, filename)
        # Of no certain type: the name decides.
        announced = {"filename": name, "content_type": "application/octet-stream", "size_bytes": len(content)}
        request = with_body("POST", "chats", _id(chat), "attachments", "uploads", body=announced)
        said = await self._exchange.json(request.with_header(KEY, str(uuid4())))
        form = decoded(AttachmentUpload, said).upload
        await self._exchange.post_form(Request("POST", form.url, upload=Upload(form.fields, name, content)))
        found = decoded(AttachmentDetail, said)
        while wait and found.status not in {"ready", "failed"}:
            found = await self.attachment(chat, found.id, wait=WAIT_SECONDS)
            if found.status not in {"ready", "failed"}:
                await self._exchange.wire.pause(ASK_AGAIN_SECONDS)
        if found.status == "failed":
            raise AttachmentFailed(found.filename, found.error_code)
        return found

    async def attachment(self, chat: AChat, attachment: AttachmentDetail | str, *, wait: int = 0) -> AttachmentDetail:
        """A file as it stands, or as it stands after at most `wait` seconds (15 at most) if it is not ready yet."""
        request = Request("GET", path_of("chats", _id(chat), "attachments", _id(attachment)))
        if wait:
            request = request.with_header("prefer", f"wait={wait}")
        return decoded(AttachmentDetail, await self._exchange.json(request))

    def attachments(self, chat: AChat, *, page_size: int = 100) -> AsyncPages[AttachmentDetail]:
        """The files of a chat, the last added first."""
        return self._listed(AttachmentDetail, page_size, {}, "chats", _id(chat), "attachments")

    async def delete_attachment(self, chat: AChat, attachment: AttachmentDetail | str) -> None:
        """Deletes a file that no message has."""
        await self.call("DELETE", "chats", _id(chat), "attachments", _id(attachment))

    # The rest

    async def models(self) -> list[ModelView]:
        """The models that a new chat may have, the best first."""
        return decoded(ModelList, await self.call("GET", "models")).items

    async def model(self, model_id: str) -> ModelView:
        """One of them."""
        return decoded(ModelView, await self.call("GET", "models", model_id))

    async def quota(self) -> QuotaStatus:
        """What is used and left."""
        return decoded(QuotaStatus, await self.call("GET", "quota", "status"))

    async def usage(self, first: date, last: date) -> UsageReport:
        """What the settled turns of these days (UTC) have cost; at most 93 days."""
        span = {"from": first.isoformat(), "to": last.isoformat()}
        return decoded(UsageReport, await self.call("GET", "usage", **span))

    async def health(self) -> Health:
        """That the service answers, and its version; needs no token."""
        return decoded(Health, await self.call("GET", "health"))

    async def call(self, /, method: str, *path: str, body: Any = None, **params: Any) -> Any:
        """The JSON of any other operation below the base URL, such as the operator's; None where there is none."""
        request = Request(method, path_of(*path)) if body is None else with_body(method, *path, body=body)
        return await self._exchange.json(replace(request, params=params))

    # Of its own

    def _following(self, chat: AChat, question: Request | None) -> Following:
        following = Following(self._exchange, _id(chat), question, attempts=self._attempts)
        following.on_lost = self._on_reconnect
        return following

    def _answer(self, following: Following) -> AsyncAnswer:
        return AsyncAnswer(following, self.cancel)

    def _listed(self, kind: type[T], page_size: int, params: dict[str, Any], *path: str) -> AsyncPages[T]:
        given = {name: value for name, value in params.items() if value is not None}

        async def fetch(cursor: str | None) -> tuple[list[T], str | None]:
            place = given if cursor is None else {**given, "cursor": cursor}
            said = await self.call("GET", *path, limit=page_size, **place)
            return [decoded(kind, one) for one in said["items"]], said["page_info"]["next_cursor"]

        return AsyncPages(fetch)


def _id(one: ChatDetail | MessageView | AttachmentDetail | str) -> str:
    return one if isinstance(one, str) else one.id


def _read(file: File, filename: str | None) -> tuple[str, bytes]:
    """A name and the content. Raises OSError, ValueError for content without a name."""
    if isinstance(file, str | os.PathLike):
        path = Path(file).expanduser()
        return filename or path.name, path.read_bytes()
    name = filename or Path(str(getattr(file, "name", ""))).name
    if not name:
        raise ValueError("filename says of what type the content is.")
    return name, file if isinstance(file, bytes) else file.read()
