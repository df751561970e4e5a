"""What the product is measured beside: a bare relay, and LiteLLM's proxy where `make .tools/litellm/installed` ran."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from minichat.local.process import Child, free_port
from minichat.local.tables import project_root

Started = tuple[Child, str, str, Callable[[str], dict[str, object]]]
"""The process, the address to ask for a stream, the token, and the body that asks for a script."""


def known() -> list[tuple[str, Callable[[str, Path], Started]]]:
    """Each with what starts it, given the provider's address and a folder for its log."""
    peers: list[tuple[str, Callable[[str, Path], Started]]] = [("bare", _bare)]
    if (project_root() / ".tools/litellm/installed").exists():
        peers.append(("litellm", _litellm))
    return peers


def _bare(provider_url: str, logs: Path) -> Started:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare_relay", "--port", str(port), "--provider-url", provider_url]
    relay = Child("the bare relay", command, logs)
    relay.wait_until_it_answers(f"http://127.0.0.1:{port}/health")
    return relay, f"http://127.0.0.1:{port}/", "", lambda script: {"content": script}


def _litellm(provider_url: str, logs: Path) -> Started:
    port = free_port()
    config = logs / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: canned\n"
        f"    litellm_params: {{model: openai/gpt-4.1, api_base: {provider_url}/v1, api_key: none}}\n"
        "general_settings: {master_key: sk-bench}\n",
        encoding="utf-8",
    )
    command = [str(project_root() / ".tools/litellm/bin/litellm"), "--config", str(config), "--port", str(port)]
    proxy = Child("the litellm", command, logs, {"LITELLM_LOG": "ERROR", "HOME": os.environ.get("HOME", "/")})
    proxy.wait_until_it_answers(f"http://127.0.0.1:{port}/health/liveliness")

    def body(script: str) -> dict[str, object]:
        return {"model": "canned", "input": script, "stream": True}

    return proxy, f"http://127.0.0.1:{port}/v1/responses", "sk-bench", body
