"""A new turn, as send, retry and edit begin one: its command, its starting point, its admission, and the running turn
that results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from minichat.domain import title
from minichat.domain.admission import Admission, Wish, admit
from minichat.domain.chat import Chat, next_instant
from minichat.domain.citations import CitedFile
from minichat.domain.context import Snapshot, compression, messages_needed
from minichat.domain.erasure import BeingErased
from minichat.domain.errors import ChatMoved, CreditsTaken, QuotaExceeded, SendsMoved
from minichat.domain.identity import MICROSECOND, AttachmentId, Call, ChatId, MessageId, RequestId
from minichat.domain.message import NOTHING_ASIDE, Aside, Message, fingerprint
from minichat.domain.policy import UserLimits
from minichat.domain.quota_left import QuotaUse
from minichat.domain.quota_periods import PERIODS
from minichat.domain.summary import Compression, Summary
from minichat.domain.turn import Turn, TurnState
from minichat.observability import count, measured
from minichat.services import message_attachments
from minichat.services.policy_in_force import Rules
from minichat.storage import starting_point, turns

T = TypeVar("T")

RECENT_MAX_BYTES = 4_000_000
"""Most text of recent messages that is read: more than fits the largest context window."""


@dataclass(frozen=True, slots=True)
class SendMessage:
    """A message to be answered; one that `follows` a turn is refused where that is not the latest."""

    chat_id: ChatId
    content: str
    request_id: RequestId
    attachment_ids: tuple[AttachmentId, ...] = ()
    web_search: bool = False
    aside: Aside = NOTHING_ASIDE
    follows: RequestId | None = None

    @property
    def fingerprint(self) -> str:
        """What a turn of this very message has, too."""
        return fingerprint(self.content, self.attachment_ids, self.aside)

    def snapshot(self, messages: Sequence[Message], summary: Summary | None, limit: int) -> Snapshot:
        """What the prompt may show: all that comes with the message, then so many of the chat's own."""
        before = self.aside.history
        return Snapshot([*before, *messages], summary, limit + len(before))


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """A durable turn, the prompt for its provider, and the work due once it completes: a summary, a title.

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


def twice_at_most(admission: Callable[[], T]) -> T:
    """The result of an admission. It is tried again once if other turns of the user took its credits before its
    transaction did, or the chat got another summary.

    The second try sees what is left and can choose a cheaper model; its refusal is final. That another send came first
    costs no try: after it, the next one is expected ahead of now, and that is lost to nobody.
    """
    try:
        return _arrived(admission)
    except (CreditsTaken, ChatMoved):
        return _arrived(admission)


def _arrived(admission: Callable[[], T]) -> T:
    try:
        return admission()
    except SendsMoved:
        return admission()


def wanted(call: Call, chat_id: ChatId, request_id: RequestId, rules: Rules, *, own: int = 0) -> starting_point.Wanted:
    """The read of a new turn's starting point and of a turn of the chat: as many messages as a prompt may take, and
    `own` more that belong to that turn rather than its history."""
    settings = rules.settings
    history = messages_needed(settings.context.recent_messages_limit, settings.thread_summary.verbatim_turns)
    limits = rules.policy.limits_of(call.caller.user_id)
    return starting_point.Wanted(chat_id, request_id, limits, history + own, RECENT_MAX_BYTES, rates=rules.rates)


def with_own(call: Call, opened: starting_point.Opened, rules: Rules) -> tuple[starting_point.Opened, Rules]:
    """What a new turn starts from, and the rules, both with the user's own layer of the policy.

    Raises BeingErased.
    """
    if opened.being_erased:
        raise BeingErased
    rules = rules.of_user(opened.user_layer)
    limits = rules.policy.limits_of(call.caller.user_id)
    return replace(opened, quota_use=replace(opened.quota_use, limits=limits)), rules


def preflight(call: Call, wish: Wish, quota_use: QuotaUse, rules: Rules) -> Admission:
    """The admission of the message; raises as `admit` does, and RateLimited before that."""
    quota_use.rates.check_send(call.now)
    with measured("context"):
        try:
            admission = admit(rules.policy, wish, quota_use, rules.limits, call.now)
        except QuotaExceeded:
            count("quota_preflight_total", decision="reject", tier="none")
            raise
    count("quota_preflight_total", decision=admission.reserve.decision, tier=admission.model.tier)
    priced = replace(
        admission.reserve, tenant_policy_version=rules.tenant_version, user_policy_version=rules.user_version
    )
    return replace(admission, reserve=priced)


def begin(call: Call, chat: Chat, admission: Admission, command: SendMessage, quota_use: QuotaUse) -> turns.Start:
    """The turn and the user message that an admitted command starts with."""
    # Only the messages' place in the chat: a clock that ran ahead may put it into the future. Other times are real.
    said_at = next_instant(chat, call.now)
    turn = Turn(
        tenant_id=chat.tenant_id,
        chat_id=chat.chat_id,
        request_id=command.request_id,
        turn_id=call.new_id(call.now),
        requester_type=call.caller.subject_type,
        requester_user_id=call.caller.user_id,
        state=TurnState.RUNNING,
        fingerprint=command.fingerprint,
        user_message_id=_message_id(call, said_at),
        # Chosen before the message exists; it sorts right after the user's.
        assistant_message_id=_message_id(call, said_at + MICROSECOND),
        started_at=call.now,
        last_progress_at=call.now,
        reserve=replace(admission.reserve, in_flight=1, tenant_in_flight=int(quota_use.rates.limits.of_tenant)),
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
    return turns.Start(turn, message, quota_use.limits, admission.per_day, rate_use=quota_use.rates)


def started(chat: Chat, new: turns.Start, admission: Admission, wish: Wish, rules: Rules) -> RunningTurn:
    """The turn that an admitted wish has become."""
    for period in PERIODS:
        count("quota_reserve_total", period=period)
    if admission.assembly.truncated:
        count("context_truncated_total", model=admission.model.id)
    begun = running(new.turn, new.limits, admission, wish, rules)
    return replace(begun, wants_title=wants_title(chat, rules))


def running(turn: Turn, limits: UserLimits, admission: Admission, wish: Wish, rules: Rules) -> RunningTurn:
    """A running turn, ready to be answered, and to be summarized once it has completed."""
    # What came with the message is not there to be summarized.
    compression = None if wish.aside.history else _due(wish.snapshot, admission, rules)
    files = message_attachments.citable(wish.documents)
    return RunningTurn(turn, admission, wish.content, limits, compression, files=files)


def wants_title(chat: Chat, rules: Rules) -> bool:
    """Whether the chat gets a title once its running turn has completed."""
    return rules.settings.chat_titles.enabled and title.is_wanted(chat)


def _due(snapshot: Snapshot, admission: Admission, rules: Rules) -> Compression | None:
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


def _message_id(call: Call, instant: datetime) -> MessageId:
    return MessageId(call.new_id(instant))
