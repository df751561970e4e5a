"""The kinds of providers, each as an entry that leads to the scripted provider."""

from dataclasses import dataclass
from typing import Any

from minichat.provider_entries import Provider, ProviderKind


@dataclass(frozen=True, slots=True)
class Kind:
    """What is particular to a kind: words of its entry, and what its API does not tell."""

    name: ProviderKind
    said: dict[str, Any]
    has_id: bool = True
    cites_files: bool = False
    tells_snippets: bool = False
    counts_reasoning: bool = True
    tells_queries: bool = False

    def entry(self, url: str, **said: Any) -> Provider:
        """An entry without retries for a provider of this kind at this address."""
        values: dict[str, Any] = {"kind": self.name, "base_url": url, "allow_insecure": True, "retries": 0}
        return Provider(**(values | self.said | said))


KINDS = (
    Kind("openai_responses", {}, cites_files=True, tells_queries=True),
    Kind("azure_openai_responses", {"api_version": "preview"}, cites_files=True, tells_queries=True),
    Kind("openai_chat", {}),
    Kind("anthropic_messages", {}, tells_snippets=True, tells_queries=True),
    Kind("bedrock_converse", {"region": "us-east-1"}, has_id=False, counts_reasoning=False, tells_snippets=True),
)
