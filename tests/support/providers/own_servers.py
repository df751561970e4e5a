"""Fakes of the model servers that people run themselves: their paths, their lists of models, their errors.

Ollama: its docs/api.md and openai compatibility (gin's plain `404 page not found`, 404 with an error object for a model
that was not pulled). vLLM: its OpenAI-compatible server (FastAPI's `{"detail": "Not Found"}`, a NotFoundError object).
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

WORDS = ("Hello ", "from ", "your ", "own ", "model.")


class _Server(BaseHTTPRequestHandler):
    """What both have in common: Chat Completions, streamed."""

    protocol_version = "HTTP/1.1"
    models: tuple[str, ...] = ()
    fails = ""

    def missing_model(self, model: str) -> dict[str, Any]:
        """The error object for a model that is not there."""
        raise NotImplementedError

    def refused(self, message: str) -> dict[str, Any]:
        """The error object for a request that is wrong."""
        raise NotImplementedError

    def not_there(self) -> None:
        """Answers for a path that is not there."""
        raise NotImplementedError

    def tell(self, status: int, said: Any) -> None:
        body = json.dumps(said).encode()
        self._head(status, "application/json", len(body))
        self.wfile.write(body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        if self.path != "/v1/chat/completions":
            self.not_there()
        elif not asked.get("messages"):
            self.tell(400, self.refused("messages: Field required"))
        elif asked.get("model") not in self.models:
            self.tell(404, self.missing_model(asked.get("model", "")))
        elif self.fails:
            self.tell(500, self.refused(self.fails))
        else:
            self._stream(asked)

    def _stream(self, asked: dict[str, Any]) -> None:
        about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
        deltas: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
            for word in WORDS
        ]
        deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
            deltas.append({"choices": [], "usage": usage})
        self._head(200, "text/event-stream", None)
        for delta in deltas:
            self.wfile.write(b"data: " + json.dumps(about | delta).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header(*(("connection", "close") if length is None else ("content-length", str(length))))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Ollama(_Server):
    def do_GET(self) -> None:
        if self.path == "/api/tags":
            self.tell(200, {"models": [{"name": name, "model": name, "size": 1} for name in self.models]})
        elif self.path == "/v1/models":
            self.tell(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        else:
            self.not_there()

    def missing_model(self, model: str) -> dict[str, Any]:
        message = f'model "{model}" not found, try pulling it first'
        return {"error": {"message": message, "type": "api_error", "param": None, "code": None}}

    def refused(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}

    def not_there(self) -> None:
        body = b"404 page not found"
        self._head(404, "text/plain", len(body))
        self.wfile.write(body)


class _Vllm(_Server):
    def do_GET(self) -> None:
        if self.path == "/v1/models":
            about = {"object": "model", "owned_by": "vllm", "max_model_len": 2048}
            self.tell(200, {"object": "list", "data": [{"id": name, **about} for name in self.models]})
        else:
            self.not_there()

    def missing_model(self, model: str) -> dict[str, Any]:
        message = f"The model `{model}` does not exist."
        return {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}

    def refused(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}

    def not_there(self) -> None:
        self.tell(404, {"detail": "Not Found"})


@contextmanager
def own_server(name: Literal["ollama", "vllm"], *models: str, fails: str = "") -> Iterator[str]:
    """The URL of such a server with these models; with `fails`, asked for an answer it fails in these words."""
    kind = type(name, (_Ollama if name == "ollama" else _Vllm,), {"models": models, "fails": fails})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()
