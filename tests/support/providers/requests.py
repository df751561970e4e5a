"""What a provider is asked: a way to the scripted provider that keeps every request for an answer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

from minichat.local.scripted_tasks import answer_of_task
from tests.conftest import running_stack
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE
from tests.support.providers.files import a_scripted_provider


class Requests:
    """The requests for answers, by the text that the user's last message has, and what else the provider has."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._bodies: list[dict[str, Any]] = []

    def keep(self, body: dict[str, Any]) -> None:
        """Keeps one."""
        self._bodies.append(body)

    def about(self, text: str) -> list[dict[str, Any]]:
        """Those of users whose last message has this text in it, in what was said last."""
        said = ((body, _last_text(body)) for body in list(self._bodies))
        return [body for body, last in said if text in last and answer_of_task(last) is None]

    def files_of(self, chat_id: str) -> list[str]:
        """Names of the files that the provider has of a chat."""
        told = httpx2.get(f"{self.url}/control/files", trust_env=False).json()
        names = [told["about"].get(file, {}).get("filename", "") for file in told["files"]]
        return [name for name in names if chat_id in name]


def _last_text(body: dict[str, Any]) -> str:
    texts = [part["text"] for part in body["input"][-1]["content"] if "text" in part]
    return str(texts[-1])


@contextmanager
def a_stack_whose_requests_are_kept(folder: Path) -> Iterator[tuple[Stack, Requests]]:
    """The local stack with a provider that is reached by the way that keeps requests, for the time of a `with`."""
    with a_scripted_provider(folder) as url, _kept(url) as (requests, way):
        config = folder / "settings.json"
        config.write_text(json.dumps({"providers": {"openai": {"base_url": way, "allow_insecure": True}}}))
        with running_stack(folder / "state", "--config", str(config)) as stack:
            yield stack, requests


@contextmanager
def _kept(url: str) -> Iterator[tuple[Requests, str]]:
    requests = Requests(url)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(requests)) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield requests, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def _handler(requests: Requests) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            assert "transfer-encoding" not in self.headers, "a body without a length would be passed on as none"
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.command == "POST" and self.path == "/v1/responses":
                requests.keep(json.loads(content))
            sent = {"content-type": self.headers["content-type"]} if "content-type" in self.headers else {}
            answer = httpx2.request(
                self.command, requests.url + self.path, content=content, headers=sent, timeout=PATIENCE, trust_env=False
            )
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "application/json"))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            pass

    return Handler
