"""The API from its built functions, with events of real size, under Lambda's runtime interface emulator."""

import json
import re
import socket
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.routing import APIRoute

from minichat.http.app import BUFFERED, STREAMING, routers
from minichat.http.multipart import FRAME_BYTES, MAX_FILE_BYTES
from tests.support.aws.emulated_gateway import EmulatedGateway, Reply, emulated_gateway
from tests.support.aws.emulator import SAM, Built
from tests.support.http.gateway import PREFIX, proxy_event, sized, wire

pytestmark = pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")

LARGEST = 6_291_556
"""Bytes of an event or an answer: 6 MB, and a little for what is around a payload."""


def test_every_operation_answers_events_of_real_size_from_the_built_functions(
    artifacts: Built, settings: dict[str, str], tmp_path: Path
) -> None:
    with emulated_gateway(artifacts, settings, tmp_path) as gateway:
        assert gateway.call("GET", "/health").json["status"] == "ok"
        assert gateway.call("GET", "/quota/status").status == 200
        assert gateway.call("GET", "/usage", query={"from": "2026-01-01", "to": "2026-01-31"}).json == {"items": []}
        (model, *_) = gateway.call("GET", "/models").json["items"]
        assert gateway.call("GET", "/models/{model_id}", {"model_id": model["model_id"]}).json == model
        _talk(gateway)
        _give_files(gateway)
        document = gateway.call("GET", "/openapi.json").json
        assert gateway.call("GET", "/docs").headers["content-type"].startswith("text/html")
        shows = gateway.call("GET", "/docs/{name}", {"name": "swagger-ui-bundle.js"})
        assert b"SwaggerUIBundle" in shows.body
    described = {
        (method.upper(), path.removeprefix(PREFIX)) for path, item in document["paths"].items() for method in item
    }
    served = {
        (method, re.sub(r":\w+}", "}", route.path))
        for router in routers(BUFFERED | STREAMING)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert gateway.calls == served
    assert served > described


def _talk(gateway: EmulatedGateway) -> None:
    made = gateway.call("POST", "/chats", body={"title": "Sizes"})
    chat_id = made.json["id"]
    assert made.headers["location"] == f"/dev{PREFIX}/chats/{chat_id}"
    chat = {"chat_id": chat_id}
    assert gateway.call("GET", "/chats", query={"limit": "5"}).json["items"][0]["id"] == chat_id
    assert gateway.call("PATCH", "/chats/{chat_id}", chat, {"title": "Größen"}).json["title"] == "Größen"
    assert gateway.call("GET", "/chats/{chat_id}", chat).json["title"] == "Größen"

    request_id, content = str(uuid4()), "[[say:Ja, schön.]] " + "Grüße, 世界. " * 1000
    sent = gateway.call(
        "POST", "/chats/{chat_id}/messages:stream", chat, {"content": content, "request_id": request_id}
    )
    assert sent.events == ["stream_started", "delta", "delta", "done"]
    turn = chat | {"request_id": request_id}
    listed = gateway.call("GET", "/chats/{chat_id}/messages", chat, query={"$filter": "role in ('user','assistant')"})
    assert [message["content"] for message in listed.json["items"]] == [content, "Ja, schön."]
    answer, reaction = (
        chat | {"message_id": listed.json["items"][1]["id"]},
        "/chats/{chat_id}/messages/{message_id}/reaction",
    )
    assert gateway.call("PUT", reaction, answer, {"reaction": "like"}).status == 200
    assert gateway.call("DELETE", reaction, answer).status == 204
    assert gateway.call("GET", "/chats/{chat_id}/turns/{request_id}", turn).json["state"] == "done"
    bill = gateway.call("GET", "/chats/{chat_id}/turns/{request_id}/bill", turn).json
    assert bill["charged"]["rule"] == "actual"
    assert bill["run"]["write_units"]["together"] > 0
    again = gateway.call("GET", "/chats/{chat_id}/turns/{request_id}/stream", turn, headers={"Last-Event-ID": "1"})
    assert again.events == sent.events[1:]
    assert gateway.call("POST", "/chats/{chat_id}/turns/{request_id}/cancel", turn).json["state"] == "done"
    retried = gateway.call("POST", "/chats/{chat_id}/turns/{request_id}/retry", turn)
    assert retried.events == sent.events
    retried = gateway.call("POST", "/chats/{chat_id}/turns/{request_id}:retry", _turn_of(chat, retried))
    edited = gateway.call(
        "PATCH", "/chats/{chat_id}/turns/{request_id}", _turn_of(chat, retried), {"content": "[[say:Nein.]]"}
    )
    assert edited.events == ["stream_started", "delta", "done"]
    assert gateway.call("DELETE", "/chats/{chat_id}/turns/{request_id}", _turn_of(chat, edited)).status == 204
    _export(gateway, chat)
    assert gateway.call("DELETE", "/chats/{chat_id}", chat).status == 204
    gone = gateway.call("POST", "/chats/{chat_id}/messages:stream", chat, {"content": "x"})
    assert str(gone) == "404 chat_not_found"


def _export(gateway: EmulatedGateway, chat: dict[str, str]) -> None:
    begun = gateway.call("POST", "/chats/{chat_id}/exports", chat)
    assert begun.status == 202
    assert gateway.call("GET", "/exports/{export_id}", {"export_id": begun.json["id"]}).json["scope"] == "chat"
    # One at a time, and nobody works on it here.
    assert str(gateway.call("POST", "/exports")) == "409 export_running"


def _turn_of(chat: dict[str, str], stream: Reply) -> dict[str, str]:
    """The turn that a stream has started."""
    started = json.loads(stream.body.split(b"data: ")[1].splitlines()[0])
    return chat | {"request_id": started["request_id"]}


def _give_files(gateway: EmulatedGateway) -> None:
    chat = {"chat_id": gateway.call("POST", "/chats", body={}).json["id"]}
    # The largest that a request may bring: as base64 it fills the event.
    content = b"%PDF-1.7\n".ljust(MAX_FILE_BYTES, b"\xff")
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
    )
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    form += content + b"\r\n--b\r\n\r\n" + bytes(FRAME_BYTES - 200) + b"\r\n--b--\r\n"
    # With as long a head as the gateway takes: the function's time is the token's, whatever else is in there.
    multipart["X-Long"] = "x" * (10_240 - len(gateway.token) - 1_000)
    given = gateway.call("POST", "/chats/{chat_id}/attachments", chat, form, headers=multipart)
    assert (given.status, given.json["size_bytes"]) == (201, len(content))
    announced = {"filename": "large.pdf", "content_type": "application/pdf", "size_bytes": 9_000_000}
    assert gateway.call("POST", "/chats/{chat_id}/attachments/uploads", chat, announced).status == 201
    attachment = chat | {"attachment_id": given.json["id"]}
    listed = gateway.call("GET", "/chats/{chat_id}/attachments", chat).json
    assert given.json["id"] in [attachment["id"] for attachment in listed["items"]]
    one = "/chats/{chat_id}/attachments/{attachment_id}"
    assert gateway.call("GET", one, attachment).json["status"] == "pending"
    assert gateway.call("DELETE", one, attachment).status == 204


