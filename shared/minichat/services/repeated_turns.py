"""Repeated requests: each function here finds the turn that one means, or goes on with it.

Client libraries repeat a request with `Last-Event-ID` when their stream is cut (contract 3): they ask for the rest, not
for another turn. If a turn's process died before calling the provider, the repeated request goes on with it.
"""

from dataclasses import replace

from minichat.domain.admission import Wish, readmit
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import FieldError, InvalidRequest, RequestIdConflict, RequestIdReused
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.message import fingerprint
from minichat.domain.turn import Turn, TurnState
from minichat.observability import measured
from minichat.services import message_attachments
from minichat.services.new_turn import Replay, RunningTurn, SendMessage, running, wanted, wants_title, with_own
from minichat.services.orphans import never_began, read_and_repair
from minichat.services.policy_in_force import Rules
from minichat.settings import Settings
from minichat.storage import chats, leases, messages, parts, starting_point, turns


def by_request_id(call: Call, command: SendMessage, settings: Settings) -> Turn | None:
    """The turn that a send names by its request id; None when the send is new.

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


def replayed(known: Turn, command: SendMessage) -> Replay:
    """The replay of a known turn's answer for its repeated send; nothing is written.

    Raises RequestIdConflict (the turn runs, failed, or was deleted), RequestIdReused (with another message).
    """
    if known.deleted_at is not None:
        raise RequestIdConflict(known.state.public)
    if known.state is not TurnState.COMPLETED:
        raise RequestIdConflict(known.state.public, known.request_id)
    if not _has(known, command):
        raise RequestIdReused
    return Replay(known)


def by_message(call: Call, command: SendMessage, settings: Settings) -> Turn:
    """The turn of a send without a request id: the chat's latest one, if it has the same message.

    Raises ChatNotFound, and InvalidRequest when the messages differ: nobody asked for a new turn, which would cost.
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

    None when there is none, or it is gone: the mutation is treated like any other. Raises ChatNotFound.
    """
    _, old = read_and_repair(call, chat_id, target, settings)
    if old is None or old.replaced_by_request_id is None:
        return None
    _, new = read_and_repair(call, chat_id, old.replaced_by_request_id, settings)
    if new is None or new.deleted_at is not None:
        return None
    wanted = old.fingerprint if content is None else fingerprint(content, new.attachment_ids)
    return new if new.fingerprint == wanted else None


def go_on_with_send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | None:
    """The running turn that the same command began in a process that died before calling the provider; this process
    makes its answer now. None when there is no such turn.

    Raises ChatNotFound.
    """
    with measured("read"):
        # Its own message is the newest.
        opened = starting_point.look(call, wanted(call, command.chat_id, command.request_id, rules, own=1))
    opened, rules = with_own(call, opened, rules)
    chat, turn = visible(opened.chat, call.caller), opened.turn
    if turn is None or turn.fingerprint != command.fingerprint:
        return None
    # An unnoted call may already have streamed something: only its own process can go on with that.
    if not never_began(call, turn, rules.settings) or any(parts.after(turn, 0)):
        return None
    history = [message for message in opened.recent.messages if message.request_id != turn.request_id]
    snapshot = command.snapshot(history, opened.summary, rules.settings.context.recent_messages_limit)
    images = message_attachments.images(message_attachments.kept(call.caller, turn, rules))
    wish = Wish(chat.model, command.content, snapshot, turn.web_search_enabled, images, opened.documents, command.aside)
    admission = readmit(rules.policy, wish, turn.reserve, rules.limits, call.now)
    mine = None if admission is None else leases.take_over(call, turn)
    if admission is None or mine is None:
        return None
    gone_on_with = running(mine, opened.quota_use.limits, admission, wish, rules)
    return replace(gone_on_with, wants_title=wants_title(chat, rules))


def go_on_with_mutation(
    call: Call, chat_id: ChatId, target: RequestId, content: str | None, rules: Rules
) -> RunningTurn | None:
    """As `go_on_with_send`, with the turn that took the place of `target`: with this content, or with its own."""
    _, old = turns.read(call.caller.tenant_id, chat_id, target)
    if old is None or old.replaced_by_request_id is None:
        return None
    _, new = turns.read(call.caller.tenant_id, chat_id, old.replaced_by_request_id)
    if new is None or not never_began(call, new, rules.settings):
        return None
    if content is None:
        message = messages.read(old.tenant_id, chat_id, old.user_message_id)
        assert message is not None, "a turn is stored with its message"
        content = message.content
    return go_on_with_send(call, SendMessage(chat_id, content, new.request_id, new.attachment_ids), rules)


def _has(turn: Turn, command: SendMessage) -> bool:
    return turn.fingerprint == command.fingerprint
