"""Requests that a client library repeats as they were when their stream is cut, with `Last-Event-ID` (contract 3).

They ask for the rest of that stream, and not for another turn: each function here finds the turn that is meant.
"""

from minichat.domain.chat import visible
from minichat.domain.errors import FieldError, InvalidRequest, RequestIdConflict, RequestIdReused
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.message import fingerprint
from minichat.domain.turn import Turn
from minichat.services.new_turn import SendMessage
from minichat.services.orphans import read_and_repair
from minichat.settings import Settings
from minichat.storage import chats


def by_request_id(call: Call, command: SendMessage, settings: Settings) -> Turn | None:
    """The turn of a send that names it; None when there is none, so that the send is new.

    Raises ChatNotFound, RequestIdConflict (the turn was deleted), RequestIdReused.
    """
    _, turn = read_and_repair(call, command.chat_id, command.request_id, settings)
    if turn is None:
        return None
    if turn.deleted_at is not None:
        raise RequestIdConflict(turn.state.public)
    if not _has(turn, command):
        raise RequestIdReused
    return turn


def by_message(call: Call, command: SendMessage, settings: Settings) -> Turn:
    """The turn of a send that names none: the chat's latest one, if it has the same message.

    Raises ChatNotFound, and InvalidRequest when it has another: a new turn would be paid for, and nobody asked for it.
    """
    chat = visible(chats.read(call.caller.tenant_id, command.chat_id), call.caller)
    if chat.latest_request_id is not None:
        _, turn = read_and_repair(call, command.chat_id, chat.latest_request_id, settings)
        if turn is not None and turn.deleted_at is None and _has(turn, command):
            return turn
    problem = "The latest turn of the chat has another message; `request_id` says which one is meant."
    raise InvalidRequest(FieldError("Last-Event-ID", problem, "unknown"))


def by_target(call: Call, chat_id: ChatId, target: RequestId, content: str | None, settings: Settings) -> Turn | None:
    """The turn that took the place of `target`: with the same message (a retry), or with this content (an edit).

    None when there is none, or it is gone: the mutation is made, or refused, as any other. Raises ChatNotFound.
    """
    _, old = read_and_repair(call, chat_id, target, settings)
    if old is None or old.replaced_by_request_id is None:
        return None
    _, new = read_and_repair(call, chat_id, old.replaced_by_request_id, settings)
    if new is None or new.deleted_at is not None:
        return None
    wanted = old.fingerprint if content is None else fingerprint(content, new.attachment_ids)
    return new if new.fingerprint == wanted else None


def _has(turn: Turn, command: SendMessage) -> bool:
    return turn.fingerprint == fingerprint(command.content, command.attachment_ids)