ANSWERS = {
    1: ("AttributeError", "NotARequest"),
    100: ("200", "404 not_found"),
    2_048: ("201", "200"),
    2_049: ("201", "200"),
    10_000: ("201", "200"),
    100_000: ("201", "200"),
    1_000_000: ("201", "200"),
    5_900_000: ("201", "200"),
    6_000_000: ("201", "200"),
    LARGEST: ("413 request_too_large", "413 request_too_large"),
    LARGEST + 1: ("Runtime.UnmarshalError", "NotARequest"),
}
"""What both functions answer to events of so many bytes: a new chat, and a message. Of the largest one the emulator
passes on what fits, which is no JSON any more; Lambda refuses it itself."""


def test_events_of_every_size_are_answered(artifacts: Built, settings: dict[str, str], tmp_path: Path) -> None:
    answers = {}
    with emulated_gateway(artifacts, settings, tmp_path) as gateway:
        chat_id = gateway.call("POST", "/chats", body={}).json["id"]
        create = proxy_event("POST", "/chats", gateway.token, {"title": "Sizes"})
        send = proxy_event("POST", f"/chats/{chat_id}/messages:stream", gateway.token, {"content": "[[say:Yes.]]"})
        for size in ANSWERS:
            replies = [
                gateway.invoke("ApiFunction", _of_bytes(create, size)),
                gateway.invoke("StreamFunction", _of_bytes(send, size)),
            ]
            answers[size] = (str(replies[0]), str(replies[1]))
            assert replies[1].events == (["stream_started", "delta", "done"] if replies[1].status == 200 else [])
            print(f"{size:>10,} bytes: {answers[size][0]:24} {answers[size][1]}")
        assert gateway.call("GET", "/chats/{chat_id}", {"chat_id": chat_id}).json["message_count"] == 14
    assert answers == ANSWERS


