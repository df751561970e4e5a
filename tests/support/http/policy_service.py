"""A customer's service that says the layers of tenants: as strict as one should be, and as broken as one may be."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.patience import PATIENCE

SECRET = "a secret of the customer's"
PATH = "/policies?of=minichat"
FRESH_SECONDS = 300


@dataclass
class PolicyService:
    """What the service says: a layer by tenant, or a status and bytes for everybody; and whom it was asked for."""

    layers: dict[str, Any] = field(default_factory=dict)
    broken: tuple[int, bytes] | None = None
    silent: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """The status and body for a request; 401 for one that is not signed as it must be."""
        tenant, timestamp = headers.get("minichat-tenant", ""), headers.get("minichat-timestamp", "")
        expected = hmac.new(SECRET.encode(), f"{timestamp}\n{path}\n{tenant}".encode(), hashlib.sha256).hexdigest()
        is_signed = hmac.compare_digest(headers.get("minichat-signature", ""), f"v1={expected}")
        if path != PATH or not tenant or not is_signed or abs(time.time() - int(timestamp)) > FRESH_SECONDS:
            return 401, b""
        self.asked.append(tenant)
        if self.silent is not None:
            self.silent.wait(PATIENCE)
        if self.broken is not None:
            return self.broken
        if tenant not in self.layers:
            return 404, b""
        return 200, json.dumps(self.layers[tenant]).encode()


@contextmanager
def serving() -> Iterator[PolicyService]:
    """A running service."""
    service = PolicyService()

    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = service.answer(self.path, {name.lower(): said for name, said in self.headers.items()})
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            if service.silent is not None:
                service.silent.set()
            server.shutdown()
            thread.join()
