"""What is sent to a provider, in the product's words."""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message of the conversation; `images` are file ids at the called provider."""

    role: Role
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of a model: instructions, conversation oldest first, tools, caps and sampling parameters.

    Vector stores, files for the code interpreter and images go only to providers that have files. With
    `only_attachment` a search finds nothing else in the stores: it filters by an attribute of each file.

    `user` and `metadata` are opaque hashes (`identity`); no id of tenant, user or chat leaves the backend.
    `traceparent` is a header (W3C Trace Context).
    """

    model: str
    instructions: str
    messages: tuple[PromptMessage, ...]
    max_output_tokens: int
    max_tool_calls: int | None = None
    web_search_context_size: Literal["low", "medium", "high"] | None = None
    vector_stores: tuple[str, ...] = ()
    max_num_results: int | None = None
    only_attachment: str | None = None
    code_files: tuple[str, ...] = ()
    api_params: dict[str, Any] = field(default_factory=dict)
    user: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    traceparent: str | None = None


def parameters(prompt: Prompt) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sampling parameters that have a value, and `extra_body`, which is the operator's and may hold anything."""
    said = {name: value for name, value in prompt.api_params.items() if value not in (None, [], ())}
    return said, said.pop("extra_body", {})


def one_of_temperature_and_top_p(said: dict[str, Any]) -> dict[str, Any]:
    """The parameter that matters, for models that refuse both: a `top_p` of 1 has no effect."""
    if said.get("top_p", 1) < 1:
        return {"top_p": said["top_p"]}
    return {"temperature": said["temperature"]} if "temperature" in said else {}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring messages of one role: their texts, and the ids of their images."""

    role: Role
    texts: tuple[str, ...]
    images: tuple[str, ...]


def alternating(messages: tuple[PromptMessage, ...]) -> list[Stretch]:
    """The conversation as every provider takes it: the user begins, roles alternate, no text is blank.

    Some servers refuse anything else, and a chat with one such message would never get an answer again. An answer whose
    question was left out of the context is left out, too.
    """
    stretches: list[Stretch] = []
    for message in messages:
        if not message.text.strip() or (not stretches and message.role == "assistant"):
            continue
        before = Stretch(message.role, (), ())
        if stretches and stretches[-1].role == message.role:
            before = stretches.pop()
        stretches.append(Stretch(message.role, (*before.texts, message.text), (*before.images, *message.images)))
    return stretches
