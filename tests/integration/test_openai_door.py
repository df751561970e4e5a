"""First messages of chats that are made for them, and what comes with a message and is not kept."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.errors import (
    ChatMoved,
    ContextBudgetExceeded,
    InputTooLong,
    NotLatestTurn,
    QuotaExceeded,
    RateLimited,
    RequestIdConflict,
    RequestIdReused,
)
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.message import Aside
from minichat.domain.policy import LimitsByUser
from minichat.domain.rates import UNLIMITED
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.http.openai.completions_request import read
from minichat.services import chats, orphans
from minichat.services.chats import NewChat
from minichat.services.finalize import finalize
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.prompts import prompt_of
from minichat.services.send import send, send_first
from minichat.settings import Settings, Store
from minichat.storage import chats as stored_chats
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, new_id, some_limits, unhurried
from tests.support.storage.invariants import Tables, violations

MODEL = a_model(preference={"is_default": True}, system_prompt="Yours truly.")
RULES = Rules(unhurried(), a_policy(MODEL))
TALK: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
]


def paced(**rates: int) -> Settings:
    """Settings with these rates alone."""
    settings = unhurried()
    return settings.model_copy(update={"rates": settings.rates.model_copy(update=rates)})


def an_aside(*more: Any, **said: Any) -> Aside:
    """What comes with a chat completion whose last message is another."""
    return read({"model": "m", "messages": [*TALK, *more, {"role": "user", "content": "Three?"}], **said}).aside


def a_command(aside: Aside | None = None, **said: Any) -> SendMessage:
    ids: dict[str, Any] = {"chat_id": ChatId(str(uuid4())), "request_id": RequestId(str(uuid4()))}
    return SendMessage(**(ids | {"content": "Three?", "aside": aside or Aside()} | said))


def begun(outcome: RunningTurn | Replay) -> RunningTurn:
    assert isinstance(outcome, RunningTurn)
    return outcome


def ended(running: RunningTurn) -> RunningTurn:
    assert finalize(
        a_call(), running.turn, Ending(TurnState.COMPLETED, text="Four.", usage=Usage(9, 3)), RULES.settings
    )
    return running


def test_what_comes_with_a_message_is_in_its_prompt_and_not_in_the_chat(store: Store) -> None:
    running = begun(send_first(a_call(), a_command(an_aside(max_tokens=77)), NewChat(temporary=True), RULES))
    prompt = prompt_of(running)
    assert prompt.instructions == "Yours truly.\n\nBe brief."
    assert [(one.role, one.text) for one in prompt.messages] == [
        ("user", "One?"),
        ("assistant", "Two."),
        ("user", "Three?"),
    ]
    assert (prompt.max_output_tokens, running.turn.reserve.max_output_tokens) == (77, 77)
    plain = begun(send_first(a_call(), a_command(), NewChat(temporary=True), RULES))
    assert running.turn.reserve.tokens - 77 > plain.turn.reserve.tokens - plain.turn.reserve.max_output_tokens
    ended(running)
    kept = str(Tables.of(store))
    assert ("Three?" in kept, "One?" in kept, "Be brief." in kept) == (True, False, False)
    chat = chats.get(a_call(), running.turn.chat_id)
    assert (chat.message_count, chat.is_temporary) == (2, True)


def test_any_number_of_earlier_messages_is_sent_and_none_is_summarized(store: Store) -> None:
    more = [{"role": role, "content": f"{role} {number}"} for number in range(60) for role in ("user", "assistant")]
    running = begun(send_first(a_call(), a_command(an_aside(*more)), NewChat(temporary=True), RULES))
    assert len(prompt_of(running).messages) == 2 + 120 + 1
    assert running.compression is None


def test_earlier_messages_that_do_not_fit_are_refused_unless_they_may_be_left_out(store: Store) -> None:
    small = Rules(unhurried(), a_policy(MODEL.model_copy(update={"context_window": 5_000, "max_output_tokens": 100})))
    long = an_aside(*[{"role": "assistant", "content": "words " * 4_000}] * 2)
    with pytest.raises(ContextBudgetExceeded):
        send_first(a_call(), a_command(long), NewChat(temporary=True), small)
    running = begun(send_first(a_call(), a_command(replace(long, whole=False)), NewChat(temporary=True), small))
    assert [one.text for one in prompt_of(running).messages] == ["Three?"]


def test_a_refusal_makes_no_chat(store: Store) -> None:
    poor = Rules(unhurried(), a_policy(MODEL, user_limits=LimitsByUser(default=some_limits(total=1))))
    slow = Rules(paced(sends_per_minute=1), a_policy(MODEL))
    send_first(a_call(a_caller(user=7)), a_command(), NewChat(), slow)
    refusals: list[tuple[type[Exception], int, Rules, str]] = [
        (QuotaExceeded, 5, poor, "Three?"),
        (RateLimited, 7, slow, "Three?"),
        (InputTooLong, 5, RULES, "a" * 3_000_001),
    ]
    for refusal, user, rules, content in refusals:
        command = a_command(content=content)
        with pytest.raises(refusal):
            send_first(a_call(a_caller(user=user)), command, NewChat(), rules)
        assert stored_chats.read(a_caller().tenant_id, command.chat_id) is None


def test_a_chat_for_one_message_counts_as_a_send_and_a_chat_that_stays_as_a_chat(store: Store) -> None:
    rules = Rules(paced(chats_per_hour=1), a_policy(MODEL))
    for _ in range(3):
        ended(begun(send_first(a_call(), a_command(), NewChat(temporary=True), rules)))
    send_first(a_call(), a_command(), NewChat(), rules)
    with pytest.raises(RateLimited):
        send_first(a_call(), a_command(), NewChat(), rules)


def test_of_the_same_first_message_many_times_at_once_one_begins_a_turn_in_one_chat(store: Store) -> None:
    command = a_command(an_aside())

    def attempt(_: int) -> str:
        try:
            return type(send_first(a_call(), command, NewChat(temporary=True), RULES)).__name__
        except RequestIdConflict as conflict:
            return f"{conflict.turn_state} {conflict.request_id == command.request_id}"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    assert outcomes == ["RunningTurn"] + ["running True"] * 7
    assert violations(Tables.of(store)) == []


def test_a_first_message_sent_again_is_the_same_turn(store: Store) -> None:
    command = a_command(an_aside())
    first = ended(begun(send_first(a_call(), command, NewChat(temporary=True), RULES)))
    again = send_first(a_call(), command, NewChat(temporary=True), RULES)
    assert isinstance(again, Replay)
    assert again.turn.turn_id == first.turn.turn_id
    for other in (
        replace(command, content="Five?"),
        replace(command, aside=replace(command.aside, instructions="No.")),
    ):
        with pytest.raises(RequestIdReused):
            send_first(a_call(), other, NewChat(temporary=True), RULES)


def test_a_chat_is_made_once(store: Store) -> None:
    chat = chats.drafted(a_call(), ChatId(str(uuid4())), NewChat(), RULES)
    stored_chats.create(chat, UNLIMITED.chats, retention_days=1)
    with pytest.raises(ChatMoved):
        stored_chats.create(replace(chat, title="Another"), UNLIMITED.chats, retention_days=1)


def test_a_turn_whose_process_died_goes_on_with_what_is_sent_again(store: Store) -> None:
    command = a_command(an_aside())
    dead = begun(send_first(a_call(), command, NewChat(temporary=True), RULES))
    later = Call(a_caller(), a_call().now + timedelta(seconds=20), new_id)
    assert orphans.never_began(later, dead.turn, RULES.settings)
    mine = begun(send_first(later, command, NewChat(temporary=True), RULES))
    assert mine.turn.turn_id == dead.turn.turn_id
    assert prompt_of(mine).messages == prompt_of(dead).messages
    assert prompt_of(mine).instructions == prompt_of(dead).instructions


def test_only_the_latest_turn_is_followed(store: Store) -> None:
    first = ended(begun(send_first(a_call(), a_command(), NewChat(), RULES))).turn
    wish: dict[str, Any] = {"chat_id": first.chat_id, "follows": first.request_id}
    second = begun(send(a_call(), a_command(**wish), RULES))
    assert second.turn.prev_request_id == first.request_id
    ended(second)
    with pytest.raises(NotLatestTurn):
        send(a_call(), a_command(**wish), RULES)
    again = a_command(**wish, request_id=second.turn.request_id)
    assert isinstance(send(a_call(), again, RULES), Replay), "what was sent before is not refused for what it began"
