"""The Responses API: what is asked, what each wire event means, and what of a provider's words reaches a log."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.answer_end import CUT, LENGTH
from minichat.domain.policy import MAX_TOKENS
from minichat.domain.tool_details import ToolDetails
from minichat.domain.usage import Usage
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity, ToolName
from minichat.providers.diagnostics import MAX_CHARACTERS, redact_diagnostic
from minichat.providers.openai_responses import body, reader
from minichat.providers.prompt import Prompt, PromptMessage

USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 17,
}
TOLD = Usage(input_tokens=12, output_tokens=5, cache_read_input_tokens=3, reasoning_tokens=2)


def a_prompt(**said: Any) -> Prompt:
    messages = (PromptMessage("user", "hi"), PromptMessage("assistant", "hello"), PromptMessage("user", "how?"))
    values: dict[str, Any] = {"model": "small-1", "instructions": "", "messages": messages, "max_output_tokens": 64}
    return Prompt(**(values | said))


def chunk_of(name: str, data: str) -> ProviderChunk | None:
    """What one event says, or None when it says nothing to us."""
    named = f"event: {name}\n" if name else ""
    return next(reader().feed(f"{named}data: {data}\n\n".encode()), None)


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def told(name: str, **data: Any) -> ProviderChunk | None:
    return chunk_of(name, json.dumps({"type": name, **data}))


def failure(name: str, **data: Any) -> Failed:
    chunk = told(name, **data)
    assert isinstance(chunk, Failed)
    return chunk


def test_the_least_request_is_a_stream_that_nobody_stores() -> None:
    assert body(a_prompt()) == {
        "model": "small-1",
        "stream": True,
        "store": False,
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "how?"}]},
        ],
        "max_output_tokens": 64,
    }


def test_everything_a_prompt_can_say_is_in_the_request() -> None:
    sampling = {"temperature": 0.7, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.0, "stop": ["END"]}
    prompt = a_prompt(
        instructions="Be brief.",
        max_tool_calls=2,
        web_search_context_size="low",
        api_params={**sampling, "reasoning_effort": "high", "extra_body": {"service_tier": "flex"}},
        user="u",
        metadata={"chat": "c"},
    )
    assert body(prompt) == body(a_prompt()) | sampling | {
        "instructions": "Be brief.",
        "max_tool_calls": 2,
        "tools": [{"type": "web_search", "search_context_size": "low"}],
        "reasoning": {"effort": "high"},
        "service_tier": "flex",
        "user": "u",
        "metadata": {"chat": "c"},
    }


def test_files_are_searched_computed_with_and_shown() -> None:
    messages = (
        PromptMessage("user", "before"),
        PromptMessage("assistant", "well"),
        PromptMessage("user", "what is this?", ("file-1", "file-2")),
    )
    prompt = a_prompt(
        messages=messages,
        vector_stores=("vs_1",),
        max_num_results=5,
        web_search_context_size="low",
        code_files=("file-3", "file-4"),
    )
    asked = body(prompt)
    assert asked["tools"] == [
        {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 5},
        {"type": "web_search", "search_context_size": "low"},
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-3", "file-4"]}},
    ]
    assert [message["content"] for message in asked["input"]] == [
        [{"type": "input_text", "text": "before"}],
        [{"type": "output_text", "text": "well"}],
        [
            {"type": "input_text", "text": "what is this?"},
            {"type": "input_image", "file_id": "file-1", "detail": "auto"},
            {"type": "input_image", "file_id": "file-2", "detail": "auto"},
        ],
    ]


def test_parameters_without_a_value_are_not_sent() -> None:
    empty: dict[str, Any] = {"stop": [], "reasoning_effort": None, "extra_body": None, "temperature": None}
    assert body(a_prompt(api_params=empty)) == body(a_prompt())


def test_extra_body_cannot_lift_what_the_reserve_was_computed_from() -> None:
    extra = {"max_output_tokens": 999_999, "model": "dear", "stream": False, "store": True, "input": "x", "top_k": 1}
    assert body(a_prompt(api_params={"extra_body": extra})) == body(a_prompt()) | {"top_k": 1}


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("response.file_search_call.searching", ToolActivity("file_search", "start")),
        ("response.web_search_call.searching", ToolActivity("web_search", "start")),
        ("response.code_interpreter_call.in_progress", ToolActivity("code_interpreter", "start")),
        ("response.web_search_call.in_progress", None),
        ("response.code_interpreter_call.interpreting", None),
        ("response.created", None),
        ("response.output_text.done", None),
        ("response.invented_tomorrow", None),
    ],
)
def test_tools_are_told_and_the_rest_is_passed_over(name: str, chunk: ProviderChunk | None) -> None:
    assert told(name, item_id="ws_1", output_index=0) == chunk


SEARCH = {
    "type": "file_search_call",
    "id": "fs_1",
    "queries": ["moon"],
    "results": [{"file_id": "file-2", "text": "far"}, {"file_id": 7}, None, {"file_id": "file-1"}],
}
CODE = {
    "type": "code_interpreter_call",
    "id": "ci_1",
    "outputs": [{"type": "logs", "logs": "1"}, {"type": "image", "url": "https://x"}, {"type": "logs", "logs": "2"}],
}
ASKED = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "moon"}}


@pytest.mark.parametrize(
    ("item", "name", "details"),
    [
        (SEARCH, "file_search", ToolDetails(files=("file-2", "file-1"))),
        (SEARCH | {"results": None}, "file_search", ToolDetails()),
        (SEARCH | {"results": []}, "file_search", ToolDetails(files=())),
        (CODE, "code_interpreter", ToolDetails(output="1\n2")),
        (CODE | {"outputs": None}, "code_interpreter", ToolDetails()),
        (CODE | {"outputs": [{"type": "image"}]}, "code_interpreter", ToolDetails(output="")),
        (ASKED, "web_search", ToolDetails(query="moon")),
        (
            ASKED | {"action": {"type": "search", "queries": [1, "moon", "sun"]}},
            "web_search",
            ToolDetails(query="moon"),
        ),
        (ASKED | {"action": {"type": "open_page", "url": "https://x"}}, "web_search", ToolDetails()),
        (ASKED | {"action": "none"}, "web_search", ToolDetails()),
    ],
)
def test_a_tool_is_done_with_the_details_that_its_item_tells(
    item: dict[str, Any], name: ToolName, details: ToolDetails
) -> None:
    done = event(f"response.{name}_call.completed", item_id=item["id"])
    finished = event("response.output_item.done", item=item)
    text = event("response.output_text.delta", delta="a")
    with_details, without = ToolActivity(name, "done", details), ToolActivity(name, "done")
    assert list(reader().feed(done + finished + text)) == [with_details, TextDelta("a")]
    # Whoever does not tell them, or tells them of another call, does not keep the tool at work for ever.
    assert list(reader().feed(done + text + finished)) == [without, TextDelta("a")]
    other = event("response.output_item.done", item=item | {"id": "another"})
    assert list(reader().feed(done + other + text)) == [without, TextDelta("a")]
    assert list(reader().feed(event(f"response.{name}_call.completed"))) == [without]
    broken = b"event: response.output_item.done\ndata: {\n\n" + event("response.output_item.done", item=[])
    assert list(reader().feed(done + broken + text)) == [without, TextDelta("a")]
    whole = reader()
    assert list(whole.feed(json.dumps({"status": "completed", "output": [item]}).encode())) == []
    assert [*whole.ended()][:2] == [ToolActivity(name, "start"), with_details]


def test_details_are_asked_for_where_there_is_something_to_tell() -> None:
    assert "include" not in body(a_prompt(web_search_context_size="low"))
    assert body(a_prompt(vector_stores=("vs_1",)))["include"] == ["file_search_call.results"]
    both = body(a_prompt(vector_stores=("vs_1",), code_files=("file-1",)))
    assert both["include"] == ["file_search_call.results", "code_interpreter_call.outputs"]


def test_text_comes_through_as_it_is() -> None:
    assert told("response.output_text.delta", delta="ä\u2028 😀") == TextDelta("ä\u2028 😀")


def test_a_missing_event_name_is_read_from_the_data() -> None:
    raw = json.dumps({"type": "response.output_text.delta", "delta": "a"})
    assert chunk_of("", raw) == TextDelta("a")


def test_the_end_carries_usage_and_id() -> None:
    response = {"id": "resp_1", "usage": USAGE}
    assert told("response.completed", response=response) == Completed(TOLD, "resp_1")
    cut = response | {"incomplete_details": {"reason": "max_output_tokens"}}
    assert told("response.incomplete", response=cut) == Incomplete(LENGTH, TOLD, "resp_1")


def test_an_incomplete_answer_without_a_reason_still_ends() -> None:
    response = {"id": "resp_1", "incomplete_details": None, "usage": USAGE}
    assert told("response.incomplete", response=response) == Incomplete(CUT, TOLD, "resp_1")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        "many",
        [],
        {"input_tokens": None, "output_tokens": None},
        {"input_tokens": "12", "output_tokens": 5},
        {"input_tokens": -1, "output_tokens": 5},
        {"input_tokens": 1.5, "output_tokens": 5},
        {"input_tokens": True, "output_tokens": 5},
        {"input_tokens": MAX_TOKENS + 1, "output_tokens": 5},
    ],
)
def test_usage_that_is_missing_or_impossible_is_unknown_and_the_answer_still_counts(usage: object) -> None:
    assert told("response.completed", response={"id": "resp_1", "usage": usage}) == Completed(Usage(), "resp_1")


def test_missing_details_of_usage_are_zero() -> None:
    usage = {"input_tokens": 12, "output_tokens": 5, "input_tokens_details": None}
    assert told("response.completed", response={"usage": usage}) == Completed(Usage(12, 5))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("response.failed", {"response": {"error": {"code": "server_error", "message": "Broken."}}}),
        ("response.failed", {"error": {"code": "server_error", "message": "Broken."}}),
        ("response.failed", {"response": {"error": None}, "error": {"code": "server_error", "message": "Broken."}}),
        ("error", {"error": {"code": "server_error", "message": "Broken.", "param": None}}),
        ("error", {"code": "server_error", "message": "Broken.", "param": None}),
        ("error", {"error": None, "code": "server_error", "message": "Broken."}),
    ],
)
def test_a_failure_is_read_in_every_shape(name: str, data: dict[str, Any]) -> None:
    assert failure(name, **data) == Failed("provider_error", "server_error: Broken.", refused=True)


def test_null_in_a_failure_is_empty() -> None:
    assert failure("error", code=None, message="Broken.").diagnostic == ": Broken."
    null = {"error": {"code": "server_error", "message": None}}
    assert failure("response.failed", response=null).diagnostic == "server_error: "
    assert failure("response.failed", response=None).diagnostic == "response.failed: "


def test_a_failure_that_is_only_a_sentence_is_kept() -> None:
    assert failure("error", error="Broken.").diagnostic == ": Broken."


def test_a_failure_keeps_what_was_used_until_then() -> None:
    response = {"error": {"code": "server_error", "message": "Broken."}, "usage": USAGE}
    assert failure("response.failed", response=response).usage == TOLD


def test_a_rate_limit_within_the_stream_is_one() -> None:
    assert failure("error", code="rate_limit_exceeded", message="Slow down.").code == "rate_limited"


@pytest.mark.parametrize("name", ["response.output_text.delta", "response.completed", "response.incomplete"])
@pytest.mark.parametrize(
    "data", ["{not json", "null", "[]", "7", '"x"', "{}", '{"delta": 7, "response": 7}', "[" * 100_000]
)
def test_an_event_of_ours_that_cannot_be_read_is_a_failure(name: str, data: str) -> None:
    chunk = chunk_of(name, data)
    assert chunk == Failed("provider_error", f"unreadable event {name}")


def test_an_unreadable_event_of_another_kind_is_passed_over() -> None:
    assert chunk_of("keepalive", "not json") is None


@given(
    st.sampled_from(["", "error", "response.failed", "response.completed", "response.incomplete", "x"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "response", "error", "code", "message", "usage", "input_tokens", "id"]), inner
            )
        ),
    ),
)
def test_no_event_raises_and_no_id_or_usage_is_of_a_wrong_type(name: str, data: object) -> None:
    chunk = chunk_of(name, json.dumps(data))
    if isinstance(chunk, Completed | Incomplete):
        assert chunk.response_id is None or isinstance(chunk.response_id, str)
    if isinstance(chunk, Completed | Incomplete | Failed):
        assert all(type(tokens) is int for tokens in (chunk.usage.input_tokens, chunk.usage.output_tokens))


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("Incorrect API key provided: sk-proj-********abcd.", "Incorrect API key provided: [credential]"),
        ("key sk-0123456789abcdef, sk-ant-api03-Ab_c-9", "key [credential], [credential]"),
        ('{"authorization": "Bearer eyJhbGci.eyJ.x-_"}', '{"authorization": "[credential]"}'),
        ("see HTTPS://api.example.com/v1?key=1, please", "see [url], please"),
        ("resp_0a-b_c msg_1 chatcmpl-2x file-3 vs_4 batch_5 toolu_6", " ".join(["[provider_id]"] * 7)),
        ("in thread_resp_68f", "in thread_[provider_id]"),
        ("tool file_search wants a file_id", "tool file_search wants a file_id"),
        ("api-key 0123456789abcdef0123456789abcdef refused", "api-key [redacted] refused"),
        ("The model is overloaded.", "The model is overloaded."),
    ],
)
def test_a_diagnostic_names_no_key_address_or_id(raw: str, safe: str) -> None:
    assert redact_diagnostic(raw) == safe


@given(
    st.text(max_size=40),
    st.sampled_from(["sk-proj-", "sk-", "Bearer ", "https://", "resp_", "msg_", "chatcmpl-", "file-", "vs_", "toolu_"]),
    st.text(max_size=300),
)
def test_a_secret_in_any_text_does_not_survive(before: str, prefix: str, after: str) -> None:
    secret = "Zq7Zq7Zq7Zq7"
    assert secret not in redact_diagnostic(f"{before} {prefix}{secret} {after}")


def test_a_secret_of_any_form_is_redacted_where_it_is_known() -> None:
    secret = "pass word/of:no+known=form"
    text = "x" * 190 + secret
    assert redact_diagnostic(f"key {secret}, {secret}", "", secret) == "key [redacted], [redacted]"
    assert "pass" not in redact_diagnostic(text, secret)


def test_a_diagnostic_is_redacted_before_it_is_cut() -> None:
    cut = redact_diagnostic("x " * (MAX_CHARACTERS // 2 - 4) + "sk-proj-0123456789abcdef")
    assert len(cut) == MAX_CHARACTERS
    assert "sk-" not in cut
