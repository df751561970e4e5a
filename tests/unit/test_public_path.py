"""Addresses in answers lead back to us, whatever stands before our paths."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Scope
from stream_runtime_request import scope_of

from minichat.http.public_path import note_prefix, public_path
from tests.support.http.gateway import proxy_event

AT = "/mini-chat/v1"


def a_scope(path: str, *, told: str | None = None, **headers: str) -> Scope:
    context = {"aws.event": {"requestContext": {"path": told}}} if told is not None else {}
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": lines, "state": {}, **context}


def prefix_of(scope: Scope) -> str:
    request = Request(scope)
    note_prefix(request, AT)
    return public_path(request, "")


@pytest.mark.parametrize(
    ("told", "path", "prefix"),
    [
        ("/dev/mini-chat/v1/chats", "/mini-chat/v1/chats", "/dev"),
        ("/mini-chat/v1/chats", "/mini-chat/v1/chats", ""),
        ("/v7/mini-chat/v1/chats", "/v7/mini-chat/v1/chats", "/v7"),
        ("/elsewhere", "/elsewhere", ""),
        ("//evil.example/mini-chat/v1/chats", "/mini-chat/v1/chats", ""),
    ],
    ids=["a stage", "a domain", "a domain's base path", "none of ours", "another host's"],
)
def test_what_the_gateway_has_before_our_path_is_found_and_our_routes_see_theirs(
    told: str, path: str, prefix: str
) -> None:
    scope = a_scope(path, told=told)
    assert prefix_of(scope) == prefix
    assert scope["path"] == (f"{AT}/chats" if "chats" in path else path)


def test_the_runtime_that_streams_tells_it_too() -> None:
    event: dict[str, Any] = proxy_event("POST", "/chats")
    scope = scope_of(event, deadline_ms=None, request_id="r")
    assert prefix_of(scope) == "/dev"


@pytest.mark.parametrize(
    ("told", "prefix"), [("/talk", "/talk"), ("/talk/", "/talk"), ("", ""), ("https://evil.example", ""), ("//x", "")]
)
def test_a_proxy_that_takes_its_prefix_away_says_so(told: str, prefix: str) -> None:
    assert prefix_of(a_scope(f"{AT}/chats", told=f"/dev{AT}/chats", x_forwarded_prefix=told)) == prefix


def test_a_path_of_no_gateway_is_taken_as_it_is() -> None:
    scope = a_scope(f"/before{AT}/chats")
    assert prefix_of(scope) == ""
    assert scope["path"] == f"/before{AT}/chats"
