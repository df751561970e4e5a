"""Spans, as the daemon beside a function gets them."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from minichat import tracing
from minichat.http.edge import Edge
from minichat.observability import begin, emit, measured

ROOT = "1-67891233-abcdef012345678912345678"
PARENT, TRACE = "53995c3f42cd8ad8", "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"Root={ROOT};Parent={PARENT};Sampled=1;Lineage=a87bd80c:1"


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the daemon was sent since the last look."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setblocking(False)
        monkeypatch.setattr(tracing, "_DAEMON", f"127.0.0.1:{daemon.getsockname()[1]}")

        def received() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            while True:
                try:
                    datagram = daemon.recv(65536)
                except BlockingIOError:
                    return found
                header, _, document = datagram.partition(b"\n")
                assert json.loads(header) == {"format": "json", "version": 1}
                found.append(json.loads(document))

        yield received


def test_a_span_of_a_sampled_request_is_a_subsegment(
    monkeypatch: pytest.MonkeyPatch, documents: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    begin().fields["trace_id"] = TRACE
    with measured("read"):
        pass
    with pytest.raises(ZeroDivisionError), measured("usage", "another"):
        _ = 1 / 0
    emit("")
    read, failed = documents()
    assert {name: read[name] for name in ("type", "trace_id", "parent_id", "name", "annotations")} == {
        "type": "subsegment",
        "trace_id": ROOT,
        "parent_id": PARENT,
        "name": "read",
        "annotations": {"trace_id": TRACE},
    }
    assert 1_700_000_000 < read["start_time"] <= read["end_time"]
    assert len(read["id"]) == 16
    assert (failed["name"], failed["fault"], failed["annotations"]) == ("usage", True, {"trace_id": "another"})
    assert ("fault" in read, read["id"] != failed["id"]) == (False, True)
    emit("")
    assert documents() == []


@pytest.mark.parametrize(
    "header", ["", f"Root={ROOT};Parent={PARENT};Sampled=0", f"Root={ROOT};Parent={PARENT}", "Root=1;Sampled=1", "x;;="]
)
def test_nobody_is_sent_what_nobody_samples(
    monkeypatch: pytest.MonkeyPatch, documents: Callable[[], list[dict[str, Any]]], header: str
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
    begin()
    with measured("read"):
        pass
    emit("")
    assert documents() == []


async def test_each_request_of_a_process_that_serves_several_has_its_own_segment(
    monkeypatch: pytest.MonkeyPatch, documents: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        with measured("read"):
            await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def sent(message: Any) -> None:
        del message

    async def asked() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    for header in (SAMPLED, SAMPLED.replace("Sampled=1", "Sampled=0")):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())],
            "state": {"trace_header": header},
        }
        await Edge(app, "")(scope, asked, sent)
    (read,) = documents()
    assert (read["name"], read["trace_id"], read["annotations"]) == ("read", ROOT, {"trace_id": TRACE})


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere", "127.0.0.1:none"])
def test_a_daemon_that_is_not_there_harms_nobody(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(tracing, "_DAEMON", address)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    begin()
    with measured("read"):
        pass
    emit("")
