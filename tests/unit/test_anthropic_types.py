"""What Anthropic's package says that can come, against what is read: all of it is, or is left out for a reason.

A new version of it that can say something new fails here, until somebody has decided what it means to us.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import anthropic
import anthropic.types.shared
from anthropic.types import CitationsDelta, Message, RawMessageStreamEvent, ServerToolUseBlock, StopReason
from anthropic.types.shared import ErrorObject, ErrorType

from minichat.providers import anthropic_messages
from minichat.providers.refusals import OUT_OF_CREDIT, RATE_LIMITED, TIMED_OUT
from tests.support.providers.official_types import (
    ABOUT_THE_CALL,
    IDENTIFIES,
    NOT_ASKED,
    NOT_TEXT,
    PAID_ELSEWHERE,
    THINKING,
    Examples,
    Reasons,
    accounted,
    entirely,
    kinds,
    literals,
    merged,
    places,
)


def test_every_event_of_a_message_is_read() -> None:
    # Failures are no event of the package's: its client makes exceptions of them.
    assert {*kinds(RawMessageStreamEvent), "error"} == anthropic_messages.KNOWN_EVENTS


BLOCKS = kinds(Message.model_fields["content"].annotation.__args__[0])  # type: ignore[union-attr]
LOCATIONS = ("char_location", "page_location", "content_block_location", "search_result_location")
OF_A_CITATION: Reasons = {
    "documents are never sent along": tuple(f"[{location}]" for location in LOCATIONS),
    "for sending it back": ("[web_search_result_location].encrypted_index",),
}
RESULTS = {f"{tool}_tool_result" for tool in anthropic_messages.TOOLS}
OTHER_BLOCKS = BLOCKS.keys() - RESULTS - {"text", "server_tool_use"}


def of_block(place: str, kind: str) -> Reasons:
    """What is left out of a block of this kind at this place."""
    if kind == "text":
        return {why: tuple(f"{place}.citations{one}" for one in what) for why, what in OF_A_CITATION.items()}
    members = BLOCKS[kind].model_fields.keys() - {"type", "name"}
    return {NOT_TEXT: tuple(f"{place}.{member}" for member in members)}


def test_every_block_of_a_message_is_known() -> None:
    left_out: Reasons = {
        THINKING: ("thinking", "redacted_thinking"),
        "a tool that nobody offered; the reason of the end says so": ("tool_use",),
        NOT_ASKED: ("container_upload", "tool_search_tool_result", "web_fetch_tool_result"),
    }
    accounted(set(BLOCKS), {"text", "server_tool_use"} | RESULTS, left_out)
    tools = literals(ServerToolUseBlock.model_fields["name"].annotation)
    searches = ("tool_search_tool_bm25", "tool_search_tool_regex", "web_fetch")
    accounted(tools, set(anthropic_messages.TOOLS), {NOT_ASKED: searches})


USAGE_OF_MESSAGES = ("inference_geo", "service_tier", "speed")


def test_every_field_of_a_message_is_read_or_left_out() -> None:
    left_out = merged(
        *(of_block(f"message.content[{kind}]", kind) for kind in ("text", "server_tool_use", *RESULTS)),
        {
            NOT_TEXT: (
                *(f"message.content[{kind}]" for kind in OTHER_BLOCKS),
                *(f"message.{name}" for name in ("container", "diagnostics", "model", "role", "type")),
            ),
            "told as a cut by the content filter": ("message.stop_details",),
            "which of our own words it was": ("message.stop_sequence",),
            PAID_ELSEWHERE: ("message.usage.server_tool_use",),
            ABOUT_THE_CALL: tuple(f"message.usage.{name}" for name in USAGE_OF_MESSAGES),
        },
    )
    examples = Examples(places(left_out))
    message = examples.of(Message, "message")
    assert list(anthropic_messages.AnthropicAnswer().whole(message))
    # What is written to the cache is told together, or by its parts.
    message["usage"].pop("cache_creation_input_tokens")
    assert list(anthropic_messages.AnthropicAnswer().whole(message))
    entirely(examples, left_out)


CITES = "content_block_delta.delta[citations_delta]"
OF_EVENTS_OF_MESSAGES: Reasons = merged(
    {why: tuple(f"{CITES}.citation{one}" for one in what) for why, what in OF_A_CITATION.items()},
    {
        THINKING: tuple(f"content_block_delta.delta[{kind}_delta]" for kind in ("thinking", "signature")),
        "what a tool is asked for, told where it can be read": ("content_block_delta.delta[input_json_delta]",),
        "the same as in a whole message": ("content_block_start.content_block",),
        "shown below, one kind after the other": (f"{CITES}.citation",),
        IDENTIFIES: (
            *(f"content_block_{what}.index" for what in ("start", "delta", "stop")),
            *(f"{kind}.type" for kind in anthropic_messages.KNOWN_EVENTS - {"error", "message_start"}),
        ),
        "told as a cut by the content filter": ("message_delta.delta.stop_details",),
        "which of our own words it was": ("message_delta.delta.stop_sequence",),
        NOT_TEXT: ("message_delta.delta.container",),
        PAID_ELSEWHERE: ("message_delta.usage.server_tool_use",),
    },
)


def test_every_field_of_a_messages_events_is_read_or_left_out() -> None:
    examples, models = Examples(places(OF_EVENTS_OF_MESSAGES)), kinds(RawMessageStreamEvent)
    del models["message_start"]  # it holds the message of the test above
    for kind, model in models.items():
        for members in examples.each(kind, model, "delta" if kind == "content_block_delta" else None):
            list(anthropic_messages.AnthropicAnswer().said(kind, members))
    for cites in examples.each(CITES, CitationsDelta, "citation"):
        list(anthropic_messages.AnthropicAnswer().said("content_block_delta", {"delta": cites}))
    entirely(examples, OF_EVENTS_OF_MESSAGES)


PLAIN_FAILURES: Reasons = {
    "provider_error: the request, or who asks": (
        *("invalid_request_error", "authentication_error", "permission_error", "not_found_error", "conflict_error"),
        *("memory_precondition_failed_error", "memory_path_conflict_error"),
    ),
    "provider_error: it may pass, and is asked again by its status": ("api_error", "overloaded_error"),
}


def test_every_failure_of_a_message_is_known() -> None:
    types = literals(ErrorType) | set(kinds(ErrorObject))
    accounted(types, types & (RATE_LIMITED | TIMED_OUT | OUT_OF_CREDIT), PLAIN_FAILURES)


def codes_of(*errors: type[Exception]) -> set[str]:
    """The codes of the package's errors that are of these classes."""
    return {
        code
        for error in _with_code(anthropic.types)
        if issubclass(error, errors)
        for code in literals(error.__annotations__["error_code"])
    }


def _with_code(package: Any) -> Iterator[type[Exception]]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith("_error") and ".beta" not in module.name:
            for found in vars(importlib.import_module(module.name)).values():
                if isinstance(found, type) and "error_code" in getattr(found, "__annotations__", {}):
                    yield found


def test_every_code_of_too_many_requests_or_no_money_is_known() -> None:
    # `retry-after` says when, as with any other limit of a rate.
    left_out: Reasons = {"passes by itself": ("ramp_limit_exceeded",)}
    accounted(
        codes_of(anthropic.RateLimitError, anthropic.PaymentRequiredError),
        set(OUT_OF_CREDIT) & codes_of(Exception),
        left_out,
    )


def test_every_end_of_a_message_is_known() -> None:
    ends = anthropic_messages.ENDS
    assert literals(StopReason) == {*ends.good, *ends.cut, *ends.failed}
