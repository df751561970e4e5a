"""The same conversation with whatever speaks OpenAI's API, by its official client: what was seen, to be compared."""

from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

SAID = "[[say:Größe \u2028 🙂 counts.]]"
WORDS = "[[words:5]][[usage:100,20,30,10,5]]"
CUT = "[[words:5]][[incomplete:max_output_tokens]]"
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def seen_by(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """What responses and chat completions were, streamed and whole, with their ends and failures."""
    return {**_responses(client, model), **_completions(client, model)}


def _responses(client: openai.OpenAI, model: str) -> dict[str, Any]:
    whole = client.responses.create(model=model, input=SAID, instructions="Be kind.", store=False)
    Response.model_validate(whole.to_dict())
    with client.responses.stream(model=model, input=WORDS) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.usage is not None
    raw = client.responses.create(model=model, input=[{"role": "user", "content": CUT}], stream=True)
    with raw as cut:
        told = [_EVENT.validate_python(event.to_dict(), strict=True) for event in cut]
    failed = list(client.responses.create(model=model, input="[[words:2]][[failed:server_error]]", stream=True))[-1]
    last = told[-1].response
    return {
        "whole": (whole.status, whole.output_text, [item.type for item in whole.output]),
        "events": _runs([event.type for event in events]),
        "numbers": [event.sequence_number for event in events] == list(range(len(events))),
        "final": (final.output_text, final.usage.total_tokens, final.usage.input_tokens_details.cached_tokens),
        "cut": (told[-1].type, last.status, last.incomplete_details.reason, last.output_text),
        "failed": (failed.type, failed.response.status, failed.response.error is not None)
        if failed.type == "response.failed"
        else failed.type,
    }


def _completions(client: openai.OpenAI, model: str) -> dict[str, Any]:
    talk: Any = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": SAID},
    ]
    whole = client.chat.completions.create(model=model, messages=talk)
    ChatCompletion.model_validate(whole.to_dict(), strict=True)
    with client.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": WORDS}], stream_options={"include_usage": True}
    ) as stream:
        for event in stream:
            if event.type == "chunk":
                ChatCompletionChunk.model_validate(event.chunk.to_dict(), strict=True)
        final = stream.get_final_completion()
    assert final.usage is not None
    with client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": CUT}], stream=True
    ) as chunks:
        cut = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return {
        "whole completion": (whole.choices[0].message.content, whole.choices[0].finish_reason),
        "final completion": (
            final.choices[0].message.content,
            final.choices[0].finish_reason,
            final.usage.total_tokens,
        ),
        "cut completion": ("".join(one.delta.content or "" for one in cut), cut[-1].finish_reason),
        "too many": _raised(client, model, "[[status:429]]"),
        "failing": _raised(client, model, "[[words:2]][[failed:server_error]]", stream=True),
    }


def _raised(client: openai.OpenAI, model: str, content: str, **wanted: Any) -> str:
    """The class of what the client raises."""
    try:
        answer: Any = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": content}], **wanted
        )
        list(answer)
    except openai.APIError as error:
        return type(error).__name__
    return "nothing"


def _runs(kinds: list[str]) -> list[str]:
    """The kinds, each run of the same once."""
    return [kind for number, kind in enumerate(kinds) if kinds[number - 1 : number] != [kind]]
