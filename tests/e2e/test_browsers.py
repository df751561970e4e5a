"""Pages on another origin, as a browser lets them call: it asks first, and shows only what the answer allows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from minichat.http import cors
from minichat.http.app import BUFFERED, STREAMING, routers
from minichat.http.edge import Edge
from tests.conftest import another_server
from tests.support.http.client import Stack, User
from tests.support.patience import PATIENCE

OURS, OTHERS = "https://app.example", "https://evil.example"
SAFE_METHODS = {"GET", "HEAD", "POST"}
SAFE_HEADERS = {"accept", "accept-language", "content-language"}
SHOWN_HEADERS = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
ROOT = Path(__file__).parents[2]
PREFLIGHT = ROOT / "tests" / "cases" / "preflight.http"
OPERATIONS = sorted(
    (method, re.sub(r"{\w+(:\w+)?}", "00000000-0000-4000-8000-000000000001", route.path))
    for part in (BUFFERED, STREAMING)
    for router in routers(part)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
)


class Blocked(Exception):
    """What the browser's console says."""


@dataclass
class Page:
    """A page of an origin, in a browser that follows the Fetch standard."""

    origin: str
    http: httpx2.Client

    def fetch(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """The answer, with those of its headers that the page may read. Raises Blocked."""
        headers = {name.lower(): value for name, value in request.pop("headers", {}).items()}
        asked = sorted(headers.keys() - SAFE_HEADERS)
        if method not in SAFE_METHODS or asked:
            self._may(method, path, asked)
        answer = self.http.request(method, path, headers={**headers, "origin": self.origin}, **request)
        self._check_origin(answer)
        shown = {name.strip().lower() for name in answer.headers.get("access-control-expose-headers", "").split(",")}
        for name in set(answer.headers) - shown - SHOWN_HEADERS:
            del answer.headers[name]
        return answer

    def _may(self, method: str, path: str, headers: list[str]) -> None:
        asking = {"origin": self.origin, "access-control-request-method": method}
        if headers:
            asking["access-control-request-headers"] = ",".join(headers)
        answer = self.http.request("OPTIONS", path, headers=asking)
        self._check_origin(answer)
        if not answer.is_success:
            raise Blocked(f"the preflight has status {answer.status_code}")
        allowed = {
            kind: {one.strip().lower() for one in answer.headers.get(f"access-control-allow-{kind}", "").split(",")}
            for kind in ("methods", "headers")
        }
        if method not in SAFE_METHODS and method.lower() not in allowed["methods"]:
            raise Blocked(f"{method} is not allowed")
        if missing := set(headers) - allowed["headers"]:
            raise Blocked(f"{missing} are not allowed")

    def _check_origin(self, answer: httpx2.Response) -> None:
        allowed = answer.headers.get("access-control-allow-origin")
        if allowed not in {self.origin, "*"}:
            raise Blocked(f"{allowed} is allowed")
        assert "access-control-allow-credentials" not in answer.headers


@pytest.fixture(scope="module")
def allowing(stack: Stack) -> Iterator[another_server]:
    """A server that pages of two origins may call."""
    with another_server(stack, MINICHAT_CORS__ALLOWED_ORIGINS=f"{OURS}, http://localhost:5173") as server:
        yield server


@pytest.fixture(scope="module")
def ann(allowing: another_server) -> Iterator[User]:
    with allowing.user("acme", "ann") as one:
        yield one


def bearer(user: User, **more: str) -> dict[str, str]:
    return {"Authorization": user.http.headers["authorization"], "Content-Type": "application/json", **more}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.holds("contract.origins")
def test_a_page_may_ask_for_every_operation_and_read_whatever_it_answers(
    allowing: another_server, method: str, path: str
) -> None:
    headers = {
        "Authorization": "Bearer x",
        "Content-Type": "application/json",
        **{"Idempotency-Key": "k", "Last-Event-ID": "1", "X-Request-Id": "r", "traceparent": "00-x"},
    }
    with httpx2.Client(base_url=allowing.base_url, trust_env=False, timeout=PATIENCE) as http:
        answer = Page(OURS, http).fetch(method, path, headers=headers)
        assert answer.headers["x-request-id"] == "r"
        assert "total" in answer.headers["server-timing"]
        with pytest.raises(Blocked):
            Page(OTHERS, http).fetch(method, path, headers=headers)


def test_what_is_sent_and_read_is_all_that_operations_have() -> None:
    assert {method for method, _ in OPERATIONS} <= set(cors.METHODS)


@pytest.mark.holds("contract.origins-headers")
def test_a_page_may_send_and_read_the_headers_that_the_contract_names_and_no_others(ann: User) -> None:
    said = " ".join((ROOT / "docs" / "contract.md").read_text("utf-8").split())
    sent, read = said.partition("A page may send ")[2].partition("Cookies")[0].split("and read")
    to_send, to_read = (set(re.findall(r"`([\w-]+)`", one)) for one in (sent, read))
    assert len(to_send) >= 7
    for name in to_send:
        Page(OURS, ann.http).fetch("GET", "/health", headers={name: "Bearer x" if name == "Authorization" else "x"})
    with pytest.raises(Blocked):
        Page(OURS, ann.http).fetch("GET", "/health", headers={"X-Other": "x"})
    shown = ann.http.get("/health", headers={"origin": OURS}).headers["access-control-expose-headers"]
    assert {one.strip() for one in shown.split(",")} == to_read


def test_a_page_holds_a_whole_conversation(ann: User) -> None:
    page, me = Page("http://localhost:5173", ann.http), bearer(ann)
    made = page.fetch("POST", "/chats", headers=me, json={"title": "From a page"})
    assert (made.status_code, made.headers["location"].rpartition("/")[2]) == (201, made.json()["id"])
    chat = f"/chats/{made.json()['id']}"
    request_id = str(uuid4())
    content = {"content": "[[words:3]]", "request_id": request_id}
    streamed = page.fetch("POST", f"{chat}/messages:stream", headers=me, json=content)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "event: done" in streamed.text
    again = page.fetch("GET", f"{chat}/turns/{request_id}/stream", headers={**me, "Last-Event-ID": "1"})
    assert "event: done" in again.text
    assert page.fetch("PATCH", chat, headers=me, json={"title": "Renamed"}).json()["title"] == "Renamed"
    assert page.fetch("DELETE", chat, headers=me).status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/chats", 401), ("GET", "/nowhere", 404), ("DELETE", "/models", 405), ("POST", "/chats", 400)],
)
def test_a_page_reads_why_it_was_refused(ann: User, method: str, path: str, status: int) -> None:
    headers = {} if status == 401 else bearer(ann)
    with httpx2.Client(base_url=ann.http.base_url, trust_env=False) as stranger:
        http = stranger if status == 401 else ann.http
        answer = Page(OURS, http).fetch(method, path, headers=headers, content=b"{" if status == 400 else b"")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "http://127.0.0.1:1", "http://[::1]:65535", "http://localhost"]
)
def test_pages_of_this_machine_may_call_the_local_stack_as_it_is(user: User, origin: str) -> None:
    page, me = Page(origin, user.http), bearer(user)
    chat = page.fetch("POST", "/chats", headers=me, json={}).json()["id"]
    sent = {"headers": me, "json": {"content": "[[words:3]]"}}
    assert "event: done" in page.fetch("POST", f"/chats/{chat}/messages:stream", **sent).text
    operators = str(user.http.base_url).replace("/mini-chat/v1", "/mini-chat/admin/v1")
    assert page.fetch("GET", f"{operators}policy", headers=me).status_code == 403


