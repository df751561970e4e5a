"""Send a message: everything that can be refused is refused here, before anything is written or streamed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from minichat.domain import title
from minichat.domain.admission import Admission, Wish, admit, readmit
from minichat.domain.chat import Chat, next_instant, visible
from minichat.domain.citations import CitedFile
from minichat.domain.context import Snapshot, compression, messages_needed
from minichat.domain.errors import (
    ChatMoved,
    CreditsTaken,
    FieldError,
    GenerationInProgress,
    InvalidRequest,
    QuotaExceeded,
    RequestIdConflict,
    RequestIdReused,
)
from minichat.domain.identity import MICROSECOND, AttachmentId, Call, ChatId, MessageId, RequestId
from minichat.domain.message import Message, checked_content, fingerprint
from minichat.domain.policy import UserLimits
from minichat.domain.quota_use import PERIODS, QuotaUse
from minichat.domain.summary import Compression
from minichat.domain.turn import Turn, TurnState
from minichat.observability import count, measured
from minichat.services import message_attachments
from minichat.services.orphans import end_if_dead, never_began
from minichat.services.rules import Rules
from minichat.services.turn_metrics import counted_turn
from minichat.storage import messages, opening, parts, turns
from minichat.storage.items import together

T = TypeVar("T")

RECENT_MAX_BYTES = 4_000_000
"""Text of recent messages that is read at most: more than the largest window takes."""


@dataclass(frozen=True, slots=True)
class SendMessage:
    """A message to be answered."""

    chat_id: ChatId
    content: str
    request_id: RequestId
    attachment_ids: tuple[AttachmentId, ...] = ()
    web_search: bool = False


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """A turn that is durable, what its provider is to be asked, and what is to be summarized once it has completed, or
    to be given a title.

    `files` are those that the answer may cite, by the provider's id of each.
    """

    turn: Turn
    admission: Admission
    content: str
    limits: UserLimits
    compression: Compression | None = None
    wants_title: bool = False
    files: Mapping[str, CitedFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replay:
    """A turn that was completed before: its stored stream is the answer."""

    turn: Turn


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


def twice_at_most(admission: Callable[[], T]) -> T:
    """What an admission gives; once more when other turns of the user took its credits before its transaction did, or
    the chat got another summary.

    The second look finds what is left, so that a cheaper model can be taken; its refusal is final.
    """
    try:
        return admission()
    except (CreditsTaken, ChatMoved):
        return admission()


def _send(call: Call, command: SendMessage, rules: Rules) -> RunningTurn | Replay:
    opened, recent = _open(call, command, rules)
    if (again := _gone_on(call, command, rules, opened)) is not None:
        return again
    chat = visible(opened.chat, call.caller)
    seen = opened.turn
    if end_if_dead(call, chat, rules.settings) or (seen is not None and never_began(call, seen, rules.settings)):
        opened, recent = _open(call, command, rules)
        chat = visible(opened.chat, call.caller)
    known = opened.turn
    if known is None and chat.latest_request_id == command.request_id:
        # A batch of reads is not one moment: the turn began between the look at it and the look at the head.
        _, known = turns.read(call.caller.tenant_id, command.chat_id, command.request_id)
    if known is not None:
        return _replay(known, command)
    if chat.running_request_id is not None:
        raise GenerationInProgress(chat.running_request_id)
    sent_with = message_attachments.named(call.caller, command.attachment_ids, opened.attachments, rules)
    if not recent.is_of(chat):
        recent = recent_messages(call, command.chat_id, rules, extra=0)
    snapshot = Snapshot(recent.messages, opened.summary, rules.settings.context.recent_messages_limit)
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
    opened, _ = _open(call, command, rules)
    return _gone_on(call, command, rules, opened)


def _gone_on(call: Call, command: SendMessage, rules: Rules, opened: opening.Opened) -> RunningTurn | None:
    chat, turn = visible(opened.chat, call.caller), opened.turn
    if turn is None or turn.fingerprint != fingerprint(command.content, command.attachment_ids):
        return None
    # Of a call that could not be noted something may have been told: only its own process can go on with that.
    if not never_began(call, turn, rules.settings) or any(parts.after(turn, 0)):
        return None
    recent = recent_messages(call, chat.chat_id, rules, extra=1)
    history = [message for message in recent.messages if message.request_id != turn.request_id]
    snapshot = Snapshot(history, opened.summary, rules.settings.context.recent_messages_limit)
    images = message_attachments.images(message_attachments.kept(call.caller, turn, rules))
    wish = Wish(chat.model, command.content, snapshot, turn.web_search_enabled, images, opened.documents)
    admission = readmit(rules.policy, wish, turn.reserve, rules.limits, call.now)
    mine = None if admission is None else turns.take_over(call, turn)
    if admission is None or mine is None:
        return None
    running = _running(mine, admission, wish, opened.quota_use.limits, rules)
    return replace(running, wants_title=_wants_title(chat, rules))


def _open(call: Call, command: SendMessage, rules: Rules) -> tuple[opening.Opened, messages.Newest]:
    limits = rules.policy.limits_of(call.caller.user_id)
    with measured("read"):
        return together(
            lambda: opening.open_for_turn(call, command.chat_id, command.request_id, limits, command.attachment_ids),
            lambda: recent_messages(call, command.chat_id, rules, extra=0),
        )


def recent_messages(call: Call, chat_id: ChatId, rules: Rules, *, extra: int) -> messages.Newest:
    """The messages that a prompt may take along, and `extra` more."""
    settings = rules.settings
    limit = messages_needed(settings.context.recent_messages_limit, settings.thread_summary.verbatim_turns) + extra
    return messages.recent(call.caller.tenant_id, chat_id, limit, at_most_bytes=RECENT_MAX_BYTES)


def due(snapshot: Snapshot, admission: Admission, rules: Rules) -> Compression | None:
    """What is to be summarized once the admitted turn has completed."""
    settings = rules.settings.thread_summary
    if not settings.enabled:
        return None
    return compression(
        snapshot,
        admission.assembly,
        room=admission.model.context_window - admission.reserve.max_output_tokens,
        threshold_pct=settings.compression_threshold_pct,
        verbatim_turns=settings.verbatim_turns,
    )


def preflight(call: Call, wish: Wish, quota_use: QuotaUse, rules: Rules) -> Admission:
    """What the message is admitted with, if it is: raises as `admit`."""
    with measured("context"):
        try:
            admission = admit(rules.policy, wish, quota_use, rules.limits, call.now)
        except QuotaExceeded:
            count("quota_preflight_total", decision="reject", tier="none")
            raise
    count("quota_preflight_total", decision=admission.reserve.decision, tier=admission.model.tier)
    return admission


def begin(call: Call, chat: Chat, admission: Admission, command: SendMessage, limits: UserLimits) -> turns.Start:
    """The turn and the user message that an admitted command starts with."""
    # Where its messages are in the chat, which a clock that ran ahead may have put into the future: nothing else is.
    said_at = next_instant(chat, call.now)
    turn = Turn(
        tenant_id=chat.tenant_id,
        chat_id=chat.chat_id,
        request_id=command.request_id,
        turn_id=call.new_id(call.now),
        requester_type=call.caller.subject_type,
        requester_user_id=call.caller.user_id,
        state=TurnState.RUNNING,
        fingerprint=fingerprint(command.content, command.attachment_ids),
        user_message_id=_message_id(call, said_at),
        # Chosen before the message exists; it sorts right after the user's.
        assistant_message_id=_message_id(call, said_at + MICROSECOND),
        started_at=call.now,
        last_progress_at=call.now,
        reserve=admission.reserve,
        prev_request_id=chat.latest_request_id,
        web_search_enabled=command.web_search,
        attachment_ids=command.attachment_ids,
        image_ids=tuple(image.attachment_id for image in admission.images),
        summary_tokens=None if admission.assembly.summary is None else admission.assembly.summary.token_estimate,
    )
    message = Message(
        turn.user_message_id,
        turn.request_id,
        "user",
        command.content,
        said_at,
        attachment_ids=command.attachment_ids,
    )
    return turns.Start(turn, message, limits, admission.per_day)


def started(chat: Chat, new: turns.Start, admission: Admission, wish: Wish, rules: Rules) -> RunningTurn:
    """The turn that an admitted wish has become."""
    for period in PERIODS:
        count("quota_reserve_total", period=period)
    running = _running(new.turn, admission, wish, new.limits, rules)
    return replace(running, wants_title=_wants_title(chat, rules))


def _running(turn: Turn, admission: Admission, wish: Wish, limits: UserLimits, rules: Rules) -> RunningTurn:
    compression = due(wish.snapshot, admission, rules)
    return RunningTurn(
        turn, admission, wish.content, limits, compression, files=message_attachments.citable(wish.documents)
    )


def _wants_title(chat: Chat, rules: Rules) -> bool:
    return rules.settings.chat_titles.enabled and title.is_wanted(chat)


def _message_id(call: Call, instant: datetime) -> MessageId:
    return MessageId(call.new_id(instant))


def _replay(known: Turn, command: SendMessage) -> Replay:
    if known.deleted_at is not None:
        raise RequestIdConflict(known.state.public)
    if known.state is not TurnState.COMPLETED:
        raise RequestIdConflict(known.state.public, known.request_id)
    if known.fingerprint != fingerprint(command.content, command.attachment_ids):
        raise RequestIdReused
    return Replay(known)
