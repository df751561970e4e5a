"""Thread summaries against the engine: one of many wins, what was taken back is not told, nothing is lost by a kill."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from minichat.domain.identity import ChatId, RequestId, TenantId, UserId
from minichat.domain.settlement import Ending
from minichat.domain.summary import Summary
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import SystemTask, ThreadSummaryTask, UsageEvent
from minichat.events.references import FrontierRef
from minichat.observability import begin
from minichat.providers import identity
from minichat.providers.chunks import Completed, Failed, ProviderChunk, TextDelta
from minichat.providers.prompt import Prompt
from minichat.services import chats, mutate, reconcile_quota, reconcile_usage, thread_summary
from minichat.services.finalize import Teller, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.system_tasks import NoModel, TaskDeps, TaskFailed, TaskOutcome
from minichat.settings import Settings, Store
from minichat.storage import messages, starting_point, summaries, usage_ledger
from minichat.task_settings import ThreadSummary
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.patience import PATIENCE
from tests.support.storage.faults import Killed, answers_lost, counted_calls, killed, side_by_side
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
TENANT = a_caller().tenant_id
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Model:
    """A provider that gives one answer after the other, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers: str | Failed, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._answers = list(answers) or ["<analysis>hm</analysis><summary>They talked.</summary>"]
        self._meanwhile = meanwhile
        self.prompts: list[Prompt] = []

    async def stream(self, tenant_id: str, provider_id: str, prompt: Prompt) -> AsyncGenerator[ProviderChunk, None]:
        assert provider_id == "openai"
        self.prompts.append(prompt)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await asyncio.to_thread(self._meanwhile)
        if isinstance(answer, Failed):
            yield answer
            return
        yield TextDelta(answer)
        yield Completed(Usage(100, 20))

    @property
    def asked(self) -> str:
        """The text of the last request."""
        return self.prompts[-1].messages[0].text


def a_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def ended(running: RunningTurn, text: str = "fine", state: TurnState = TurnState.COMPLETED) -> RunningTurn:
    by = Teller(compression=running.compression)
    assert finalize(a_call(), running.turn, Ending(state, text=text, usage=Usage(10, 5)), RULES.settings, by)
    return running


def a_turn(chat_id: ChatId, content: str, rules: Rules = RULES, **said: Any) -> RunningTurn:
    running = send(a_call(), SendMessage(chat_id, content, RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    return ended(running, f"answer to {content}", **said)


def a_long_chat(turns: int = 6) -> ChatId:
    chat_id = a_chat()
    for number in range(1, turns + 1):
        a_turn(chat_id, f"question {number}")
    return chat_id


def tasks(store: Store, chat_id: ChatId) -> list[ThreadSummaryTask]:
    """The tasks that left, in their order."""
    items = sorted(Tables.of(store).outbox, key=lambda item: str(item["sk"]))
    return [
        ThreadSummaryTask.model_validate_json(item["payload"])
        for item in items
        if item["queue"] == "thread-summary" and item["pk"].endswith(chat_id)
    ]


def usage_events(store: Store) -> list[tuple[str, UsageEvent]]:
    """The usage events of tasks of the system, each with its dedupe key."""
    return [
        (item["dedupe"], UsageEvent.model_validate_json(item["payload"]))
        for item in Tables.of(store).outbox
        if item["queue"] == "usage" and "system_task_type" in item["payload"]
    ]


def means(model: Model, rules: Rules = RULES, seconds: float = 20) -> TaskDeps:
    return TaskDeps(rules, model, lambda: a_call().now, new_id, seconds)  # type: ignore[arg-type]  # the test's provider


def summarized(task: ThreadSummaryTask, model: Model | None = None, rules: Rules = RULES) -> TaskOutcome:
    return asyncio.run(thread_summary.summarize(task, "", means(model or Model(), rules)))


def with_a_secret(rules: Rules) -> Rules:
    """The rules of a deployment that tells providers who asks."""
    return Rules(rules.settings.model_copy(update={"cursor_secret": SecretStr("a secret")}), rules.policy)


def tells_who_asks(model: Model, task: SystemTask) -> bool:
    """Whether the model was told of the task's trace and of its user, tenant and chat, each in hashes alone."""
    (prompt,) = model.prompts
    asker = identity.Asker(
        TenantId(task.tenant_id), UserId(task.user_id), ChatId(task.chat_id), TRACE, task.system_task_type
    )
    wanted = identity.told(prompt, asker, "a secret")
    assert str(prompt.traceparent).startswith(f"00-{TRACE}-")
    told = repr((prompt.user, prompt.metadata))
    assert not [one for one in (task.tenant_id, task.user_id, task.chat_id) if one in told]
    assert prompt.metadata["request_type"] == task.system_task_type
    return (prompt.user, prompt.metadata) == (wanted.user, wanted.metadata)


def test_the_provider_is_told_for_whom_a_summary_is_made(store: Store) -> None:
    chat_id, model = a_long_chat(), Model()
    (task,) = tasks(store, chat_id)
    assert asyncio.run(thread_summary.summarize(task, TRACE, means(model, with_a_secret(RULES)))) is TaskOutcome.DONE
    assert tells_who_asks(model, task)


def stored(chat_id: ChatId) -> Summary | None:
    return summaries.read(TENANT, chat_id).summary


def said(chat_id: ChatId) -> list[str]:
    return [message.content for message in messages.recent(TENANT, chat_id, 100, at_most_bytes=10**6).messages]


class Silent(Model):
    """A provider that begins to answer and never goes on; `left` once nobody waits for it any more."""

    left = False

    async def stream(self, tenant_id: str, provider_id: str, prompt: Prompt) -> AsyncGenerator[ProviderChunk, None]:
        try:
            await asyncio.to_thread(self._meanwhile)
            yield TextDelta("<summary>They")
            await asyncio.Event().wait()
        finally:
            self.left = True


@pytest.mark.parametrize("outcome", [TaskOutcome.GONE, TaskOutcome.LOST])
def test_a_model_is_not_waited_for_once_nobody_wants_its_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, outcome: TaskOutcome
) -> None:
    monkeypatch.setattr(thread_summary, "LOOK_SECONDS", 0.01)
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)

    def meanwhile() -> None:
        if outcome is TaskOutcome.GONE:
            chats.delete(a_call(), chat_id)
        else:
            assert summarized(task) is TaskOutcome.DONE

    model = Silent(meanwhile=meanwhile)
    # A task that waited to the end of its time would have failed.
    assert asyncio.run(thread_summary.summarize(task, "", means(model, seconds=600))) is outcome
    assert model.left


