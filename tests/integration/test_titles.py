"""Titles from the first exchange: given once, never in the place of one that somebody gave, never of what is gone."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from functions.thread_summary import handler as function
from minichat.domain.identity import ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import ChatTitleTask
from minichat.providers.chunks import Failed
from minichat.services import chats, mutate, titles
from minichat.services.finalize import Teller, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.system_tasks import TaskDeps, TaskFailed, TaskOutcome
from minichat.settings import Settings, Store
from minichat.storage import usage_ledger
from tests.integration.test_summary_queue import a_record, failed
from tests.integration.test_thread_summary import TRACE, Model, means, tells_who_asks, usage_events, with_a_secret
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.events.queue_access import QueueAccess, reason
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
TENANT = a_caller().tenant_id


def a_chat(**wish: Any) -> ChatId:
    return chats.create(a_call(), chats.NewChat(**wish), RULES).chat_id


def a_turn(chat_id: ChatId, content: str = "hello", rules: Rules = RULES, **ending: Any) -> RunningTurn:
    running = send(a_call(), SendMessage(chat_id, content, RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    return _ended(running, **ending)


def _ended(running: RunningTurn, text: str = "good day", state: TurnState = TurnState.COMPLETED) -> RunningTurn:
    by = Teller(wants_title=running.wants_title)
    assert finalize(a_call(), running.turn, Ending(state, text=text, usage=Usage(10, 5)), RULES.settings, by)
    return running


def tasks(store: Store, chat_id: ChatId) -> list[ChatTitleTask]:
    items = sorted(Tables.of(store).outbox, key=lambda item: str(item["sk"]))
    wanted = [one for one in items if one["type"] == "chat_title" and one["pk"].endswith(chat_id)]
    return [ChatTitleTask.model_validate_json(one["payload"]) for one in wanted]


def entitled(task: ChatTitleTask, model: Model | None = None) -> TaskOutcome:
    made = model or Model("<title>A greeting</title>")
    means = TaskDeps(RULES, made, lambda: a_call().now, new_id, 20)  # type: ignore[arg-type]  # the test's provider
    return asyncio.run(titles.entitle(task, "", means))


def test_the_provider_is_told_for_whom_a_title_is_made(store: Store) -> None:
    chat_id, model = a_chat(), Model("<title>A greeting</title>")
    a_turn(chat_id)
    (task,) = tasks(store, chat_id)
    assert asyncio.run(titles.entitle(task, TRACE, means(model, with_a_secret(RULES)))) is TaskOutcome.DONE
    assert tells_who_asks(model, task)


def title(chat_id: ChatId) -> str | None:
    return chats.get(a_call(), chat_id).title


def test_the_first_exchange_becomes_a_title_once_and_the_chat_stays_where_it_is(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id, "hello there")
    before = chats.get(a_call(), chat_id)
    (task,) = tasks(store, chat_id)
    model = Model("<title>A greeting</title>")
    assert [entitled(task, model) for _ in range(3)] == [TaskOutcome.DONE, TaskOutcome.LOST, TaskOutcome.LOST]
    assert chats.get(a_call(), chat_id) == replace(before, title="A greeting")
    assert len(model.prompts) == 1
    assert "hello there" in model.asked
    assert "good day" in model.asked
    ((dedupe, used),) = usage_events(store)
    ids = (TENANT.replace("-", ""), "chat_title", task.system_request_id.replace("-", ""))
    assert dedupe == "/".join(ids)
    assert (used.requester_type, used.user_id, used.turn_id, used.committed_credits_micro) == ("system", None, None, 0)
    assert violations(Tables.of(store)) == []


def test_what_titles_use_is_in_the_tenants_total_and_nobodys_quota(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id)
    assert entitled(tasks(store, chat_id)[0]) is TaskOutcome.DONE
    ((_, used),) = usage_events(store)
    assert usage_ledger.book(used, new_id(NOW), retention_days=400)
    day = used.timestamp.date().isoformat()
    (total,) = usage_ledger.totals(TENANT, day, day)
    assert (total.user_id, total.used.turns, total.used.input_tokens) == (None, 0, 100)


@pytest.mark.parametrize("wish", [{"title": "Mine"}, {"temporary": True}])
def test_a_chat_with_a_title_and_a_temporary_one_get_no_task(store: Store, wish: dict[str, Any]) -> None:
    chat_id = a_chat(**wish)
    a_turn(chat_id)
    assert tasks(store, chat_id) == []


def test_titles_that_are_switched_off_make_no_task(store: Store) -> None:
    off = Rules(Settings.model_validate({"chat_titles": {"enabled": False}}), RULES.policy)
    chat_id = a_chat()
    a_turn(chat_id, rules=off)
    assert tasks(store, chat_id) == []


def test_a_turn_without_an_answer_makes_no_task_and_the_next_one_does(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id, state=TurnState.CANCELLED)
    a_turn(chat_id, text=" ")
    assert tasks(store, chat_id) == []
    a_turn(chat_id)
    (task,) = tasks(store, chat_id)
    assert entitled(task) is TaskOutcome.DONE


def test_odd_answers_leave_the_chat_without_and_are_not_asked_for_for_ever(store: Store) -> None:
    chat_id = a_chat()
    for _ in range(6):
        a_turn(chat_id)
    made = tasks(store, chat_id)
    assert len(made) == 3
    assert {entitled(task, Model("I cannot\nhelp with that.")) for task in made} == {TaskOutcome.NOTHING}
    assert title(chat_id) is None


def test_a_title_that_was_given_meanwhile_stays(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id)
    (task,) = tasks(store, chat_id)
    renames = Model("<title>A greeting</title>", meanwhile=lambda: chats.rename(a_call(), chat_id, "Mine"))
    assert entitled(task, renames) is TaskOutcome.LOST
    assert title(chat_id) == "Mine"
    assert usage_events(store) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_deleted_chat_and_a_turn_that_was_taken_back_give_no_title(store: Store, when: str) -> None:
    gone, replaced = a_chat(), a_chat()
    a_turn(gone)
    turn = a_turn(replaced).turn

    def delete() -> None:
        chats.delete(a_call(), gone)

    def retry() -> None:
        mutate.retry(a_call(), replaced, turn.request_id, RequestId(str(uuid4())), RULES)

    deeds: list[tuple[ChatId, Callable[[], None], TaskOutcome]] = [
        (gone, delete, TaskOutcome.GONE),
        (replaced, retry, TaskOutcome.LOST),
    ]
    for chat_id, deed, outcome in deeds:
        (task,) = tasks(store, chat_id)
        if when == "before":
            deed()
            assert entitled(task) is outcome
        else:
            assert entitled(task, Model("<title>A greeting</title>", meanwhile=deed)) is TaskOutcome.LOST
    assert title(replaced) is None
    assert not any(one.get("title") for one in Tables.of(store).conversations if one["pk"].endswith(gone))
    assert violations(Tables.of(store)) == []


def test_the_turn_of_a_retry_gives_the_title_that_the_one_before_did_not(store: Store) -> None:
    chat_id = a_chat()
    turn = a_turn(chat_id, "one").turn
    running = mutate.retry(a_call(), chat_id, turn.request_id, RequestId(str(uuid4())), RULES)
    _ended(running, "two")
    old, new = tasks(store, chat_id)
    assert (entitled(old), entitled(new)) == (TaskOutcome.LOST, TaskOutcome.DONE)


def test_of_eight_deliveries_at_once_one_gives_the_title(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id)
    (task,) = tasks(store, chat_id)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: entitled(task, Model(f"<title>Title {number}</title>")), range(8)))
    assert sorted(outcomes) == [*[TaskOutcome.LOST] * 7, TaskOutcome.DONE]
    assert len(usage_events(store)) == 1


def test_a_provider_that_fails_is_asked_again(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id)
    (task,) = tasks(store, chat_id)
    with pytest.raises(TaskFailed, match="oops"):
        entitled(task, Model(Failed("provider_error", "oops")))
    assert entitled(task) is TaskOutcome.DONE


@pytest.fixture
def events(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueAccess]:
    """Queues that functions of this process use, with fresh tables."""
    with QueueAccess.used_here(store, monkeypatch) as access:
        yield access


def test_the_worker_of_summaries_gives_titles_and_buries_what_fails_thrice(
    events: QueueAccess, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_id = a_chat()
    a_turn(chat_id)
    (task,) = tasks(store, chat_id)
    record = a_record(events, task)
    monkeypatch.setattr(function, "_providers", Model(Failed("provider_error", "status 500: oops")))
    assert [failed(record, attempt) for attempt in (1, 2, 3)] == [[record["messageId"]]] * 2 + [[]]
    (buried,) = events.dead("thread-summary")
    assert reason(buried) == "attempt 3: provider_error: status 500: oops"
    monkeypatch.setattr(function, "_providers", Model("<title>A greeting</title>"))
    assert failed(buried) == []
    assert title(chat_id) == "A greeting"


def test_a_task_without_its_members_is_dead_at_once(events: QueueAccess) -> None:
    said = {"event_type": "chat_title", "tenant_id": "t", "chat_id": "c", "user_id": "u", "system_request_id": "r"}
    events.send("thread-summary", json.dumps(said))
    (record,) = events.receive(events.settings.urls["thread-summary"])
    assert failed(record) == []
    (buried,) = events.dead("thread-summary")
    assert "not as its schema says" in reason(buried)
