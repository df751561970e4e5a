"""What OpenAI's package says that can come, against what is read: all of it is, or is left out for a reason.

A new version of it that can say something new fails here, until somebody has decided what it means to us.
"""

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice
from openai.types.responses import Response, ResponseError, ResponseOutputItem, ResponseStatus, ResponseStreamEvent
from openai.types.responses.response import IncompleteDetails

from minichat.providers import openai_chat, openai_responses
from minichat.providers.refusals import OUT_OF_CREDIT, RATE_LIMITED, TIMED_OUT, code_of
from tests.support.providers.official_types import (
    ABOUT_THE_CALL,
    ABOUT_THE_REQUEST,
    IDENTIFIES,
    NOT_ASKED,
    NOT_TEXT,
    PAID_ELSEWHERE,
    PROGRESS,
    REPEATED,
    SUMMED,
    THINKING,
    Examples,
    Reasons,
    Seen,
    accounted,
    entirely,
    kinds,
    literals,
    places,
)

EVENTS_OF_RESPONSES: Reasons = {
    NOT_ASKED: (
        *(f"response.audio.{what}" for what in ("delta", "done", "transcript.delta", "transcript.done")),
        *(
            f"response.{tool}.{what}"
            for tool in ("function_call_arguments", "mcp_call_arguments")
            for what in ("delta", "done")
        ),
        *(f"response.custom_tool_call_input.{what}" for what in ("delta", "done")),
        *(
            f"response.{tool}.{what}"
            for tool in ("mcp_call", "mcp_list_tools")
            for what in ("in_progress", "completed", "failed")
        ),
        *(f"response.shell_call_command.{what}" for what in ("added", "delta", "done")),
        *(f"response.shell_call_output_content.{what}" for what in ("delta", "done")),
        *(
            f"response.image_generation_call.{what}"
            for what in ("completed", "generating", "in_progress", "partial_image")
        ),
        "response.compaction.compacting",
    ),
    REPEATED: (
        *(
            "response.output_text.done",
            "response.refusal.done",
            "response.content_part.added",
            "response.content_part.done",
        ),
        "response.output_item.added",
    ),
    "what a tool did: an answer is whole without it": (openai_responses.ITEM_DONE,),
    "told with the final response": ("response.output_text.annotation.added",),
    THINKING: (
        *(f"response.reasoning_text.{what}" for what in ("delta", "done")),
        *(f"response.reasoning_summary_text.{what}" for what in ("delta", "done")),
        *(f"response.reasoning_summary_part.{what}" for what in ("added", "done")),
    ),
    PROGRESS: (
        *("response.file_search_call.in_progress", "response.web_search_call.in_progress"),
        "response.code_interpreter_call.interpreting",
        *(f"response.code_interpreter_call_code.{what}" for what in ("delta", "done")),
    ),
    "the answer begins": ("response.created", "response.queued", "response.in_progress"),
}


def test_every_event_of_a_response_is_read_or_left_out() -> None:
    accounted(set(kinds(ResponseStreamEvent)), set(openai_responses.KNOWN_EVENTS), EVENTS_OF_RESPONSES)


OTHER_ITEMS = kinds(ResponseOutputItem).keys() - {"message"}
OF_A_RESPONSE: Reasons = {
    NOT_TEXT: tuple(f"response.output[{kind}]" for kind in OTHER_ITEMS),
    ABOUT_THE_REQUEST: tuple(
        f"response.{name}"
        for name in (
            *("background", "conversation", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model"),
            *("parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options"),
            *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "temperature", "text"),
            *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user", "image", "input_transformations"),
        )
    ),
    ABOUT_THE_CALL: (
        *("response.access_programs", "response.completed_at", "response.created_at", "response.object"),
        *("response.prompt_cache_diagnostics", "response.error.misalignment", "response.error.param"),
    ),
    NOT_ASKED: (
        "response.moderation",
        "response.output[message].content[output_text].logprobs",
        "response.output[message].content[output_text].annotations[container_file_citation].container_id",
        "response.output[message].content[output_text].annotations[container_file_citation].end_index",
        "response.output[message].content[output_text].annotations[container_file_citation].file_id",
        "response.output[message].content[output_text].annotations[container_file_citation].filename",
        "response.output[message].content[output_text].annotations[container_file_citation].start_index",
        "response.output[message].content[output_text].annotations[file_path].file_id",
        "response.output[message].content[output_text].annotations[file_path].index",
    ),
    "a file is told by the name that it was uploaded under, and has no span": (
        "response.output[message].content[output_text].annotations[file_citation].filename",
        "response.output[message].content[output_text].annotations[file_citation].index",
    ),
    IDENTIFIES: tuple(f"response.output[message].{name}" for name in ("id", "role", "status", "phase")),
    PAID_ELSEWHERE: ("response.tool_usage",),
    SUMMED: ("response.usage.total_tokens", "response.usage.input_tokens_details.cache_write_tokens_details"),
}


def test_every_field_of_a_response_is_read_or_left_out() -> None:
    examples = Examples(places(OF_A_RESPONSE))
    response = examples.of(Response, "response")
    for status in ("completed", "incomplete", "failed"):
        assert list(openai_responses.ResponsesAnswer().said(f"response.{status}", {"response": response}))
    without_error = Seen("response", response | {"error": None}, examples.read)
    assert list(openai_responses.ResponsesAnswer().whole(without_error))
    entirely(examples, OF_A_RESPONSE)


