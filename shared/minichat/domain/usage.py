"""Tokens of a turn, and the key by which they count once."""

from dataclasses import astuple, dataclass
from typing import Any

from minichat.domain.names import in_key, is_uuid


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; several calls within one turn add up."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    @property
    def known(self) -> bool:
        """Whether the provider really reported something (turns-and-quota 1)."""
        return self.input_tokens > 0 or self.output_tokens > 0


def dedupe_key(tenant_id: str, what: str, request_id: str) -> str:
    """The key by which usage counts once: `{tenant}/{turn or type of task}/{request}`, UUIDs as 32 hex digits.

    A tenant that is no UUID is there as it is in keys (`names.in_key`).
    """
    tenant = tenant_id.replace("-", "") if is_uuid(tenant_id) else in_key(tenant_id)
    return "/".join((tenant, what.replace("-", ""), request_id.replace("-", "")))


def told(usage: Usage, model: str) -> dict[str, Any] | None:
    """Tokens as they are told; None when they are not known, which is not 0."""
    if not usage.known:
        return None
    details = {
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_write_input_tokens": usage.cache_write_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    counted = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "model": model}
    return counted | {name: tokens for name, tokens in details.items() if tokens}
