"""The wire formats of the scripted provider, judged by the official client of each API."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anthropic
import boto3
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from botocore.validate import ParamValidator
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_message import Annotation
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

from minichat.providers import anthropic_messages, bedrock_converse, openai_chat, openai_responses
from minichat.providers.prompt import Prompt, PromptMessage
from tests.support.providers.calls import WAIT_SECONDS
from tests.support.providers.files import a_scripted_provider

SCRIPTS = [
    ("hello there", "You said: hello there — and I heard every word."),
    ("[[say:Größe \u2028 😀]]", "Größe \u2028 😀"),
    ("[[words:3]][[tool:web_search]]", "word1 word2 word3"),
    ("[[words:3]][[bytes:1]]", "word1 word2 word3"),
]
PAGE = "https://example.com/a"
CITING = f"[[say:Größe 🙂 counts.]][[cite:{PAGE} A title]][[cite-file:file-abc a.txt]]"
CITED_TEXT = "As told: Größe 🙂 counts."
TOLD = "[[words:3]][[usage:100,20,30,10,5]]"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as address:
        yield address


@pytest.fixture
def chat(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT_SECONDS) as client:
        yield client


@pytest.fixture
def messages(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=WAIT_SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def bedrock(url: str) -> Iterator[Any]:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=WAIT_SECONDS)
    client: Any = boto3.Session().client("bedrock-runtime", region_name="us-east-1", endpoint_url=url, config=config)
    yield client
    client.close()


def said(script: str) -> Any:
    return [{"role": "user", "content": script}]


@pytest.mark.parametrize(("script", "text"), SCRIPTS)
def test_openais_client_reads_chat_completions(chat: openai.OpenAI, script: str, text: str) -> None:
    options = {"include_usage": True}
    with chat.chat.completions.create(
        model="m",
        messages=said(script),
        stream=True,
        stream_options=options,  # type: ignore[call-overload]
    ) as chunks:
        seen = [ChatCompletionChunk.model_validate(chunk.to_dict(), strict=True) for chunk in chunks]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices) == text
    assert [chunk.choices[0].finish_reason for chunk in seen if chunk.choices][-1] == "stop"
    assert seen[-1].usage is not None
    with chat.chat.completions.stream(model="m", messages=said(script)) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == text
    assert chat.chat.completions.create(model="m", messages=said(script)).choices[0].message.content == text


def test_chat_completions_tell_usage_ends_and_failures(chat: openai.OpenAI) -> None:
    told = chat.chat.completions.create(model="m", messages=said(TOLD)).usage
    assert told is not None
    assert told.prompt_tokens_details is not None
    assert told.completion_tokens_details is not None
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (100, 20, 120)
    assert (told.prompt_tokens_details.cached_tokens, told.completion_tokens_details.reasoning_tokens) == (30, 5)
    with chat.chat.completions.stream(model="m", messages=said("[[incomplete:max_output_tokens]]")) as stream:
        reasons = [
            event.chunk.choices[0].finish_reason for event in stream if event.type == "chunk" and event.chunk.choices
        ]
    assert reasons[-1] == "length"
    with pytest.raises(openai.RateLimitError):
        chat.chat.completions.create(model="m", messages=said("[[status:429]]"))
    with (
        pytest.raises(openai.APIError, match="As told"),
        chat.chat.completions.create(model="m", messages=said("[[failed:server_error]]"), stream=True) as failing,
    ):
        list(failing)


def test_openais_client_reads_responses_of_azure(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/openai/v1/", api_key="none", max_retries=0) as client:
        assert client.responses.create(model="m", input="[[words:3]]").output_text == "word1 word2 word3"
    with openai.AzureOpenAI(
        azure_endpoint=url, api_key="none", api_version="2025-03-01-preview", max_retries=0
    ) as older:
        assert older.responses.create(model="m", input="[[words:3]]").output_text == "word1 word2 word3"


def test_chat_completions_cite_pages(chat: openai.OpenAI) -> None:
    annotations = chat.chat.completions.create(model="m", messages=said(CITING)).choices[0].message.annotations
    assert annotations is not None
    shape: TypeAdapter[Any] = TypeAdapter(list[Annotation])
    assert shape.validate_python([one.to_dict() for one in annotations], strict=True) == annotations
    found = annotations[0].url_citation
    assert (len(annotations), found.url, found.title) == (1, PAGE, "A title")
    assert (found.start_index, found.end_index) == (0, len("Größe 🙂 counts."))
    with chat.chat.completions.create(model="m", messages=said(CITING), stream=True) as chunks:
        # The types of a stream leave annotations out; its answers have them.
        deltas: list[Any] = [chunk.choices[0].delta.to_dict() for chunk in chunks if chunk.choices]
    streamed = [one for delta in deltas for one in delta.get("annotations", [])]
    assert streamed == [one.to_dict() for one in annotations]


def test_responses_cite_pages_and_files(chat: openai.OpenAI) -> None:
    shape: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    with chat.responses.create(model="m", input=CITING, stream=True) as events:
        seen: list[Any] = [shape.validate_python(event.to_dict(), strict=True) for event in events]
    added = [event.annotation for event in seen if event.type == "response.output_text.annotation.added"]
    assert seen[-1].type == "response.completed"
    page, file = seen[-1].response.output[0].content[0].annotations
    assert (page.type, page.url, page.title, page.start_index) == ("url_citation", PAGE, "A title", 0)
    assert page.end_index == len("Größe 🙂 counts.")
    assert (file.type, file.file_id, file.filename) == ("file_citation", "file-abc", "a.txt")
    assert [one.to_dict() for one in added] == [page.to_dict(), file.to_dict()]
    with chat.responses.stream(model="m", input=CITING) as stream:
        for _ in stream:
            pass
        collected: Any = stream.get_final_response().output[0]
    whole: Any = chat.responses.create(model="m", input=CITING).output[0]
    for output in (collected, whole):
        assert [one.to_dict() for one in output.content[0].annotations] == [page.to_dict(), file.to_dict()]


def test_a_file_of_the_stores_that_are_offered_is_found_and_cited(chat: openai.OpenAI) -> None:
    file = chat.files.create(file=("a b.txt", b"hello"), purpose="assistants")
    store, empty = chat.vector_stores.create(), chat.vector_stores.create()
    chat.vector_stores.files.create(vector_store_id=store.id, file_id=file.id)

    def asked(*stores: str) -> list[Any]:
        tools: Any = [{"type": "file_search", "vector_store_ids": list(stores)}]
        with chat.responses.create(model="m", input="[[words:2]]", tools=tools, stream=True) as events:
            return list(events)

    found = asked(empty.id, store.id)
    assert [event.type for event in found if "file_search_call" in event.type] == [
        f"response.file_search_call.{word}" for word in ("in_progress", "searching", "completed")
    ]
    annotations = found[-1].response.output[-1].content[0].annotations
    assert [(one.type, one.file_id, one.filename) for one in annotations] == [("file_citation", file.id, "a b.txt")]
    assert not [event.type for event in asked(empty.id) if "file_search" in event.type]


@pytest.mark.parametrize(("script", "text"), SCRIPTS)
def test_anthropics_client_reads_messages(messages: anthropic.Anthropic, script: str, text: str) -> None:
    with messages.messages.stream(model="m", max_tokens=64, messages=said(script)) as stream:
        assert "".join(stream.text_stream) == text
        final = stream.get_final_message()
    assert (final.stop_reason, final.content[-1].type) == ("end_turn", "text")
    whole = messages.messages.create(model="m", max_tokens=64, messages=said(script))
    assert whole.content[0].type == "text"
    assert whole.content[0].text == text


def test_every_event_has_the_shape_that_anthropics_types_demand(messages: anthropic.Anthropic) -> None:
    # The client itself does not validate what it reads; its types do when asked.
    shape: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for ending in (CITING, "[[incomplete:max_output_tokens]]", "[[incomplete:pause]]", "[[refuse]]"):
        script = f"[[words:2]][[tool:web_search]][[tool:code_interpreter]]{ending}"
        with messages.messages.create(model="m", max_tokens=64, messages=said(script), stream=True) as events:
            seen = [shape.validate_python(event.to_dict(), strict=True).type for event in events]
        assert (seen[0], seen[-1]) == ("message_start", "message_stop")


def test_messages_cite_pages(messages: anthropic.Anthropic) -> None:
    with messages.messages.stream(model="m", max_tokens=64, messages=said(CITING)) as stream:
        streamed = stream.get_final_message().content[-1]
    whole = messages.messages.create(model="m", max_tokens=64, messages=said(CITING)).content[-1]
    for text in (streamed, whole):
        assert text.type == "text"
        assert text.citations is not None
        (found,) = text.citations
        assert found.type == "web_search_result_location"
        assert (found.url, found.title, found.cited_text) == (PAGE, "A title", CITED_TEXT)


def test_messages_tell_usage_and_failures(messages: anthropic.Anthropic) -> None:
    with messages.messages.stream(model="m", max_tokens=64, messages=said(TOLD)) as stream:
        told = stream.get_final_message().usage
    assert (told.input_tokens, told.cache_read_input_tokens, told.cache_creation_input_tokens) == (60, 30, 10)
    assert told.output_tokens == 20
    with pytest.raises(anthropic.RateLimitError):
        messages.messages.create(model="m", max_tokens=64, messages=said("[[status:429]]"))
    with pytest.raises(anthropic.APIStatusError) as failed:
        list(
            messages.messages.create(
                model="m", max_tokens=64, messages=said("[[failed:rate_limit_exceeded]]"), stream=True
            )
        )
    assert "rate_limit_error" in str(failed.value)


HISTORY = PromptMessage("user", "a"), PromptMessage("assistant", "b")


def a_full_prompt(*history: PromptMessage) -> Prompt:
    """A prompt that says everything it can."""
    return Prompt(
        model="m",
        instructions="Be brief.",
        messages=(*history, PromptMessage("user", "c")),
        max_output_tokens=64,
        max_tool_calls=2,
        web_search_context_size="low",
        api_params={"temperature": 0.7, "stop": ("END",), "reasoning_effort": "high"},
        user="u",
        metadata={"chat": "c"},
    )


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        # Of an earlier answer the types want its id and status, which the API does without.
        (ResponseCreateParamsStreaming, openai_responses.body(a_full_prompt())),
        (CompletionCreateParamsStreaming, openai_chat.body(a_full_prompt(*HISTORY), "max_completion_tokens")),
        (MessageCreateParamsStreaming, anthropic_messages.body(a_full_prompt(*HISTORY))),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_what_we_ask_has_the_shape_of_the_official_types(shape: Any, body: dict[str, Any]) -> None:
    asked = TypeAdapter(shape).validate_python(body)
    assert asked["model"] == "m"


def test_what_we_ask_has_the_shape_of_boto3s_model(bedrock: Any) -> None:
    shape = bedrock.meta.service_model.operation_model("ConverseStream").input_shape
    report = ParamValidator().validate({**bedrock_converse.body(a_full_prompt(*HISTORY)), "modelId": "m"}, shape)
    assert not report.has_errors(), report.generate_report()


def conversed(bedrock: Any, script: str) -> list[dict[str, Any]]:
    """The events of one answer, each a mapping with one name."""
    conversation = [{"role": "user", "content": [{"text": script}]}]
    with closing(bedrock.converse_stream(modelId="amazon.nova-lite-v1:0", messages=conversation)["stream"]) as stream:
        return list(stream)


@pytest.mark.parametrize(("script", "text"), SCRIPTS)
def test_boto3_reads_converse_stream(bedrock: Any, script: str, text: str) -> None:
    events = conversed(bedrock, script)
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta.get("text", "") for delta in deltas) == text
    assert [next(iter(event)) for event in (events[0], *events[-2:])] == ["messageStart", "messageStop", "metadata"]
    assert events[-2]["messageStop"]["stopReason"] == "end_turn"
    assert ("toolUse" in str(events)) == ("[[tool" in script)


def test_converse_stream_cites_pages(bedrock: Any) -> None:
    told = [event["contentBlockDelta"]["delta"] for event in conversed(bedrock, CITING) if "contentBlockDelta" in event]
    assert [delta["citation"] for delta in told if "citation" in delta] == [
        {
            "title": "A title",
            "sourceContent": [{"text": CITED_TEXT}],
            "location": {"web": {"url": PAGE, "domain": "example.com"}},
        }
    ]


def test_converse_stream_tells_usage_ends_and_failures(bedrock: Any) -> None:
    assert conversed(bedrock, TOLD)[-1]["metadata"]["usage"] == {
        "inputTokens": 60,
        "outputTokens": 20,
        "totalTokens": 120,
        "cacheReadInputTokens": 30,
        "cacheWriteInputTokens": 10,
    }
    assert conversed(bedrock, "[[incomplete:max_output_tokens]]")[-2]["messageStop"]["stopReason"] == "max_tokens"
    with pytest.raises(ClientError) as refused:
        conversed(bedrock, "[[status:429]]")
    assert refused.value.response["Error"]["Code"] == "ThrottlingException"
    for script, code in [("[[failed:rate_limit_exceeded]]", "throttlingException"), ("[[error:made_up]]", "made_up")]:
        with pytest.raises(EventStreamError) as failed:
            conversed(bedrock, script)
        assert failed.value.response["Error"]["Code"] == code
