"""How an answer ended is told alike everywhere: in its stream, told again, of its turn and message, to consumers."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from starlette.requests import Request

from minichat.domain import answer_end
from minichat.domain.answer_end import DECLINED, CompletionSignal
from minichat.domain.citations import Citation, Cited
from minichat.domain.identity import RequestId
from minichat.domain.message import Message
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.http.response_models import message_view, turn_status
from minichat.observability import begin, emit
from minichat.providers.chunks import Completed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.services import chats
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.stream_resume import follow, replay
from minichat.settings import Store
from minichat.storage import messages
from tests.integration.test_generate import A_PAGE, Scripted, a_running_turn, begun, some_rules, stored, told
from tests.integration.test_metrics import of, written
from tests.support.domain.builders import a_call
from tests.support.services.events import each
from tests.support.storage.invariants import Tables, violations

pytestmark = pytest.mark.usefixtures("store")

WHOLE = Completed(Usage(10, 2), "resp_1")


def cut(signal: CompletionSignal) -> Incomplete:
    return Incomplete(signal, Usage(10, 2), "resp_1")


def answer_of(running: RunningTurn) -> Message:
    turn = running.turn
    found = messages.read(turn.tenant_id, turn.chat_id, turn.assistant_message_id)
    assert found is not None
    return found


async def told_again(running: RunningTurn, rules: Rules, *, later: timedelta = timedelta(0)) -> list[Any]:
    call = replace(a_call(), now=a_call().now + later)
    found = replay(call, stored(running), rules.settings)
    return [one.event async for one in each(follow(call, found, rules.settings, lambda: call.now))]


def events_of(store: Store, queue: str) -> list[dict[str, Any]]:
    return [json.loads(item["payload"]) for item in Tables.of(store).outbox if item["queue"] == queue]


@pytest.mark.parametrize(
    ("text", "last", "signal"),
    [
        ("All of it.", WHOLE, {"kind": "complete"}),
        ("Half of", cut(answer_end.LENGTH), {"kind": "incomplete", "reason": "length"}),
        ("Half of", cut(answer_end.FILTERED), {"kind": "incomplete", "reason": "content_filter"}),
        ("", cut(answer_end.FILTERED), {"kind": "refusal", "reason": "content_filter"}),
        ("Half of", cut(answer_end.PAUSED), {"kind": "incomplete", "reason": "pause"}),
        ("Half of", cut(answer_end.CUT), {"kind": "incomplete", "reason": "other"}),
        ("I will not.", cut(answer_end.REFUSED), {"kind": "refusal"}),
        (" \n", cut(answer_end.REFUSED), {"kind": "refusal"}),
        ("Blocked.", cut(answer_end.REFUSED_BY_FILTER), {"kind": "refusal", "reason": "content_filter"}),
    ],
)
@pytest.mark.holds("contract.cut", "turns.finalize", "turns.replay-nothing")
async def test_whether_an_answer_is_whole_is_said_wherever_it_is_told(
    store: Store, text: str, last: ProviderChunk, signal: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        if text:
            yield TextDelta(text)
        yield last

    rules = some_rules()
    running = a_running_turn(rules)
    begin()
    events = await told(begun(Scripted(script), rules, running))
    emit(rules.settings.metrics_namespace)
    done = events[-1]
    assert (done.name, done.data["completion_signal"]) == ("done", signal)
    said = "".join(event.data["content"] for event in events if event.name == "delta")
    assert said == (text if text.strip() else text + DECLINED)
    assert answer_of(running).content == said

    status = turn_status(stored(running)).model_dump(mode="json")
    shown = message_view(answer_of(running), {}).model_dump(mode="json")
    assert (status["state"], status["completion_signal"], shown["completion_signal"]) == ("done", signal, signal)
    without_warnings = {name: value for name, value in done.data.items() if name != "quota_warnings"}
    before = Tables.of(store)
    for later in (timedelta(0), timedelta(days=2)):
        again = await told_again(running, rules, later=later)
        assert again[-1].data == without_warnings
        assert "".join(event.data["content"] for event in again if event.name == "delta") == said
    assert Tables.of(store) == before
    (usage,), (audit,) = events_of(store, "usage"), events_of(store, "audit")
    assert (usage["completion_signal"], audit["completion_signal"]) == (signal, signal)
    is_whole = signal["kind"] == "complete"
    counted = {} if is_whole else {("small", "openai", signal.get("reason", "refusal")): 1}
    assert of(written(capsys), "stream_incomplete_total") == counted
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("contract.reload")
async def test_a_page_that_reloads_needs_nothing_but_the_messages() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield ToolActivity("file_search", "start")
        yield ToolActivity("file_search", "done")
        yield TextDelta("Paris")
        yield Completed(Usage(10, 0), "resp_1", (A_PAGE, Cited("web", "https://example.com/b")))

    rules = some_rules()
    running = a_running_turn(rules)
    reserve = replace(
        running.turn.reserve,
        selected_model="large",
        effective_model="small",
        decision="downgrade",
        downgrade_reason="premium_quota_exhausted",
        file_search_calls=1,
    )
    running = replace(running, turn=replace(running.turn, reserve=reserve))
    events = await told(begun(Scripted(script), rules, running))
    citations, done = events[-2].data, events[-1].data
    shown = message_view(answer_of(running), {}).model_dump(mode="json")
    status = turn_status(stored(running), messages.cited(stored(running))).model_dump(mode="json")
    models = ("effective_model", "selected_model", "quota_decision", "downgrade_from", "downgrade_reason")
    assert {name: shown[name] for name in models} == {name: done[name] for name in models}
    assert done["downgrade_from"] == "large"
    assert (shown["model"], shown["input_tokens"], shown["output_tokens"]) == ("small", 10, 0)
    for view in (shown, status):
        assert view["tool_calls"] == {"file_search": 1, "web_search": 0, "code_interpreter": 0}
        assert view["citations"] == citations["items"]
        assert view["completion_signal"] == done["completion_signal"]
    assert status["usage"] == done["usage"] == {"input_tokens": 10, "output_tokens": 0, "model": "small"}


@pytest.mark.holds("contract.done-says")
async def test_usage_that_nobody_told_is_null_and_not_zero(store: Store) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("Paris")
        yield Completed(Usage())

    rules = some_rules()
    running = a_running_turn(rules)
    done = (await told(begun(Scripted(script), rules, running)))[-1]
    _is_unknown(store, running, done.data["usage"])
    assert (await told_again(running, rules))[-1].data["usage"] is None


@pytest.mark.parametrize("state", [TurnState.CANCELLED, TurnState.FAILED])
@pytest.mark.holds("turns.unknown-usage")
def test_usage_of_what_was_broken_off_is_null_and_not_zero(store: Store, state: TurnState) -> None:
    rules = some_rules()
    running = a_running_turn(rules)
    code = "orphan_timeout" if state is TurnState.FAILED else None
    assert finalize(a_call(), running.turn, Ending(state, code, text="Pari"), rules.settings)
    _is_unknown(store, running, None)
    reason = "interrupted" if state is TurnState.FAILED else "cancelled"
    signal = {"kind": "incomplete", "reason": reason}
    assert message_view(answer_of(running), {}).model_dump(mode="json")["completion_signal"] == signal
    assert turn_status(stored(running)).model_dump(mode="json")["completion_signal"] == signal


def _is_unknown(store: Store, running: RunningTurn, told_usage: object) -> None:
    assert told_usage is None
    shown = message_view(answer_of(running), {}).model_dump(mode="json")
    assert {"input_tokens", "output_tokens"}.isdisjoint(shown)
    assert turn_status(stored(running)).model_dump(mode="json")["usage"] is None
    for queue in ("usage", "audit"):
        assert [event.get("usage") for event in events_of(store, queue)] == [None]


@pytest.mark.holds("contract.reload-running")
def test_a_turn_that_runs_says_which_model_makes_its_answer_and_nothing_of_the_answer() -> None:
    running = a_running_turn(some_rules())
    shown = turn_status(stored(running)).model_dump(mode="json")
    assert (shown["state"], shown["usage"], shown["effective_model"]) == ("running", None, "small")
    assert {"completion_signal", "citations", "tool_calls"}.isdisjoint(shown)


@pytest.mark.parametrize("select", [None, "id,citations"])
def test_a_page_is_bounded_by_what_its_messages_cite_too(store: Store, select: str | None) -> None:
    rules = some_rules()
    chat_id = chats.create(a_call(), chats.NewChat(), rules).chat_id
    # In JSON within JSON a control character has seven bytes: the longest that a citation can be.
    heavy = tuple(Citation("web", f"https://example.com/{number}", "A title", "\x01" * 500) for number in range(50))
    for _ in range(20):
        running = send(a_call(), SendMessage(chat_id, "hi", RequestId(str(uuid4()))), rules)
        assert isinstance(running, RunningTurn)
        ending = Ending(TurnState.COMPLETED, text="x", citations=heavy, usage=Usage(1, 1))
        assert finalize(a_call(), running.turn, ending, rules.settings)
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        said = {} if select is None else {"$select": select}
        request = Request({"type": "http", "query_string": urlencode(said).encode(), "headers": []})
        query = listing.Query.of(request, 100, cursor, select=select, orderby=None, filter_=None)
        page = listing.messages(a_call(), CursorCodec("of this test"), chat_id, query)
        assert len(json.dumps(json.dumps(page, ensure_ascii=False), ensure_ascii=False).encode()) < 6_291_556
        assert page["items"]
        seen += [message["id"] for message in page["items"]]
        cursor = page["page_info"]["next_cursor"]
    assert len(seen) == len(set(seen)) == 40
