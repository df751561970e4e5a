"""What is sent to a provider, in the product's words."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message of the conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of a model: instructions, conversation oldest first, caps and sampling parameters.

    `user` and `metadata` are opaque hashes made by the caller; no id of tenant, user or chat leaves the backend.
    """

    model: str
    instructions: str
    messages: tuple[PromptMessage, ...]
    max_output_tokens: int
    max_tool_calls: int | None = None
    web_search_context_size: Literal["low", "medium", "high"] | None = None
    api_params: dict[str, Any] = field(default_factory=dict)
    user: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
