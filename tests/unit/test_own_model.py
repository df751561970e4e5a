"""The model server of somebody's own: asked what it speaks and has, before anything starts."""

import json
from pathlib import Path

import pytest

from minichat import settings
from minichat.local import own_model
from minichat.services.policy_in_force import policy_file
from minichat.settings import SettingsError
from tests.support.providers.own_servers import own_server


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
def test_a_pulled_model_becomes_a_policy_that_validates(tmp_path: Path, suffix: str) -> None:
    with own_server("ollama", "llama3.2:1b", "mistral:latest") as url:
        own = own_model.found(url + suffix, "openai_chat", "llama3.2:1b")
        assert own_model.found(url, None, "mistral").model == "mistral:latest"
    entries = {own_model.PROVIDER: own.entry()}
    configured = settings.load({"MINICHAT_PROVIDERS": json.dumps(entries)})
    assert configured.providers["own"].max_tokens_field == "max_tokens"
    (only,) = policy_file(own.written(tmp_path), configured).enabled_models()
    assert (only.id, only.context_window) == ("llama3.2:1b", own_model.OLLAMA_WINDOW)


def test_the_only_model_needs_no_name_and_tells_its_window() -> None:
    with own_server("vllm", "Qwen/Qwen2.5-0.5B-Instruct") as url:
        own = own_model.found(url, None, None)
    assert (own.kind, own.model, own.window) == ("openai_chat", "Qwen/Qwen2.5-0.5B-Instruct", 2048)


def test_a_wrong_kind_is_named_with_the_right_one() -> None:
    with (
        own_server("vllm", "m") as url,
        pytest.raises(SettingsError, match=r"--provider-kind: .* not speak openai_responses; it speaks openai_chat\."),
    ):
        own_model.found(url, "openai_responses", "m")


@pytest.mark.parametrize(
    ("server", "models", "said"),
    [
        ("ollama", ("mistral:latest",), r"has mistral:latest\. `ollama pull llama3` fetches it\."),
        ("ollama", (), "it has no model yet"),
        ("vllm", ("a", "b"), r"it has a, b\.$"),
    ],
)
def test_a_missing_model_is_named_with_those_that_are_there(server: str, models: tuple[str, ...], said: str) -> None:
    with (
        own_server("ollama" if server == "ollama" else "vllm", *models) as url,
        pytest.raises(SettingsError, match=f"--model: .* has no llama3; .*{said}"),
    ):
        own_model.found(url, None, "llama3")


@pytest.mark.parametrize(
    ("url", "said"), [("http://127.0.0.1:1", "no model server answers at http://127.0.0.1:1"), ("file:///x", "http://")]
)
def test_an_address_without_a_server_is_said_with_its_flag(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"--provider-url: .*{said}"):
        own_model.found(url, None, None)