def _of_bytes(event: dict[str, Any], size: int) -> bytes:
    """The request in so many bytes: with less than API Gateway sends, or something else, where they do not suffice."""
    if size == 1:
        return b"1"
    if size == 100:
        health = {
            "resource": "/",
            "path": "/mini-chat/v1/health",
            "httpMethod": "GET",
            "requestContext": {},
            "body": "",
        }
        return wire(health | {"body": "x" * (size - len(wire(health)))})
    if size < 5000:
        headers = {name: event["multiValueHeaders"][name] for name in ("Authorization", "Content-Type")}
        needed = {name: event[name] for name in ("resource", "path", "httpMethod", "body")}
        event = needed | {"multiValueHeaders": headers, "requestContext": {}}
    return sized(event, size)


FUNCTION_SECONDS, STARTED_SECONDS = 8, 120


def test_a_request_that_waits_for_a_silent_store_is_answered_before_the_functions_time_is_over(
    artifacts: Built, settings: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = settings | {
            "MINICHAT_STORE__ENDPOINT": store,
            "MINICHAT_ATTACHMENTS__ENDPOINT": store,
            # One that fails before is another matter.
            "MINICHAT_STORE__READ_TIMEOUT_SECONDS": "30",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(FUNCTION_SECONDS),
        }
        with emulated_gateway(artifacts, hanging, tmp_path) as gateway:
            _started(gateway)
            chat = {"chat_id": str(uuid4())}
            for called in (
                ("GET", "/chats/{chat_id}", chat),
                ("POST", "/chats", {}, {"title": "Never"}),
                ("DELETE", "/chats/{chat_id}", chat),
                ("POST", "/chats/{chat_id}/messages:stream", chat, {"content": "Hello?"}),
            ):
                began = time.monotonic()
                reply = gateway.call(*called)
                assert str(reply) == "503 service_unavailable", called
                assert reply.headers["content-type"] == "application/problem+json"
                assert time.monotonic() - began < FUNCTION_SECONDS
            # The process lives, and what hangs in it holds nobody up.
            assert gateway.call("GET", "/openapi.json").status == 200
    assert (tmp_path / "ApiFunction.log").read_text(encoding="utf-8").count("the invocation's time") == 3


def _started(gateway: EmulatedGateway) -> None:
    """Waits until both processes are there: the emulator counts their start as time of the first invocation."""
    until = time.monotonic() + STARTED_SECONDS
    for function in ("ApiFunction", "StreamFunction"):
        while b"timed out" in gateway.emulators[function].invoke(proxy_event("GET", "/health")):
            assert time.monotonic() < until, f"{function} does not start"


_LARGE = {
    "ApiFunction": """
import os
def handler(event, context):
    return str(os.getpid()).ljust(event["size"])
""",
    "StreamFunction": """
import os
async def app(scope, receive, send):
    size = int((await receive())["body"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode().ljust(65_536), "more_body": True})
    for at in range(65_536, size, 65_536):
        await send({"type": "http.response.body", "body": b" " * min(size - at, 65_536), "more_body": True})
""",
}


@pytest.mark.parametrize("function", _LARGE)
def test_an_answer_of_more_than_six_megabytes_is_refused_and_the_next_one_is_not(
    artifacts: Built, tmp_path: Path, function: str
) -> None:
    folder = artifacts.with_code(function, f"Large{function}", _LARGE[function])
    framed = len('""') if function == "ApiFunction" else len('{"statusCode": 200, "headers": {}, "cookies": []}') + 8
    with artifacts.emulator(function, {}, folder=folder, log=tmp_path / "log") as emulator:
        processes = set()
        for size in (LARGEST, LARGEST + 1, LARGEST):
            asked = {"httpMethod": "POST", "path": "/", "body": str(size - framed), "size": size - framed}
            answer = emulator.invoke(asked)
            if size > LARGEST:
                assert json.loads(answer)["errorType"] == "Function.ResponseSizeTooLarge"
                continue
            assert len(answer) == size
            processes.add(re.findall(rb"\d{2,}", answer[framed - 1 :])[0])
    # Our loop says what was refused and goes on; AWS's own client ends with its process.
    assert len(processes) == (2 if function == "ApiFunction" else 1)
    if function == "StreamFunction":
        assert "the runtime API refused a response: 413 {" in (tmp_path / "log").read_text(encoding="utf-8")
