"""Retry, edit and delete the latest turn: refused without a trace, or done in one transaction (turns-and-quota 3)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from minichat.domain.admission import Wish
from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.context import Snapshot
from minichat.domain.errors import NotLatestTurn
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.message import checked_content
from minichat.domain.mutation import check_mutation
from minichat.domain.quota_left import QuotaUse
from minichat.domain.tools import Document
from minichat.domain.turn import Turn
from minichat.events.payloads import TurnDeleted, TurnReplaced
from minichat.observability import measured
from minichat.services import message_attachments
from minichat.services.audit_details import by
from minichat.services.new_turn import (
    RunningTurn,
    SendMessage,
    begin,
    preflight,
    started,
    twice_at_most,
    wanted,
    with_own,
)
from minichat.services.orphans import ended_as_orphan
from minichat.services.policy_in_force import Rules
from minichat.services.repeated_turns import go_on_with_mutation
from minichat.services.turn_metrics import counted_turn
from minichat.settings import Settings
from minichat.storage import messages, outbox, starting_point, turn_mutations

T = TypeVar("T", bound=starting_point.Latest)


def retry(call: Call, chat_id: ChatId, target: RequestId, new_request_id: RequestId, rules: Rules) -> RunningTurn:
    """A new turn in place of the latest one, with the same message and those of its attachments that still exist.

    Raises what `check_mutation` and `admit` raise, and GenerationInProgress; the old turn is untouched then.
    """

    def once() -> RunningTurn:
        opened = _open(call, chat_id, target, rules)
        command = SendMessage(chat_id, opened.content, new_request_id, web_search=opened.target.turn.web_search_enabled)
        return _replace(call, opened, command, "turn_retry")

    with counted_turn("retry"):
        return _once_or_again(once, lambda: go_on_with_mutation(call, chat_id, target, None, rules))


def edit(call: Call, target: RequestId, command: SendMessage, rules: Rules) -> RunningTurn:
    """A new turn in place of the latest one, with the command's message and the old turn's web search and attachments.

    Raises InvalidRequest (content) and InputTooLong first, then as `retry`.
    """

    def once() -> RunningTurn:
        opened = _open(call, command.chat_id, target, rules)
        kept = replace(command, web_search=opened.target.turn.web_search_enabled)
        return _replace(call, opened, kept, "turn_edit")

    with counted_turn("edit"):
        checked_content(command.content)
        return _once_or_again(once, lambda: go_on_with_mutation(call, command.chat_id, target, command.content, rules))


def _once_or_again(once: Callable[[], RunningTurn], again: Callable[[], RunningTurn | None]) -> RunningTurn:
    """The new turn of a mutation. If its target is already replaced: the turn that the same mutation began in a
    process that died before calling the provider."""
    try:
        return twice_at_most(once)
    except NotLatestTurn:
        if (running := again()) is None:
            raise
        return running


def delete(call: Call, chat_id: ChatId, target: RequestId, settings: Settings) -> None:
    """Hides the latest turn; the one before it becomes the latest again.

    Raises what `check_mutation` raises, and GenerationInProgress.
    """
    with counted_turn("delete"):
        twice_at_most(lambda: _delete(call, chat_id, target, settings))


def _delete(call: Call, chat_id: ChatId, target: RequestId, settings: Settings) -> None:
    found = _read_and_repair(call, lambda: starting_point.look_at_latest(call, chat_id, target), settings)
    chat, turn = check_mutation(call.caller, found.chat, found.turn, target)
    event = TurnDeleted(
        **by(call, chat_id),
        turn_id=turn.turn_id,
        request_id=turn.request_id,
    )
    going = turn_mutations.Target(turn, found.recent.of(turn.request_id))
    turn_mutations.delete(call, chat, going, [outbox.item(call, chat_id, event)], token=call.new_id(call.now))


def _read_and_repair(call: Call, look: Callable[[], T], settings: Settings) -> T:
    """What `look` finds, after ending a turn that it finds dead.

    Raises ChatNotFound.
    """
    with measured("read"):
        found = look()
        visible(found.chat, call.caller)
        if found.turn is not None and ended_as_orphan(call, found.turn, settings):
            found = look()
    return found


@dataclass(frozen=True, slots=True)
class _Opened:
    """A turn that may be replaced, its chat without it, the attachments that its message can still use, and the rules
    of its user."""

    chat: Chat
    target: turn_mutations.Target
    content: str
    snapshot: Snapshot
    quota_use: QuotaUse
    sent_with: tuple[Attachment, ...]
    documents: tuple[Document, ...]
    rules: Rules


def _open(call: Call, chat_id: ChatId, target: RequestId, rules: Rules) -> _Opened:
    # The turn's own two messages are the newest ones.
    look = wanted(call, chat_id, target, rules, own=2)
    found = _read_and_repair(call, lambda: starting_point.look(call, look), rules.settings)
    found, rules = with_own(call, found, rules)
    chat, turn = check_mutation(call.caller, found.chat, found.turn, target)
    history = [message for message in found.recent.messages if message.request_id != turn.request_id]
    # A summary that covers the turn repeats what the mutation takes back.
    summary = None if chat.covers(turn.user_message_id) else found.summary
    snapshot = Snapshot(history, summary, rules.settings.context.recent_messages_limit)
    sent_with = message_attachments.kept(call.caller, turn, rules)
    going, content = turn_mutations.Target(turn, found.recent.of(turn.request_id)), _content_of(turn, found.recent)
    return _Opened(chat, going, content, snapshot, found.quota_use, sent_with, found.documents, rules)


def _content_of(turn: Turn, recent: messages.Newest) -> str:
    """The user's message of the latest turn: from the context, or read alone when a long answer crowded it out."""
    message = next((m for m in recent.messages if m.message_id == turn.user_message_id), None)
    message = message or messages.read(turn.tenant_id, turn.chat_id, turn.user_message_id)
    assert message is not None, "a turn is stored with its message"
    return message.content


def _replace(
    call: Call, opened: _Opened, command: SendMessage, event_type: Literal["turn_retry", "turn_edit"]
) -> RunningTurn:
    chat, old, rules = opened.chat, opened.target.turn, opened.rules
    command = replace(command, attachment_ids=tuple(one.attachment_id for one in opened.sent_with))
    images = message_attachments.images(opened.sent_with)
    wish = Wish(chat.model, command.content, opened.snapshot, command.web_search, images, opened.documents)
    admission = preflight(call, wish, opened.quota_use, rules)
    event = TurnReplaced(
        event_type=event_type,
        **by(call, chat.chat_id),
        turn_id=old.turn_id,
        original_request_id=old.request_id,
        new_request_id=command.request_id,
    )
    start = begin(call, chat, admission, command, opened.quota_use)
    # The successor of the turn before the old one: retry and edit never fork the conversation.
    turn = replace(start.turn, prev_request_id=old.prev_request_id)
    new = replace(start, turn=turn, events=(outbox.item(call, chat.chat_id, event),))
    turn_mutations.supersede(call, chat, opened.target, new, retention_days=rules.settings.quota.retention_days)
    return started(chat, new, admission, wish, rules)
