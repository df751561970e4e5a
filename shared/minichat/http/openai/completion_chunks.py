"""The events of a turn's stream as the chunks of a chat completion, and the completion that they make together."""

from collections.abc import Iterator
from typing import Any

from minichat.domain.turn import Turn
from minichat.http.openai import error_shape, ids
from minichat.http.openai.response_events import annotation, usage_of
from minichat.services.channel import Numbered


class CompletionChunks:
    """Translates a turn's events, from the first one on."""

    def __init__(self, turn: Turn, *, include_usage: bool) -> None:
        self.is_over = False
        self.failed: tuple[str, str] | None = None
        """The code and the sentence of an answer that failed."""
        self._include_usage = include_usage
        self._head = {
            "id": ids.completion_id(turn.chat_id, turn.request_id),
            "created": int(turn.started_at.timestamp()),
            "model": turn.reserve.effective_model,
            "service_tier": None,
            "system_fingerprint": None,
        }
        self._texts: list[str] = []
        self._pages: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    def of(self, one: Numbered) -> list[dict[str, Any]]:
        """What an event becomes; nothing for a ping, or for the work of a tool."""
        return list(self._of(one.event.name, one.event.data))

    def _of(self, name: str, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if name == "stream_started":
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        elif name == "delta":
            self._texts.append(data["content"])
            yield self._chunk({"content": data["content"]})
        elif name == "citations":
            length = sum(map(len, self._texts))
            pages = [annotation(one, length) for one in data["items"] if one["source"] == "web"]
            self._pages = [{"type": "url_citation", "url_citation": _without_type(page)} for page in pages]
            if self._pages:
                yield self._chunk({"annotations": self._pages})
        elif name == "done":
            yield from self._done(data)
        elif name == "error":
            self.is_over = True
            self.failed = data["code"], data["message"]
            yield {"error": error_shape.failure(data["code"], data["message"])}

    def _done(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        reason = data["completion_signal"].get("reason")
        # Whatever cut the answer short: of the words there are, this one says that it is not whole.
        self._finish = {None: "stop", "content_filter": "content_filter"}.get(reason, "length")
        self._usage = _usage(usage_of(data["usage"]))
        self.is_over = True
        yield self._chunk({}, self._finish)
        if self._include_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return chunk | {"usage": None} if self._include_usage else chunk

    @property
    def completion(self) -> dict[str, Any]:
        """The whole answer, once it is over."""
        message = {
            "role": "assistant",
            "content": "".join(self._texts),
            "refusal": None,
            "annotations": self._pages,
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        whole = {**self._head, "object": "chat.completion", "choices": [choice]}
        return whole if self._usage is None else whole | {"usage": self._usage}


def _without_type(page: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in page.items() if name != "type"}


def _usage(told: dict[str, Any] | None) -> dict[str, Any] | None:
    if told is None:
        return None
    return {
        "prompt_tokens": told["input_tokens"],
        "completion_tokens": told["output_tokens"],
        "total_tokens": told["total_tokens"],
        "prompt_tokens_details": {**told["input_tokens_details"], "audio_tokens": 0},
        "completion_tokens_details": {**told["output_tokens_details"], "audio_tokens": 0},
    }