OF_EVENTS: Reasons = {
    IDENTIFIES: (
        "error.sequence_number",
        *(
            f"{event}.{name}"
            for event in openai_responses.TEXT_EVENTS
            for name in ("content_index", "item_id", "output_index", "sequence_number", "type")
        ),
    ),
    NOT_ASKED: ("response.output_text.delta.logprobs",),
    ABOUT_THE_CALL: ("error.param",),
}


def test_every_field_of_an_event_that_has_text_or_a_failure_is_read_or_left_out() -> None:
    examples, models = Examples(places(OF_EVENTS)), kinds(ResponseStreamEvent)
    for kind in (*openai_responses.TEXT_EVENTS, "error"):
        assert list(openai_responses.ResponsesAnswer().said(kind, examples.of(models[kind], kind)))
    entirely(examples, OF_EVENTS)


def test_every_item_of_a_response_is_known() -> None:
    read = {*openai_responses.TOOL_ITEMS, *openai_responses.NOT_OFFERED_ITEMS, "message"}
    left_out: Reasons = {
        THINKING: ("reasoning",),
        "results and calls of tools that run at the provider, and that no request of ours offers": (
            *("apply_patch_call_output", "computer_call_output", "custom_tool_call_output", "function_call_output"),
            *("local_shell_call_output", "shell_call", "shell_call_output", "image_generation_call", "mcp_call"),
            *("mcp_list_tools", "mcp_approval_response", "program", "program_output", "tool_search_call"),
            *("tool_search_output", "additional_tools", "compaction"),
        ),
    }
    accounted(set(kinds(ResponseOutputItem)), read, left_out)


def test_every_status_and_reason_of_a_response_is_known() -> None:
    accounted(literals(ResponseStatus), set(openai_responses.ENDED), {"no end": ("in_progress", "queued")})
    reasons = literals(IncompleteDetails.model_fields["reason"].annotation)
    accounted(reasons, set(openai_responses.CUTS), {"told as `other`; " + NOT_ASKED: ("max_messages", "steered")})


def test_every_code_of_a_failed_response_is_known() -> None:
    codes = literals(ResponseError.model_fields["code"].annotation)
    not_valid = {code for code in codes if code_of(code) == "validation_error"}
    assert not_valid == {code for code in codes if "image" in code} | {"invalid_prompt"}
    left_out: Reasons = {
        "provider_error: a policy of the provider's": (
            *("bio_policy", "misalignment_policy_violation", "data_residency_mismatch"),
        ),
        "provider_error": ("server_error",),
    }
    accounted(codes, not_valid | codes & (RATE_LIMITED | TIMED_OUT | OUT_OF_CREDIT), left_out)
    assert codes & RATE_LIMITED
    assert codes & TIMED_OUT


OF_A_CHOICE = {
    NOT_ASKED: ("logprobs", "{}.audio"),
    "a tool that nobody offered; the reason of the end says so, too": ("{}.function_call", "{}.tool_calls"),
    IDENTIFIES: ("index", "{}.role"),
}
USAGE_OF_CHAT = (
    "total_tokens",
    *(f"completion_tokens_details.{name}" for name in ("audio_tokens", "text_tokens")),
    *(f"completion_tokens_details.{kind}_prediction_tokens" for kind in ("accepted", "rejected")),
    *(f"prompt_tokens_details.{name}" for name in ("audio_tokens", "image_tokens", "text_tokens")),
)


def of_chat(root: str, message: str, *more: str) -> Reasons:
    return {
        **{why: tuple(f"{root}.choices[].{one.format(message)}" for one in what) for why, what in OF_A_CHOICE.items()},
        SUMMED: tuple(f"{root}.usage.{name}" for name in USAGE_OF_CHAT),
        ABOUT_THE_CALL: tuple(
            f"{root}.{name}" for name in ("created", "model", "moderation", "service_tier", "system_fingerprint", *more)
        ),
    }


def test_every_field_of_a_chats_chunk_is_read_or_left_out() -> None:
    left_out = of_chat("chunk", "delta", "obfuscation")
    examples = Examples(places(left_out))
    assert list(openai_chat.ChatCompletionAnswer().said("", examples.of(ChatCompletionChunk, "chunk")))
    entirely(examples, left_out)


def test_every_field_of_a_whole_chat_completion_is_read_or_left_out() -> None:
    left_out = of_chat("whole", "message", "metadata", "object")
    left_out["the only kind that there is"] = ("whole.choices[].message.annotations[url_citation].type",)
    examples = Examples(places(left_out))
    assert list(openai_chat.ChatCompletionAnswer().whole(examples.of(ChatCompletion, "whole")))
    entirely(examples, left_out)


def test_every_end_of_a_chat_is_known() -> None:
    finish_reasons = literals(Choice.model_fields["finish_reason"].annotation)
    assert finish_reasons <= {*openai_chat.ENDS.good, *openai_chat.ENDS.cut, *openai_chat.ENDS.failed}
