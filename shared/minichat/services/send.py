"""Send a message: everything that can be refused is refused here, before anything is written or streamed."""

from dataclasses import replace

from minichat.domain.admission import Wish, readmit
from minichat.domain.chat import visible
from minichat.domain.context import Snapshot
from minichat.domain.errors import (
    FieldError,
    GenerationInProgress,
    InvalidRequest,
    RequestIdConflict,
    RequestIdReused,
)
from minichat.domain.identity import Call
from minichat.domain.message import checked_content, fingerprint
from minichat.domain.turn import Turn, TurnState
from minichat.observability import measured
from minichat.services import message_attachments
from minichat.services.new_turn import (
    Replay,
    RunningTurn,
    SendMessage,
    begin,
    preflight,
    running,
    started,
    twice_at_most,
    wanted,
    wants_title,
)
from minichat.services.orphans import end_if_dead, never_began
from minichat.services.rules import Rules
from minichat.services.turn_metrics import counted_turn
from minichat.storage import opening, parts, turns


def send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | Replay:
    """A new running turn, or the replay of the completed one that has this request id. A turn that the same message
    began in a process that died before it called the provider is gone on with.

    Raises, in this order (contract 2): InvalidRequest, InputTooLong, ChatNotFound, RequestIdConflict or
    RequestIdReused, GenerationInProgress, InvalidAttachment, and what `admit` refuses. Nothing is written then.
    """
    with counted_turn("send"):
        checked_content(command.content)
        if len(set(command.attachment_ids)) < len(command.attachment_ids):
            raise InvalidRequest(FieldError("attachment_ids", "An attachment is named twice.", "duplicate"))
        return twice_at_most(lambda: _send(call, command, rules))


def _send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | Replay:
    look = replace(wanted(call, command.chat_id, command.request_id, rules), attachment_ids=command.attachment_ids)
    with measured("read"):
        opened = opening.look(call, look)
    chat = visible(opened.chat, call.caller)
    is_dead = opened.turn is not None and never_began(call, opened.turn, rules.settings)
    if is_dead and (again := gone_on(call, command, rules)) is not None:
        return again
    if end_if_dead(call, chat, rules.settings) or is_dead:
        with measured("read"):
            opened = opening.look(call, look)
        chat = visible(opened.chat, call.caller)
    if opened.turn is not None:
        return _replay(opened.turn, command)
    if chat.running_request_id is not None:
        raise GenerationInProgress(chat.running_request_id)
    sent_with = message_attachments.named(call.caller, command.attachment_ids, opened.attachments, rules)
    snapshot = Snapshot(opened.recent.messages, opened.summary, rules.settings.context.recent_messages_limit)
    images = message_attachments.images(sent_with)
    wish = Wish(chat.model, command.content, snapshot, command.web_search, images, opened.documents)
    admission = preflight(call, wish, opened.quota_use, rules)
    new = begin(call, chat, admission, command, opened.quota_use.limits)
    new = replace(new, referred_to=sent_with)
    try:
        turns.start(call, chat, new, retention_days=rules.settings.quota.retention_days)
    except (RequestIdConflict, GenerationInProgress):
        # The same send may have come twice, and the other one was first: what became of it comes before all else. A
        # refused transaction need not name every condition that failed, so the turn itself is asked.
        _, known = turns.read(call.caller.tenant_id, command.chat_id, command.request_id)
        if known is None:
            raise
        return _replay(known, command)
    return started(chat, new, admission, wish, rules)


def gone_on(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | None:
    """The running turn that the same command began in a process that died before it called the provider: this process
    makes its answer now. None when there is no such turn.

    Raises ChatNotFound.
    """
    with measured("read"):
        # Its own message is the newest.
        opened = opening.look(call, wanted(call, command.chat_id, command.request_id, rules, own=1))
    chat, turn = visible(opened.chat, call.caller), opened.turn
    if turn is None or turn.fingerprint != fingerprint(command.content, command.attachment_ids):
        return None
    # Of a call that could not be noted something may have been told: only its own process can go on with that.
    if not never_began(call, turn, rules.settings) or any(parts.after(turn, 0)):
        return None
    history = [message for message in opened.recent.messages if message.request_id != turn.request_id]
    snapshot = Snapshot(history, opened.summary, rules.settings.context.recent_messages_limit)
    images = message_attachments.images(message_attachments.kept(call.caller, turn, rules))
    wish = Wish(chat.model, command.content, snapshot, turn.web_search_enabled, images, opened.documents)
    admission = readmit(rules.policy, wish, turn.reserve, rules.limits, call.now)
    mine = None if admission is None else turns.take_over(call, turn)
    if admission is None or mine is None:
        return None
    gone_on_with = running(mine, opened.quota_use.limits, admission, wish, rules)
    return replace(gone_on_with, wants_title=wants_title(chat, rules))


def _replay(known: Turn, command: SendMessage) -> Replay:
    if known.deleted_at is not None:
        raise RequestIdConflict(known.state.public)
    if known.state is not TurnState.COMPLETED:
        raise RequestIdConflict(known.state.public, known.request_id)
    if known.fingerprint != fingerprint(command.content, command.attachment_ids):
        raise RequestIdReused
    return Replay(known)
