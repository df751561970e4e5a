"""The consumer of summary tasks on real queues: how often it tries, and what becomes of what it cannot do."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from functions.thread_summary import handler as function
from minichat.events.payloads import SystemTask, ThreadSummaryTask
from minichat.providers.chunks import Failed
from minichat.settings import Store, current
from tests.integration.test_thread_summary import Model, a_long_chat, stored, tasks, usage_events
from tests.support.events.queue_access import QueueAccess, Record, invocation, reason

Plug = Callable[[Model], None]


@pytest.fixture
def events(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueAccess]:
    """Queues that functions of this process use, with fresh tables."""
    with QueueAccess.used_here(store, monkeypatch) as access:
        yield access


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Puts a model in the place of the provider."""
    return lambda model: monkeypatch.setattr(function, "_providers", model)


def a_record(events: QueueAccess, task: SystemTask) -> Record:
    events.send("thread-summary", task.payload(), group=task.chat_id, event_id="1", event_type=task.event_type)
    (record,) = events.receive(events.settings.urls["thread-summary"])
    return record


def failed(record: Record, attempt: int = 1) -> list[str]:
    record["attributes"]["ApproximateReceiveCount"] = str(attempt)
    answer: Any = function.handler({"Records": [record]}, invocation())  # type: ignore[arg-type]  # as Lambda's, as far as used
    return [one["itemIdentifier"] for one in answer["batchItemFailures"]]


def test_a_task_becomes_a_summary_however_often_it_comes(events: QueueAccess, store: Store, plug: Plug) -> None:
    chat_id = a_long_chat()
    record = a_record(events, tasks(store, chat_id)[0])
    model = Model()
    plug(model)
    assert [failed(record, attempt) for attempt in (1, 2, 3)] == [[], [], []]
    assert stored(chat_id) is not None
    assert (len(model.prompts), len(usage_events(store))) == (1, 1)
    assert events.dead("thread-summary") == []


def test_three_attempts_and_then_the_dead_letters_say_why(events: QueueAccess, store: Store, plug: Plug) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    record = a_record(events, task)
    plug(Model(Failed("provider_error", "status 500: oops")))
    assert [failed(record, attempt) for attempt in (1, 2, 3)] == [[record["messageId"]]] * 2 + [[]]
    (buried,) = events.dead("thread-summary")
    assert reason(buried) == "attempt 3: provider_error: status 500: oops"
    assert ThreadSummaryTask.model_validate_json(buried["body"]) == task
    assert stored(chat_id) is None


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"event_type": "thread_summary_update", "tenant_id": "t", "chat_id": "c", "user_id": "u", '
        '"system_task_type": "thread_summary_update", "system_request_id": "r", '
        '"base_frontier": {"created_at": "2026-11-21T12:00:00Z"}, '
        '"frozen_target": {"created_at": "2026-11-21T12:00:00Z", "message_id": "m"}}',
    ],
)
def test_what_is_no_task_is_not_tried_twice(events: QueueAccess, body: str) -> None:
    events.send("thread-summary", body)
    (record,) = events.receive(events.settings.urls["thread-summary"])
    assert failed(record) == []
    (buried,) = events.dead("thread-summary")
    assert "not as its schema says" in reason(buried)


def test_nobody_is_asked_while_summaries_are_switched_off(
    events: QueueAccess, store: Store, plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_id = a_long_chat()
    record = a_record(events, tasks(store, chat_id)[0])
    model = Model()
    plug(model)
    monkeypatch.setenv("MINICHAT_THREAD_SUMMARY__ENABLED", "false")
    current.cache_clear()
    assert failed(record) == []
    assert (model.prompts, stored(chat_id)) == ([], None)
