"""Somebody's own model server: what it speaks, which models it has, and the policy and provider entry that fit it.

Ollama and vLLM both speak Chat Completions; each lists its models, and each says in its own way that a path is not
there.
"""

import json
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from minichat.services.policy_in_force import SHIPPED_POLICY
from minichat.settings import SettingsError

PROVIDER = "own"
"""The name of the entry in `providers`."""
KINDS = ("openai_chat", "openai_responses", "anthropic_messages")
"""What `--provider-kind` can be, the best known to such servers first."""
_PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
}
ASK_SECONDS = 5
FIRST_BYTE_SECONDS = 150
"""A server of one machine loads a model when it is first asked for."""
OLLAMA_WINDOW = 4096
"""What Ollama keeps of a conversation unless told otherwise (its FAQ, "context window size")."""
UNKNOWN_WINDOW = 8192


@dataclass(frozen=True, slots=True)
class OwnServersModel:
    """A model of a server that was asked: where it is, what it speaks, and how many tokens it keeps."""

    base_url: str
    kind: str
    model: str
    window: int
    is_ollama: bool

    def entry(self) -> dict[str, Any]:
        """The entry of `providers`."""
        entry: dict[str, Any] = {
            "kind": self.kind,
            "base_url": self.base_url,
            "allow_insecure": True,
            "tells_who_asks": False,
            "timeouts": {"first_byte_seconds": FIRST_BYTE_SECONDS},
        }
        if self.kind == "openai_chat" and self.is_ollama:
            entry["max_tokens_field"] = "max_tokens"
        return entry

    def policy(self) -> dict[str, Any]:
        """A policy with this model alone; a token costs one micro-credit, and the limits are the shipped ones."""
        output = self.window // 4
        model = {
            "id": self.model,
            "provider_model_id": self.model,
            "provider_id": PROVIDER,
            "display_name": self.model,
            "tier": "Standard",
            "enabled": True,
            "context_window": self.window,
            "max_output_tokens": output,
            "max_input_tokens": self.window - output,
            "input_tokens_credit_multiplier_micro": 1,
            "output_tokens_credit_multiplier_micro": 1,
            "preference": {"is_default": True},
        }
        limits = json.loads(SHIPPED_POLICY.read_text(encoding="utf-8"))["user_limits"]
        return {"policy_version": 1, "model_catalog": [model], "user_limits": limits}

    def written(self, state: Path) -> Path:
        """Writes the policy into the state folder, where it can be read and changed; returns the file."""
        file = state / "own-model.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.policy(), indent=2), encoding="utf-8")
        return file


def found(url: str, kind: str | None, model: str | None) -> OwnServersModel:
    """The model at the server of this URL, which is asked; without a model, the only one that it has.

    Raises SettingsError, with what the server speaks or has instead, when it does not speak the kind or lacks
    the model.
    """
    base_url = url.rstrip("/").removesuffix("/v1")
    models, is_ollama = _models(base_url)
    named = _chosen(base_url, sorted(models), model, is_ollama=is_ollama)
    spoken = [one for one in KINDS if _speaks(base_url + _PATHS[one])]
    if not spoken:
        raise SettingsError(f"--provider-url: {base_url} has none of {', '.join(_PATHS.values())}.")
    if kind is not None and kind not in spoken:
        raise SettingsError(f"--provider-kind: {base_url} does not speak {kind}; it speaks {', '.join(spoken)}.")
    window = models.get(named) or (OLLAMA_WINDOW if is_ollama else UNKNOWN_WINDOW)
    return OwnServersModel(base_url, kind or spoken[0], named, window, is_ollama)


def _chosen(base_url: str, models: list[str], model: str | None, *, is_ollama: bool) -> str:
    if model is None:
        if len(models) == 1:
            return models[0]
        has = f"it has {', '.join(models)}" if models else "it does not say which ones it has"
        raise SettingsError(f"--model: name a model of {base_url}; {has}.")
    if is_ollama and f"{model}:latest" in models:
        return f"{model}:latest"
    if (models or is_ollama) and model not in models:
        pull = f" `ollama pull {model}` fetches it." if is_ollama else ""
        raise SettingsError(f"--model: {base_url} has no {model}; it has {', '.join(models) or 'no model yet'}.{pull}")
    return model


def _models(base_url: str) -> tuple[dict[str, int | None], bool]:
    """The server's models, each with its window where that is told, and whether the server is Ollama."""
    status, said = _answer(Request(f"{base_url}/api/tags"))  # noqa: S310  http or https, checked in _answer
    if status == 200 and isinstance(tags := said.get("models"), list):
        return {str(one["name"]): None for one in tags if isinstance(one, dict) and "name" in one}, True
    status, said = _answer(Request(f"{base_url}/v1/models"))  # noqa: S310  as above
    listed = said.get("data") if status == 200 else None
    known = [one for one in listed if isinstance(one, dict) and "id" in one] if isinstance(listed, list) else []
    return {str(one["id"]): _window(one.get("max_model_len")) for one in known}, False


def _window(said: object) -> int | None:
    return said if isinstance(said, int) and said >= 64 else None


def _speaks(url: str) -> bool:
    """Whether the path is there: an empty request is refused where it is, before any model is asked."""
    headers = {"Content-Type": "application/json"}
    status, said = _answer(Request(url, data=b"{}", headers=headers, method="POST"))  # noqa: S310  as above
    # A missing model is a 404 as well, and one with an error object.
    return status not in (404, 405) or isinstance(said.get("error"), dict)


def _answer(request: Request) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer; an empty object when it is something else.

    Raises SettingsError when nothing answers.
    """
    if request.type not in ("http", "https"):
        raise SettingsError("--provider-url: must start with http:// or https://.")
    try:
        with urlopen(request, timeout=ASK_SECONDS) as response:  # noqa: S310  as above
            status, body = response.status, response.read()
    except HTTPError as refused:
        status, body = refused.code, refused.read()
    except (OSError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        where = f"{request.type}://{request.host}"
        raise SettingsError(f"--provider-url: no model server answers at {where}: {reason}.") from None
    try:
        said = json.loads(body)
    except ValueError:
        said = {}
    return status, said if isinstance(said, dict) else {}
