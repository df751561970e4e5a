"""Send a message: everything that can be refused is refused here, before anything is written or streamed."""

from dataclasses import replace

from minichat.domain.admission import Wish
from minichat.domain.authorization import check
from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import (
    ContextBudgetExceeded,
    FieldError,
    GenerationInProgress,
    InvalidRequest,
    NotLatestTurn,
    RequestIdConflict,
)
from minichat.domain.identity import Call, Resource
from minichat.domain.message import checked_content
from minichat.domain.rates import UNLIMITED
from minichat.observability import measured
from minichat.services import chats, message_attachments
from minichat.services.chats import NewChat
from minichat.services.new_turn import (
    Replay,
    RunningTurn,
    SendMessage,
    begin,
    preflight,
    started,
    twice_at_most,
    wanted,
    with_own,
)
from minichat.services.orphans import end_if_dead, never_began
from minichat.services.policy_in_force import Rules
from minichat.services.repeated_turns import go_on_with_send, replayed
from minichat.services.turn_metrics import counted_turn
from minichat.storage import chats as stored_chats
from minichat.storage import starting_point, turns


def send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | Replay:
    """A new running turn, or the replay of the completed one with this request id. If the same message began a turn in
    a process that died before calling the provider: that turn.

    Raises, in this order (contract 2): InvalidRequest, InputTooLong, ChatNotFound, RequestIdConflict or
    RequestIdReused, GenerationInProgress, NotLatestTurn (where it `follows` another), InvalidAttachment, RateLimited,
    and what `admit` refuses. Nothing is written then.
    """
    with counted_turn("send"):
        checked_content(command.content)
        if len(set(command.attachment_ids)) < len(command.attachment_ids):
            raise InvalidRequest(FieldError("attachment_ids", "An attachment is named twice.", "duplicate"))
        return twice_at_most(lambda: _send(call, command, rules))


def send_first(call: Call, command: SendMessage, wish: NewChat, rules: Rules) -> RunningTurn | Replay:
    """As `send`, of the first message of a chat that is made for it once it is admitted: a refusal leaves no chat.

    Where the chat is there already, a send like any other: ids that are derived from a client's key come again.
    Raises what `send` and `chats.create` raise; Forbidden when the caller may make no chats.
    """
    check(call.caller, "chat:create", Resource(call.caller.tenant_id, call.caller.user_id))
    with counted_turn("send"):
        checked_content(command.content)
        return twice_at_most(lambda: _send(call, command, rules, wish))


def _send(call: Call, command: SendMessage, rules: Rules, first: NewChat | None = None) -> RunningTurn | Replay:
    look = replace(wanted(call, command.chat_id, command.request_id, rules), attachment_ids=command.attachment_ids)
    with measured("read"):
        opened, own = with_own(call, starting_point.look(call, look), rules)
    if opened.chat is None and first is not None:
        return _begun(call, chats.drafted(call, command.chat_id, first, own), opened, own, command)
    chat = visible(opened.chat, call.caller)
    is_dead = opened.turn is not None and never_began(call, opened.turn, rules.settings)
    if is_dead and (again := go_on_with_send(call, command, rules)) is not None:
        return again
    if end_if_dead(call, chat, rules.settings) or is_dead:
        with measured("read"):
            opened, own = with_own(call, starting_point.look(call, look), rules)
        chat = visible(opened.chat, call.caller)
    if opened.turn is not None:
        return replayed(opened.turn, command)
    if chat.running_request_id is not None:
        raise GenerationInProgress(chat.running_request_id)
    if command.follows not in {None, chat.latest_request_id}:
        raise NotLatestTurn
    return _begun(call, chat, opened, own, command)


def _begun(
    call: Call, chat: Chat, opened: starting_point.Opened, own: Rules, command: SendMessage
) -> RunningTurn | Replay:
    settings = own.settings
    sent_with = message_attachments.named(call.caller, command.attachment_ids, opened.attachments, own)
    snapshot = command.snapshot(opened.recent.messages, opened.summary, settings.context.recent_messages_limit)
    images = message_attachments.images(sent_with)
    wish = Wish(chat.model, command.content, snapshot, command.web_search, images, opened.documents, command.aside)
    admission = preflight(call, wish, opened.quota_use, own)
    if command.aside.whole and admission.assembly.truncated:
        raise ContextBudgetExceeded
    new = begin(call, chat, admission, command, opened.quota_use)
    new = replace(new, referred_to=sent_with)
    if opened.chat is None:
        # Whoever keeps no chat makes one for each message: those are limited as sends.
        pace = (UNLIMITED if chat.is_temporary else own.rates).chats
        stored_chats.create(chat, pace, retention_days=settings.quota.retention_days)
    try:
        turns.start(call, chat, new, retention_days=settings.quota.retention_days)
    except (RequestIdConflict, GenerationInProgress):
        # The same send may have come twice, and the other one was first: its outcome is the answer to both. A refused
        # transaction need not name every failed condition, so the turn itself is read.
        _, known = turns.read(call.caller.tenant_id, command.chat_id, command.request_id)
        if known is None:
            raise
        return replayed(known, command)
    return started(chat, new, admission, wish, own)
