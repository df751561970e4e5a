"""Send a message: everything that can be refused is refused here, before anything is written or streamed."""

from dataclasses import replace

from minichat.domain.admission import Wish
from minichat.domain.chat import visible
from minichat.domain.context import Snapshot
from minichat.domain.errors import (
    FieldError,
    GenerationInProgress,
    InvalidRequest,
    RequestIdConflict,
)
from minichat.domain.identity import Call
from minichat.domain.message import checked_content
from minichat.observability import measured
from minichat.services import message_attachments
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
from minichat.storage import starting_point, turns


def send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | Replay:
    """A new running turn, or the replay of the completed one with this request id. If the same message began a turn in
    a process that died before calling the provider: that turn.

    Raises, in this order (contract 2): InvalidRequest, InputTooLong, ChatNotFound, RequestIdConflict or
    RequestIdReused, GenerationInProgress, InvalidAttachment, RateLimited, and what `admit` refuses. Nothing is
    written then.
    """
    with counted_turn("send"):
        checked_content(command.content)
        if len(set(command.attachment_ids)) < len(command.attachment_ids):
            raise InvalidRequest(FieldError("attachment_ids", "An attachment is named twice.", "duplicate"))
        return twice_at_most(lambda: _send(call, command, rules))


def _send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | Replay:
    look = replace(wanted(call, command.chat_id, command.request_id, rules), attachment_ids=command.attachment_ids)
    with measured("read"):
        opened, own = with_own(call, starting_point.look(call, look), rules)
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
    sent_with = message_attachments.named(call.caller, command.attachment_ids, opened.attachments, own)
    snapshot = Snapshot(opened.recent.messages, opened.summary, rules.settings.context.recent_messages_limit)
    images = message_attachments.images(sent_with)
    wish = Wish(chat.model, command.content, snapshot, command.web_search, images, opened.documents)
    admission = preflight(call, wish, opened.quota_use, own)
    new = begin(call, chat, admission, command, opened.quota_use)
    new = replace(new, referred_to=sent_with)
    try:
        turns.start(call, chat, new, retention_days=rules.settings.quota.retention_days)
    except (RequestIdConflict, GenerationInProgress):
        # The same send may have come twice, and the other one was first: its outcome is the answer to both. A refused
        # transaction need not name every failed condition, so the turn itself is read.
        _, known = turns.read(call.caller.tenant_id, command.chat_id, command.request_id)
        if known is None:
            raise
        return replayed(known, command)
    return started(chat, new, admission, wish, own)