def test_a_chat_that_outgrew_a_prompt_gets_a_summary_that_leaves_the_last_turns_out(store: Store) -> None:
    chat_id = a_long_chat(5)
    assert tasks(store, chat_id) == []
    sixth = a_turn(chat_id, "question 6")
    (task,) = tasks(store, chat_id)
    assert (task.base_frontier, task.user_id) == (None, a_caller().user_id)
    assert sixth.admission.assembly.summary is None

    model = Model()
    assert summarized(task, model) is TaskOutcome.DONE

    assert [f"question {n}" in model.asked for n in range(1, 7)] == [True] * 4 + [False] * 2
    found = stored(chat_id)
    assert found is not None
    assert (found.text, found.frontier.message_id) == ("They talked.", task.frozen_target.message_id)
    seventh = a_turn(chat_id, "question 7")
    assembly = seventh.admission.assembly
    assert assembly.summary == found
    assert [m.content for m in assembly.history] == said(chat_id)[8:12]
    assert seventh.turn.summary_tokens == found.token_estimate == 3
    # Messages are never changed by it.
    assert len(said(chat_id)) == 14
    assert chats.get(a_call(), chat_id).message_count == 14


def test_the_next_summary_is_made_of_the_one_before_and_what_came_since(store: Store) -> None:
    chat_id = a_long_chat()
    summarized(tasks(store, chat_id)[0])
    for number in range(7, 11):
        a_turn(chat_id, f"question {number}")
    first, second = tasks(store, chat_id)
    assert second.base_frontier == first.frozen_target

    model = Model("<summary>They talked on.</summary>")
    assert summarized(second, model) is TaskOutcome.DONE

    assert "They talked." in model.asked
    assert [f"question {n}\n" in model.asked for n in range(1, 11)] == [False] * 4 + [True] * 4 + [False] * 2
    found = stored(chat_id)
    assert found is not None
    assert found.text == "They talked on."


def test_a_task_leaves_only_with_a_completed_turn(store: Store) -> None:
    chat_id = a_long_chat(5)
    for state in (TurnState.CANCELLED, TurnState.FAILED):
        a_turn(chat_id, "does not complete", state=state)
    assert tasks(store, chat_id) == []
    off = Rules(Settings(thread_summary=ThreadSummary(enabled=False)), RULES.policy)
    a_turn(chat_id, "switched off", off)
    assert tasks(store, chat_id) == []
    a_turn(chat_id, "completes")
    assert len(tasks(store, chat_id)) == 1


