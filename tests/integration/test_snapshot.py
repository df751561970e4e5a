"""What a prompt takes along is the chat as it was when its turn was created, however reads fall among the writes."""

import threading
from uuid import uuid4

import pytest

from minichat.domain import errors
from minichat.domain.identity import ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import ContextSettings, Settings, Store
from minichat.storage import messages, starting_point
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, unhurried
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))


def a_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def a_send(chat_id: ChatId, content: str, rules: Rules = RULES) -> RunningTurn:
    running = send(a_call(), SendMessage(chat_id, content, RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    return running


def ended(running: RunningTurn, text: str, state: TurnState = TurnState.COMPLETED) -> RunningTurn:
    assert finalize(a_call(), running.turn, Ending(state, text=text), RULES.settings)
    return running


def a_retry(running: RunningTurn) -> RunningTurn:
    return mutate.retry(a_call(), running.turn.chat_id, running.turn.request_id, RequestId(str(uuid4())), RULES)


def told(running: RunningTurn) -> list[str]:
    """What goes to the provider, the current message last."""
    return [*(message.content for message in running.admission.assembly.history), running.content]


class Early:
    """The messages of a chat, read now; the next read gets these, as one gets that was a moment before the head's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chat_id: ChatId) -> None:
        recent = messages.recent
        known = [recent(a_caller().tenant_id, chat_id, 12, at_most_bytes=10**6)]

        def early(*about: object, **more: object) -> messages.Newest:
            return known.pop() if known else recent(*about, **more)  # type: ignore[arg-type]  # handed on as it came

        monkeypatch.setattr(messages, "recent", early)


def test_an_answer_that_ended_between_the_reads_is_not_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_id = a_chat()
    running = a_send(chat_id, "one")
    Early(monkeypatch, chat_id)
    ended(running, "first")
    assert told(a_send(chat_id, "two")) == ["one", "first", "two"]


def test_a_turn_that_was_deleted_between_the_reads_is_not_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_id = a_chat()
    ended(a_send(chat_id, "one"), "first")
    deleted = ended(a_send(chat_id, "secret"), "kept to ourselves")
    Early(monkeypatch, chat_id)
    mutate.delete(a_call(), chat_id, deleted.turn.request_id, RULES.settings)
    assert told(a_send(chat_id, "two")) == ["one", "first", "two"]


def test_a_retry_sees_the_chat_that_it_replaces_a_turn_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_id = a_chat()
    first = ended(a_send(chat_id, "one"), "first")
    second = ended(a_send(chat_id, "two"), "second")
    Early(monkeypatch, chat_id)
    mutate.delete(a_call(), chat_id, second.turn.request_id, RULES.settings)
    assert told(a_retry(first)) == ["one"]


def test_a_send_whose_messages_are_newer_than_the_head_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another turn begins after the head was read: it is never in the prompt, for there is none."""
    chat_id = a_chat()
    ended(a_send(chat_id, "one"), "first")
    recent, head_was_read = messages.recent, threading.Event()

    def after_another(*about: object, **more: object) -> messages.Newest:
        assert head_was_read.wait(PATIENCE)
        monkeypatch.setattr(messages, "recent", recent)
        ended(a_send(chat_id, "another"), "answer")
        return recent(*about, **more)  # type: ignore[arg-type]  # handed on as it came

    opened = starting_point.open_for_turn
    before = opened(
        a_call(),
        starting_point.Wanted(chat_id, RequestId(str(uuid4())), RULES.policy.user_limits.default, 0, 0),
    )

    def once(*_: object) -> starting_point.Opened:
        monkeypatch.setattr(starting_point, "open_for_turn", opened)
        head_was_read.set()
        return before

    monkeypatch.setattr(starting_point, "open_for_turn", once)
    monkeypatch.setattr(messages, "recent", after_another)
    with pytest.raises(errors.GenerationInProgress):
        a_send(chat_id, "two")
    assert violations(Tables.of(store)) == []


def test_partial_texts_are_in_and_what_failed_is_as_its_user_left_it(store: Store) -> None:
    chat_id = a_chat()
    ended(a_send(chat_id, "one"), "cut sho", TurnState.CANCELLED)
    ended(a_send(chat_id, "two"), "", TurnState.FAILED)
    ended(a_send(chat_id, "three"), "")
    assert told(a_send(chat_id, "four")) == ["one", "cut sho", "two", "three", "four"]


def test_the_first_message_is_told_once_also_when_it_is_retried(store: Store) -> None:
    first = a_send(a_chat(), "one")
    assert told(first) == ["one"]
    assert told(a_retry(ended(first, "first"))) == ["one"]


def test_no_message_is_shown_when_none_may_be(store: Store) -> None:
    rules = Rules(Settings(context=ContextSettings(recent_messages_limit=0)), RULES.policy)
    chat_id = a_chat()
    ended(a_send(chat_id, "one"), "first")
    assert told(a_send(chat_id, "two", rules)) == ["two"]


def test_what_does_not_fit_is_refused_and_changes_nothing(store: Store) -> None:
    small = Rules(Settings(), a_policy(a_model(context_window=4500, preference={"is_default": True})))
    chat_id = a_chat()
    ended(a_send(chat_id, "one"), "first")
    before = Tables.of(store)
    with pytest.raises(errors.ContextBudgetExceeded):
        a_send(chat_id, "x" * 4000, small)
    assert Tables.of(store) == before


def test_what_is_reserved_is_the_estimate_of_what_is_sent(store: Store) -> None:
    chat_id = a_chat()
    ended(a_send(chat_id, "one"), "first")
    running = a_send(chat_id, "two")
    assembly, reserve = running.admission.assembly, running.turn.reserve
    assert reserve.tokens == assembly.estimated_tokens + reserve.max_output_tokens