@pytest.mark.parametrize(
    "origin",
    ["null", "https://localhost:5173", "http://localhost.evil.example", "http://localhost:1.evil.example", OURS],
)
def test_pages_from_elsewhere_may_not_call_the_local_stack(user: User, origin: str) -> None:
    with pytest.raises(Blocked):
        Page(origin, user.http).fetch("GET", "/health")
    with pytest.raises(Blocked):
        Page(origin, user.http).fetch("GET", "/models", headers=bearer(user))


def test_an_answer_for_one_origin_is_not_kept_for_another(ann: User) -> None:
    for origin in (OURS, "http://localhost:5173"):
        answer = ann.http.get("/models", headers={"origin": origin, "cookie": "a=b"})
        assert answer.headers["access-control-allow-origin"] == origin
        assert "origin" in answer.headers["vary"].lower()


@pytest.mark.holds("contract.origins-none")
def test_the_prepared_preflight_is_answered_where_it_is_allowed_and_nowhere_else(ann: User, stack: Stack) -> None:
    first, *lines = PREFLIGHT.read_text().strip().split("\n")
    method, path, _ = first.split()
    headers = dict(line.strip().split(": ") for line in lines if not line.startswith("host"))
    url = str(ann.http.base_url).partition("/mini-chat")[0] + path
    allowed = httpx2.request(method, url, headers=headers, trust_env=False)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, OURS)
    assert int(allowed.headers["access-control-max-age"]) >= 600
    # By default nobody may: the answer is as if there were no such thing.
    with another_server(stack) as server, server.user("acme", "ann") as user:
        refused = user.http.request(method, "/chats", headers=headers)
        asked = user.http.get("/health", headers={"origin": OURS})
    assert refused.status_code == 405
    for answer in (refused, asked):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_failure_of_ours_is_not_kept_from_the_page_that_caused_it() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    app = cors.allowing((OURS,), Edge(fails, ""))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.example") as http:
        answer = await http.get("/", headers={"origin": OURS})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, OURS)


@pytest.mark.parametrize("origins", [("*",), ("*", OURS)])
@pytest.mark.holds("contract.no-cookies")
async def test_every_page_may_call_where_a_deployment_says_so_and_none_with_cookies(origins: tuple[str, ...]) -> None:
    async def serves(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx2.ASGITransport(app=cors.allowing(origins, serves))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.example") as http:
        asking = {"origin": OTHERS, "access-control-request-method": "PATCH"}
        for answer in (await http.options("/", headers=asking), await http.get("/", headers={"origin": OTHERS})):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