def test_a_trigger_is_counted_by_its_result(store: Store) -> None:
    event = begin()
    a_long_chat()
    counted = [one.dimensions for one in event.measurements if one.name == "thread_summary_trigger_total"]
    assert counted == [(("result", "not_needed"),)] * 5 + [(("result", "scheduled"),)]


def test_what_a_summary_used_is_metered_without_user_and_turn(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    summarized(task)
    ((dedupe_key, event),) = usage_events(store)
    ids = (TENANT.replace("-", ""), "thread_summary_update", task.system_request_id.replace("-", ""))
    assert dedupe_key == "/".join(ids)
    assert (event.user_id, event.turn_id, event.requester_type) == (None, None, "system")
    assert (event.billing_outcome, event.committed_credits_micro) == ("system_task", 0)
    assert event.usage is not None
    assert (event.usage.input_tokens, event.usage.output_tokens) == (100, 20)

    for item in Tables.of(store).outbox:
        if item["queue"] == "usage":
            one = UsageEvent.model_validate_json(item["payload"])
            assert usage_ledger.book(one, item["sk"], retention_days=400)
            assert not usage_ledger.book(one, item["sk"], retention_days=400)
    day = event.timestamp.date().isoformat()
    totals = {total.user_id: total.used for total in usage_ledger.totals(TENANT, day, day)}
    assert (totals[None].turns, totals[a_caller().user_id].turns) == (6, 6)
    assert totals[None].input_tokens == totals[a_caller().user_id].input_tokens + 100
    assert reconcile_usage.prove(a_call().now, TENANT).mismatches == []
    assert reconcile_quota.reconcile(TENANT).differences == []
    assert violations(Tables.of(store)) == []


def test_of_two_at_once_one_wins_and_both_succeed(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    both_asked = threading.Barrier(2, timeout=PATIENCE)
    model = Model("<summary>One.</summary>", "<summary>Other.</summary>", meanwhile=both_asked.wait)
    outcomes: list[TaskOutcome] = []
    runs = [threading.Thread(target=lambda: outcomes.append(summarized(task, model))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
    assert sorted(outcomes) == [TaskOutcome.LOST, TaskOutcome.DONE]
    found = stored(chat_id)
    assert found is not None
    assert found.text in {"One.", "Other."}
    assert len(usage_events(store)) == 1


def test_what_comes_again_asks_nobody(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    summarized(task)
    before, model = Tables.of(store), Model()
    assert summarized(task, model) is TaskOutcome.LOST
    assert model.prompts == []
    assert Tables.of(store) == before


def test_of_two_tasks_with_the_same_base_the_second_is_lost(store: Store) -> None:
    chat_id = a_long_chat(7)
    first, second = tasks(store, chat_id)
    assert summarized(second) is TaskOutcome.DONE
    model = Model()
    assert summarized(first, model) is TaskOutcome.LOST
    assert model.prompts == []
    found = stored(chat_id)
    assert found is not None
    assert found.frontier.message_id == second.frozen_target.message_id


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_the_write_leaves_the_summary_whole_or_absent(store: Store, moment: Any) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    with killed(moment, "TransactWriteItems"), pytest.raises(Killed):
        summarized(task)
    assert (stored(chat_id) is None) == (moment == "before")
    assert summarized(task) is (TaskOutcome.DONE if moment == "before" else TaskOutcome.LOST)
    assert len(usage_events(store)) == 1
    assert stored(chat_id) is not None


def test_a_write_whose_answer_was_lost_happened_once(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    with answers_lost("TransactWriteItems", 2):
        assert summarized(task) is TaskOutcome.DONE
    assert len(usage_events(store)) == 1


def test_a_turn_that_is_taken_back_while_it_is_summarized_is_in_no_summary(store: Store) -> None:
    chat_id = a_chat()
    turns = [a_turn(chat_id, f"question {number}") for number in range(1, 7)]
    (task,) = tasks(store, chat_id)

    def take_back() -> None:
        for turn in turns[:2:-1]:
            mutate.delete(a_call(), chat_id, turn.turn.request_id, RULES.settings)

    assert summarized(task, Model(meanwhile=take_back)) is TaskOutcome.LOST
    assert stored(chat_id) is None
    model = Model()
    assert summarized(task, model) is TaskOutcome.LOST
    assert model.prompts == []
    assert violations(Tables.of(store)) == []


def test_the_mutation_of_a_covered_turn_makes_the_summary_stale_and_the_next_one_starts_anew(store: Store) -> None:
    chat_id = a_chat()
    turns = [a_turn(chat_id, f"question {number}") for number in range(1, 7)]
    summarized(tasks(store, chat_id)[0])
    for turn in turns[:3:-1]:
        mutate.delete(a_call(), chat_id, turn.turn.request_id, RULES.settings)
    assert stored(chat_id) is not None
    # The fourth is covered: its retry must not see what it said before, nor any later turn.
    retried = mutate.retry(a_call(), chat_id, turns[3].turn.request_id, RequestId(str(uuid4())), RULES)
    assert stored(chat_id) is None
    assert retried.admission.assembly.summary is None
    assert [m.content for m in retried.admission.assembly.history] == said(chat_id)[:6]
    ended(retried)
    assert len(tasks(store, chat_id)) == 1

    for number in (5, 6):
        following = a_turn(chat_id, f"another question {number}")
        assert following.admission.assembly.summary is None
    task = tasks(store, chat_id)[-1]
    assert task.base_frontier is None
    model = Model("<summary>Anew.</summary>")
    assert summarized(task, model) is TaskOutcome.DONE
    assert "question 1" in model.asked
    assert "They talked." not in model.asked
    found = stored(chat_id)
    assert found is not None
    assert found.text == "Anew."
    assert violations(Tables.of(store)) == []


def test_the_mutation_of_a_turn_that_is_not_covered_leaves_the_summary(store: Store) -> None:
    chat_id = a_chat()
    turns = [a_turn(chat_id, f"question {number}") for number in range(1, 7)]
    summarized(tasks(store, chat_id)[0])
    edited = mutate.edit(
        a_call(), turns[5].turn.request_id, SendMessage(chat_id, "edited", RequestId(str(uuid4()))), RULES
    )
    ended(edited)
    mutate.delete(a_call(), chat_id, edited.turn.request_id, RULES.settings)
    assert edited.admission.assembly.summary == stored(chat_id) is not None


def test_a_mutation_that_met_a_new_summary_looks_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had seen no summary that covers its turn; there was one by the time of its transaction."""
    chat_id = a_chat()
    turns = [a_turn(chat_id, f"question {number}") for number in range(1, 7)]
    (task,) = tasks(store, chat_id)
    for turn in turns[:3:-1]:
        mutate.delete(a_call(), chat_id, turn.turn.request_id, RULES.settings)
    look = starting_point.look_at_latest

    def then_summarized(*about: Any) -> Any:
        found = look(*about)
        monkeypatch.setattr(starting_point, "look_at_latest", look)
        assert summarized(task) is TaskOutcome.DONE
        return found

    monkeypatch.setattr(starting_point, "look_at_latest", then_summarized)
    mutate.delete(a_call(), chat_id, turns[3].turn.request_id, RULES.settings)
    assert stored(chat_id) is None
    assert violations(Tables.of(store)) == []


def test_a_deleted_chat_gets_no_summary(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    assert summarized(task, Model(meanwhile=lambda: chats.delete(a_call(), chat_id))) is TaskOutcome.LOST
    model = Model()
    assert summarized(task, model) is TaskOutcome.GONE
    assert model.prompts == []
    assert usage_events(store) == []


def test_another_tenants_task_finds_nothing(store: Store) -> None:
    (task,) = tasks(store, a_long_chat())
    assert summarized(task.model_copy(update={"tenant_id": a_caller(tenant=9).tenant_id})) is TaskOutcome.GONE


@pytest.mark.parametrize("answer", ["", "<summary></summary>", "<summary>cut", Failed("provider_error", "status 500")])
def test_a_failure_keeps_the_summary_of_before(store: Store, answer: str | Failed) -> None:
    chat_id = a_long_chat()
    summarized(tasks(store, chat_id)[0])
    for number in range(7, 11):
        a_turn(chat_id, f"question {number}")
    before = Tables.of(store)
    with pytest.raises(TaskFailed):
        summarized(tasks(store, chat_id)[1], Model(answer))
    assert Tables.of(store) == before


def test_what_is_too_long_is_asked_again_without_the_oldest_twice_at_most(store: Store) -> None:
    chat_id = a_chat()
    for number in range(1, 8):
        a_turn(chat_id, f"question {number}")
    task = tasks(store, chat_id)[1]  # of five turns
    refusal = Failed("context_length_exceeded", "too much", Usage(0, 0))
    model = Model(refusal)
    with pytest.raises(TaskFailed, match="too long"):
        summarized(task, model)
    assert [prompt.messages[0].text.count("<message ") for prompt in model.prompts] == [10, 8, 6]

    model = Model(refusal, "<summary>Of what fits.</summary>")
    assert summarized(task, model) is TaskOutcome.DONE
    found = stored(chat_id)
    assert found is not None
    # What was left out is covered all the same.
    assert found.frontier.message_id == task.frozen_target.message_id


def test_a_backlog_beyond_the_window_is_cut_before_it_is_asked(store: Store) -> None:
    small = Rules(
        Settings(thread_summary=ThreadSummary(max_output_tokens=512)),
        a_policy(a_model(preference={"is_default": True}, context_window=8000)),
    )
    chat_id = a_chat()
    for number in range(1, 15):
        a_turn(chat_id, f"question {number} " + "x" * 3000)
    model = Model()
    assert summarized(tasks(store, chat_id)[-1], model, small) is TaskOutcome.DONE
    assert len(model.asked) / 4 < 8000
    assert "question 12 " in model.asked
    assert "question 1 " not in model.asked


def test_long_messages_are_cut_in_the_request_alone(store: Store) -> None:
    chat_id = a_chat()
    a_turn(chat_id, "y" * 20_000)
    for number in range(5):
        a_turn(chat_id, f"question {number}")
    model = Model()
    summarized(tasks(store, chat_id)[0], model)
    assert "y" * 4000 + "..." in model.asked
    assert "y" * 4001 not in model.asked
    assert said(chat_id)[0] == "y" * 20_000


def test_the_configured_model_summarizes_then_the_chats_then_the_default(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    big = a_model(id="big", provider_model_id="big-1", thread_summary_prompt="Be short.")
    small = a_model(preference={"is_default": True})
    configured = Rules(Settings(thread_summary=ThreadSummary(summary_model_id="big")), a_policy(small, big))
    model = Model("")
    for rules in (configured, Rules(Settings(), a_policy(small, big)), Rules(Settings(), a_policy(big))):
        with pytest.raises(TaskFailed):
            summarized(task, model, rules)
    assert [prompt.model for prompt in model.prompts] == ["big-1", "small-1", "big-1"]
    assert model.prompts[0].instructions == "Be short."
    with pytest.raises(NoModel):
        summarized(task, model, Rules(Settings(), a_policy(a_model(enabled=False))))


def test_a_model_that_falls_silent_is_a_failure(store: Store) -> None:
    (task,) = tasks(store, a_long_chat())
    silence = threading.Event()
    model = Model(meanwhile=lambda: silence.wait(PATIENCE))
    with pytest.raises(TaskFailed, match="in time"):
        asyncio.run(_released(thread_summary.summarize(task, "", means(model, seconds=0.1)), silence))


async def _released(work: Any, silence: threading.Event) -> TaskOutcome:
    try:
        outcome: TaskOutcome = await work
        return outcome
    finally:
        silence.set()


def test_a_range_that_has_nothing_visible_is_done(store: Store) -> None:
    chat_id = a_long_chat()
    (task,) = tasks(store, chat_id)
    early = FrontierRef(created_at=NOW, message_id="00000000-0000-7000-8000-000000000000")
    assert summarized(task.model_copy(update={"frozen_target": early})) is TaskOutcome.NOTHING


def test_a_summary_costs_the_path_of_a_turn_no_round_trip(store: Store) -> None:
    chat_id = a_long_chat()
    summarized(tasks(store, chat_id)[0])
    with counted_calls() as calls, side_by_side({"BatchGetItem", "Query"}, 2):
        running = send(a_call(), SendMessage(chat_id, "next", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    assert running.admission.assembly.summary is not None
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]
    with counted_calls() as calls:
        ended(running)
    assert calls == ["TransactWriteItems"]


def test_the_payload_is_read_as_it_was_written(store: Store) -> None:
    chat_id = a_long_chat()
    summarized(tasks(store, chat_id)[0])
    for number in range(7, 11):
        a_turn(chat_id, f"question {number}")
    for task in tasks(store, chat_id):
        assert ThreadSummaryTask.model_validate_json(task.payload()) == task
        assert json.loads(task.payload())["system_task_type"] == "thread_summary_update"
