"""The door for OpenAI's clients: what is asked, in the product's words; what is told, in OpenAI's."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

from minichat.domain.answer_end import COMPLETE, LENGTH, CompletionSignal
from minichat.domain.citations import Citation
from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import AttachmentId, Call, Caller, TenantId, UserId
from minichat.domain.message import fingerprint
from minichat.domain.stream import Citations, Delta, Done, Error, Ping, Started, StreamEvent, Tool, told
from minichat.domain.usage import Usage
from minichat.http.openai import completions_request, error_shape, ids, responses_request
from minichat.http.openai.completion_chunks import CompletionChunks
from minichat.http.openai.parameters import OF_COMPLETIONS, OF_RESPONSES, check_sampling
from minichat.http.openai.response_events import ResponseEvents, response_of, usage_of
from minichat.services.channel import PING, Numbered
from tests.support.domain.builders import NOW, a_caller, a_model, a_turn, an_id, new_id

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WORDS = ("One ", "two ", "three.")
USAGE = Usage(100, 20, 30, 10, 5)
WHOLE: tuple[StreamEvent, ...] = (
    Started(an_id(2), an_id(3), is_new_turn=True),
    Ping(),
    Tool("start", "web_search"),
    Tool("done", "web_search", {"query": "numbers"}),
    *map(Delta, WORDS),
    Citations((Citation("web", "https://example.com/a", "A", span=(0, 3)), Citation("file", an_id(7), "a.txt"))),
    Done(COMPLETE, USAGE, "m", "m", "allow"),
)


def numbered(*events: StreamEvent) -> list[Numbered]:
    number = iter(range(1, 1000))
    return [PING if isinstance(one, Ping) else Numbered(next(number), told(one)) for one in events]


def translated(*events: Numbered) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    into = ResponseEvents(response_of(a_turn(a_caller()), is_temporary=False))
    return [one for event in events for one in into.of(event)], into.response


def refusal(read: Any, body: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    (error,) = refused.value.errors
    assert error.message
    return error.field, error.code


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


RESPONSES = responses_request.read, {"input": "Hello"}, ResponseCreateParamsStreaming, OF_RESPONSES
COMPLETIONS = (
    completions_request.read,
    {"model": "m", "messages": [user("Hello")]},
    CompletionCreateParamsStreaming,
    OF_COMPLETIONS,
)


@pytest.mark.parametrize(("read", "body", "declared", "refused"), [RESPONSES, COMPLETIONS], ids=["responses", "chat"])
def test_every_parameter_that_the_official_client_has_is_taken_or_refused_by_its_name(
    read: Any, body: Any, declared: Any, refused: dict[str, str]
) -> None:
    names = set(declared.__annotations__)
    honoured = responses_request.HONOURED if read is responses_request.read else completions_request.HONOURED
    assert names <= honoured | set(refused)
    for name in refused.keys() - honoured:
        assert refusal(read, body | {name: "no such value"}) == (name, "unsupported_parameter"), name
        read(body | {name: None})
    assert refusal(read, body | {"no_such": 1}) == ("no_such", "unknown_parameter")


def test_the_page_says_of_every_parameter_whether_it_is_honoured() -> None:
    page = PAGE.read_text()
    for heading, honoured, refused in (
        ("### Responses", responses_request.HONOURED, OF_RESPONSES),
        ("### Chat Completions", completions_request.HONOURED, OF_COMPLETIONS),
    ):
        table = page.split(heading)[1].split("\n## ")[0].split("\n### ")[0]
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\S+)", table, re.MULTILINE)
        said = {name: word for names, word in rows for name in re.findall(r"`(\w+)`", names)}
        assert said.keys() == honoured | refused.keys()
        assert {name for name, word in said.items() if word != "refused"} == set(honoured)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], "body"),
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": [], "role": "user"}]}, "input[0]"),
        ({"input": "a", "truncation": {}}, "truncation"),
        ({"input": "a", "tools": [{"type": {}}]}, "tools[0]"),
        ({"input": "a", "service_tier": {}}, "service_tier"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [user("a") | {"role": "tool"}]}, "input[0].role"),
        ({"input": [user("a") | {"role": []}]}, "input[0].role"),
        ({"input": [user([{"type": "input_audio"}])]}, "input[0].content[0]"),
        ({"input": [user([{"type": []}])]}, "input[0].content[0]"),
        ({"input": [user([{"type": "input_image", "file_id": an_id(1)}])]}, "input[0].content[0]"),
        ({"input": [user("a") | {"name": "Ann"}]}, "input[0].name"),
        ({"input": [{"role": "assistant", "content": "a"}]}, "input"),
        ({"input": [user("a"), user("b")], "store": True}, "store"),
        ({"input": [user("a"), user("b")], "previous_response_id": "resp_1"}, "input"),
        ({"input": "a", "store": "yes"}, "store"),
        ({"input": "a", "store": False, "background": True}, "background"),
        ({"input": "a", "store": False, "conversation": "conv_1"}, "store"),
        ({"input": "a", "conversation": "conv_1", "previous_response_id": "resp_1"}, "conversation"),
        ({"input": "a", "conversation": {"id": 5}}, "conversation"),
        ({"input": "a", "truncation": "disabled"}, "truncation"),
        ({"input": "a", "max_output_tokens": 15}, "max_output_tokens"),
        ({"input": "a", "max_output_tokens": True}, "max_output_tokens"),
        ({"input": "a", "max_output_tokens": 20.5}, "max_output_tokens"),
        ({"input": "a", "tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "tools[0]"),
        ({"input": "a", "tools": [{"type": "web_search", "user_location": {"city": "X"}}]}, "tools[0].user_location"),
        ({"input": "a", "tools": "all"}, "tools"),
        ({"input": "a", "tools": [5]}, "tools[0]"),
        ({"input": "a", "reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"input": "a", "reasoning": 5}, "reasoning"),
        ({"input": "a", "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
)
def test_what_a_response_cannot_be_is_refused_by_name(body: Any, param: str) -> None:
    assert refusal(responses_request.read, body)[0] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [user("a")]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"model": "m", "messages": [user("a"), {"role": "assistant", "content": "b"}]}, "messages"),
        ({"model": "m", "messages": [user([{"type": "image_url"}])]}, "messages[0].content[0]"),
        ({"model": "m", "messages": [user("a") | {"tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"model": "m", "messages": [user("a") | {"name": "Ann"}]}, "messages[0].name"),
        ({"model": "m", "messages": [user("a")], "max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"model": "m", "messages": [user("a")], "stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": "m", "messages": [user("a")], "web_search_options": {"search_context_size": "low"}},
         "web_search_options.search_context_size"),
        ({"model": "m", "messages": [user("a")], "store": True}, "store"),
        ({"model": "m", "messages": [user("a")], "n": 2}, "n"),
        ({"model": "m", "messages": [user("a")], "n": True}, "n"),
    ],
)  # fmt: skip
def test_what_a_chat_completion_cannot_be_is_refused_by_name(body: Any, param: str) -> None:
    assert refusal(completions_request.read, body)[0] == param


def test_a_whole_conversation_becomes_instructions_history_and_a_message() -> None:
    answer = {"type": "output_text", "text": "B", "annotations": []}
    talk = [
        {"role": "developer", "content": "Be brief."},
        user("A"),
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [answer]},
        user([{"type": "input_text", "text": "C"}, {"type": "input_text", "text": "D"}]),
    ]
    asked = responses_request.read({"instructions": "Be kind.", "input": talk, "max_output_tokens": 100})
    assert (asked.content, asked.aside.instructions) == ("C\nD", "Be kind.\n\nBe brief.")
    assert [(one.role, one.content) for one in asked.aside.history] == [("user", "A"), ("assistant", "B")]
    assert (asked.is_temporary, asked.aside.whole, asked.aside.max_output_tokens) == (True, True, 100)
    said = [{"role": "system", "content": "Be brief."}, user("A"), {"role": "assistant", "content": "B"}, user("C")]
    asked = completions_request.read({"model": "m", "messages": said, "max_tokens": 1})
    assert (asked.content, asked.aside.instructions) == ("C", "Be brief.")
    assert (len(asked.aside.history), asked.is_temporary, asked.aside.max_output_tokens) == (2, True, 1)


def test_one_message_makes_a_chat_that_stays_unless_it_says_otherwise() -> None:
    assert not responses_request.read({"input": "a"}).is_temporary
    assert responses_request.read({"input": "a", "store": False}).is_temporary
    assert responses_request.read({"input": "a", "store": False, "truncation": "disabled"}).is_temporary


def test_files_are_named_by_the_ids_of_attachments() -> None:
    content = [{"type": "input_text", "text": "a"}, {"type": "input_file", "file_id": an_id(5)}]
    asked = responses_request.read({"conversation": "conv_1", "input": [user(content)]})
    assert (asked.content, asked.attachment_ids) == ("a", (AttachmentId(an_id(5)),))


def test_sampling_is_taken_where_it_is_the_policys_own() -> None:
    params = {"general_config": {"api_params": {"temperature": 0.2, "reasoning_effort": "low"}}}
    model = a_model(**params)
    check_sampling({"temperature": 0.2, "top_p": 1, "presence_penalty": 0.0, "reasoning_effort": "low"}, model)
    for wrong in ({"temperature": 1}, {"top_p": 0.5}, {"reasoning_effort": "high"}, {"temperature": True}):
        with pytest.raises(InvalidRequest):
            check_sampling(wrong, model)


def test_ids_lead_back_to_the_turn_and_are_its_callers_own() -> None:
    chat_id, request_id = an_id(1), an_id(2)
    assert ids.turn_of(ids.response_id(chat_id, request_id)) == (chat_id, request_id)
    assert ids.chat_of(ids.conversation_id(chat_id)) == ids.chat_of(chat_id) == chat_id
    for nonsense in ("", "resp_", "resp_" + "0" * 63, "resp_" + "0" * 65, f"resp_{'0' * 64}\n", "conv_x"):
        assert ids.turn_of(nonsense) is None
        assert ids.chat_of(nonsense) is None
    ann, bob, other = (
        Call(Caller(TenantId(tenant), UserId(name)), NOW, new_id)
        for tenant, name in (("acme", "ann"), ("acme", "bob"), ("acme/ann", ""))
    )
    made = [ids.new_chat_id(call, "key") for call in (ann, ann, bob, other)]
    assert (made[0] == made[1], len(set(made))) == (True, 3)
    assert UUID(made[0])
    assert ids.new_chat_id(ann, None) != ids.new_chat_id(ann, None)


def test_a_fingerprint_tells_what_came_with_the_message() -> None:
    plain = completions_request.read(COMPLETIONS[1]).aside
    before = {"model": "m", "messages": [user("Hi"), {"role": "assistant", "content": "Yes?"}, user("Hello")]}
    asides = [plain, completions_request.read(before).aside, replace(plain, instructions="Be kind.")]
    asides += [replace(plain, max_output_tokens=5)]
    assert len({fingerprint("Hello", (), one) for one in asides} | {fingerprint("Hello", ())}) == 4


def test_a_stream_is_told_as_the_official_types_have_it_without_a_gap() -> None:
    events, response = translated(*numbered(*WHOLE))
    for event in events:
        EVENT.validate_python(event, strict=True)
    Response.model_validate(response)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "web_search_call.in_progress", "web_search_call.searching"),
        *("web_search_call.completed", "output_item.done", "output_item.added", "content_part.added"),
        *["output_text.delta"] * 3,
        *["output_text.annotation.added"] * 2,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert events[-1]["response"] == response
    search, message = response["output"]
    assert search["action"] == {"type": "search", "query": "numbers", "queries": ["numbers"]}
    assert message["content"][0]["text"] == "One two three."
    assert [one["type"] for one in message["content"][0]["annotations"]] == ["url_citation", "file_citation"]
    assert (response["status"], response["usage"]["total_tokens"]) == ("completed", 120)


@pytest.mark.parametrize(
    ("end", "kind", "status", "said"),
    [
        (Done(LENGTH, Usage(), "m", "m", "allow"), "incomplete", "incomplete", {"reason": "max_output_tokens"}),
        (Done(CompletionSignal("refusal", "content_filter"), USAGE, "m", "m", "allow"), "incomplete", "incomplete",
         {"reason": "content_filter"}),
        (Done(CompletionSignal("refusal"), USAGE, "m", "m", "allow"), "completed", "completed", None),
        (Error("cancelled", "It was."), "incomplete", "cancelled", None),
        (Error("provider_timeout", "Too long."), "failed", "failed", None),
    ],
)  # fmt: skip
def test_every_end_has_its_event_and_its_status(end: StreamEvent, kind: str, status: str, said: Any) -> None:
    started = Started(an_id(2), an_id(3), is_new_turn=True)
    events, response = translated(*numbered(started, Tool("start", "file_search"), Delta("So"), end))
    for event in events:
        EVENT.validate_python(event)
    assert (events[-1]["type"], response["status"], response["incomplete_details"]) == (
        f"response.{kind}",
        status,
        said,
    )
    assert (response["error"] is None) == (kind != "failed")
    assert [item["status"] for item in response["output"]] == [
        "incomplete",
        "completed" if kind == "completed" else "incomplete",
    ]


def test_numbers_leave_room_for_what_is_not_told() -> None:
    """No number names two events: not where a process died, nor where one delta stands for many."""
    lost = [*numbered(*WHOLE[:1]), Numbered(1_000_002, told(Error("internal_error", "It ended.")))]
    numbers = [event["sequence_number"] for event in translated(*lost)[0]]
    assert (numbers[:2], numbers[2] > 1_000_000) == ([0, 1], True)
    uncut = translated(*numbered(*WHOLE))[0]
    merged = [*numbered(*WHOLE[:1]), Numbered(6, told(Delta("One two three.")))]
    later = [event["sequence_number"] for event in translated(*merged)[0]][2:]
    told_by_then = [event["sequence_number"] for event in uncut if event["type"] == "response.output_text.delta"]
    assert min(later) > max(told_by_then)


def test_a_completion_is_told_as_the_official_types_have_it() -> None:
    into = CompletionChunks(a_turn(a_caller()), include_usage=True)
    chunks = [chunk for one in numbered(*WHOLE) for chunk in into.of(one)]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks[:-1]) == "One two three."
    assert (chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["choices"]) == ("stop", [])
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 30
    whole = ChatCompletion.model_validate(into.completion, strict=True)
    assert (whole.choices[0].message.content, whole.usage and whole.usage.total_tokens) == ("One two three.", 120)
    failing = CompletionChunks(a_turn(a_caller()), include_usage=False)
    told_of_it = [failing.of(one) for one in numbered(*WHOLE[:1], Error("rate_limited", "Too many."))]
    assert told_of_it[-1][0]["error"]["code"] == "rate_limit_exceeded"
    assert (failing.is_over, failing.failed) == (True, ("rate_limited", "Too many."))


def test_tokens_that_nobody_counted_apart_are_none_in_openais_shape() -> None:
    assert usage_of(None) is None
    assert usage_of({"input_tokens": 3, "output_tokens": 2}) == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }


def test_problems_have_openais_shape_and_keep_what_else_they_say() -> None:
    used_up = error_shape.of_problem(429, "quota_exceeded", "Used up.", {"quota_scope": "tokens"})
    assert (used_up.status_code, json.loads(bytes(used_up.body))["error"]) == (
        429,
        {
            "message": "Used up.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
            "quota_scope": "tokens",
        },
    )
    too_long = error_shape.of_problem(422, "context_budget_exceeded", "Too long.", {})
    assert too_long.status_code == 400
