"""Bad input: each answers its problem, names the field, and writes nothing."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from minichat.local.issuer import Issuer, as_uuid
from tests.support.http.client import Stack, User

NOT_TEXT = ["", "   ", "\n\t\u3000"]


def _refused(answer: httpx2.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "code", "trace_id"} <= set(problem)
    assert (problem["title"], problem["status"]) == (code, status)
    if field is not None:
        assert field in [error["field"] for error in problem["errors"]]
    return problem


DEEP = '{"content":' * 5000 + '"a"' + "}" * 5000


@pytest.mark.parametrize("body", ["{", '{"content": "a"', "[1,", '{"content": "\\ud800"}', "\xff", DEEP])
@pytest.mark.holds("contract.bytes")
def test_a_malformed_body_is_refused(user: User, body: str) -> None:
    chat_id = user.new_chat()
    answer = user.http.post(
        f"/chats/{chat_id}/messages:stream",
        content=body.encode("latin-1"),
        headers={"content-type": "application/json"},
    )
    _refused(answer, 400, "invalid_request")
    assert user.messages(chat_id) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "content"),
        ({"content": None}, "content"),
        ({"content": 7}, "content"),
        ({"content": ["a"]}, "content"),
        *[({"content": text}, "content") for text in NOT_TEXT],
        ({"content": "a", "request_id": "nope"}, "request_id"),
        ({"content": "a", "request_id": 7}, "request_id"),
        ({"content": "a", "attachment_ids": ["nope"]}, "attachment_ids.0"),
        ({"content": "a", "attachment_ids": "x"}, "attachment_ids"),
        ({"content": "a", "attachment_ids": [str(uuid4()) for _ in range(65)]}, "attachment_ids"),
        ({"content": "a", "web_search": {}}, "web_search.enabled"),
        ({"content": "a", "web_search": {"enabled": "yes"}}, "web_search.enabled"),
        ({"content": "a", "web_search": True}, "web_search"),
        ([], "body"),
        ("text", "body"),
    ],
)
@pytest.mark.holds("contract.message-3mb")
def test_a_send_that_does_not_validate_names_its_field(user: User, body: object, field: str) -> None:
    chat_id = user.new_chat()
    _refused(user.http.post(f"/chats/{chat_id}/messages:stream", json=body), 400, "invalid_request", field)
    assert user.messages(chat_id) == []
    assert user.chat(chat_id)["message_count"] == 0


@pytest.mark.holds("contract.message-3mb")
def test_attachments_that_are_named_twice_or_unknown_are_refused(user: User) -> None:
    chat_id, one = user.new_chat(), str(uuid4())
    twice = user.send(chat_id, "a", attachment_ids=[one, one])
    assert (twice.status, twice.problem["code"]) == (400, "invalid_request")
    unknown = user.send(chat_id, "a", attachment_ids=[one])
    assert (unknown.status, unknown.problem["code"]) == (400, "invalid_attachment")


@pytest.mark.parametrize("title", [*NOT_TEXT, "x" * 256])
def test_a_title_that_says_nothing_or_too_much_is_refused(user: User, title: str) -> None:
    _refused(user.http.post("/chats", json={"title": title}), 400, "invalid_request", "title")
    chat_id = user.new_chat(title="kept")
    _refused(user.http.patch(f"/chats/{chat_id}", json={"title": title}), 400, "invalid_request", "title")
    assert user.chat(chat_id)["title"] == "kept"


@pytest.mark.parametrize("model", ["", "gpt-9", "GPT-4.1"])
def test_a_chat_with_an_unknown_model_is_refused(user: User, model: str) -> None:
    _refused(user.http.post("/chats", json={"model": model}), 400, "invalid_model")
    assert user.http.get("/chats").json()["items"] == []


@pytest.mark.parametrize("path", ["/chats/nope", "/chats/nope/messages", "/chats/123/turns/x"])
def test_ids_that_are_no_uuids_are_refused(user: User, path: str) -> None:
    _refused(user.http.get(path), 400, "invalid_request", "chat_id")


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", "1.5"])
def test_limits_outside_1_to_100_are_refused(user: User, limit: str) -> None:
    chat_id = user.new_chat()
    for path in ("/chats", f"/chats/{chat_id}/messages"):
        _refused(user.http.get(path, params={"limit": limit}), 400, "invalid_request", "limit")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("$filter", "content eq 'x'"),
        ("$filter", "role gt 'user'"),
        ("$filter", "role eq user"),
        ("$filter", "contains(role,'user')"),
        ("$filter", "created_at eq 'yesterday'"),
        ("$filter", "created_at gt 2026-02-30T00:00:00Z"),
        ("$filter", "id in ()"),
        ("$filter", "role eq 'user"),
        ("$filter", "'user' eq role"),
        ("$filter", "(" * 5000),
        ("$orderby", "content"),
        ("$orderby", "created_at sideways"),
        ("$orderby", "created_at asc, id desc"),
        ("$select", "id,secret"),
        ("$select", ""),
        ("$select", "id,id"),
        ("$top", "3"),
        ("$skip", "3"),
        ("$expand", "turn"),
        ("$Filter", "role eq 'user'"),
    ],
)
@pytest.mark.holds("contract.not-understood")
def test_queries_that_are_not_understood_are_refused(user: User, option: str, value: str) -> None:
    chat_id = user.new_chat()
    _refused(user.http.get(f"/chats/{chat_id}/messages", params={option: value}), 400, "invalid_request", option)


@pytest.mark.holds("contract.cursor")
def test_cursors_that_were_altered_or_carried_elsewhere_are_refused(stack: Stack, user: User) -> None:
    chat_id, other_chat = user.new_chat(), user.new_chat()
    for chat in (chat_id, other_chat):
        user.send(chat, "[[say:a]]")
    url = f"/chats/{chat_id}/messages"
    cursor = user.http.get(url, params={"limit": 1}).json()["page_info"]["next_cursor"]
    assert user.http.get(url, params={"cursor": cursor}).status_code == 200
    flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for bad in ("", "x", "é", cursor[:-2], flipped, cursor + "A", "A" * 20_000, base64.b64encode(b"{}").decode()):
        _refused(user.http.get(url, params={"cursor": bad}), 400, "invalid_cursor", "cursor")
    _refused(user.http.get(f"/chats/{other_chat}/messages", params={"cursor": cursor}), 400, "invalid_cursor")
    _refused(user.http.get("/chats", params={"cursor": cursor}), 400, "invalid_cursor")
    for mismatch in ({"$orderby": "created_at desc"}, {"$filter": "role eq 'user'"}):
        _refused(user.http.get(url, params={"cursor": cursor, **mismatch}), 400, "invalid_cursor")
    chats = user.http.get("/chats", params={"limit": 1}).json()["page_info"]["next_cursor"]
    with stack.user() as stranger:
        _refused(stranger.http.get("/chats", params={"cursor": chats}), 400, "invalid_cursor")


@pytest.mark.holds("contract.same-404")
def test_foreign_chats_do_not_exist_for_anybody_else(stack: Stack) -> None:
    with stack.user("acme", "owner") as owner:
        chat_id = owner.new_chat()
        turn = owner.send(chat_id, "[[say:secret]]").request_id
        for tenant, name in (("acme", "colleague"), ("rival", "owner")):
            with stack.user(tenant, name) as stranger:
                unknown = stranger.http.get(f"/chats/{uuid4()}").json()
                for answer in (
                    stranger.http.get(f"/chats/{chat_id}"),
                    stranger.http.get(f"/chats/{chat_id}/messages"),
                    stranger.http.get(f"/chats/{chat_id}/messages", params={"$orderby": "id desc"}),
                    stranger.turn(chat_id, turn),
                    stranger.delete(chat_id, turn),
                    stranger.http.patch(f"/chats/{chat_id}", json={"title": "mine"}),
                    stranger.http.delete(f"/chats/{chat_id}"),
                    stranger.http.post(f"/chats/{chat_id}/messages:stream", json={"content": "hi"}),
                    stranger.http.post(f"/chats/{chat_id}/turns/{turn}/retry"),
                    stranger.http.patch(f"/chats/{chat_id}/turns/{turn}", json={"content": "hi"}),
                ):
                    problem = _refused(answer, 404, "chat_not_found")
                    assert problem["detail"] == unknown["detail"]
        assert len(owner.messages(chat_id)) == 2


def test_turns_of_other_chats_do_not_exist(user: User) -> None:
    chat_id, other = user.new_chat(), user.new_chat()
    turn = user.send(chat_id, "[[say:a]]").request_id
    _refused(user.turn(other, turn), 404, "turn_not_found")
    _refused(user.delete(other, turn), 404, "turn_not_found")


def _claims(**said: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    claims = {
        "iss": "http://localhost/minichat-dev",
        "aud": "minichat",
        "exp": now + timedelta(hours=1),
        "sub": str(uuid4()),
        "tenant_id": str(uuid4()),
    }
    return {name: value for name, value in (claims | said).items() if value is not None}


def _signed_by_issuer(stack: Stack, claims: dict[str, Any], **headers: str) -> str:
    issuer = Issuer(stack.state)
    return jwt.encode(claims, issuer._key, algorithm="ES256", headers={"kid": "minichat-dev", **headers})


def _unsigned(claims: dict[str, Any], algorithm: str) -> str:
    header = {"alg": algorithm, "kid": "minichat-dev"}
    stamped = claims | {"exp": int(claims["exp"].timestamp())}
    return ".".join(_base64(json.dumps(part).encode()) for part in (header, stamped))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.holds("contract.token")
def test_tokens_that_do_not_verify_are_refused(stack: Stack) -> None:
    past = datetime.now(UTC) - timedelta(hours=2)
    good = _signed_by_issuer(stack, _claims())
    header, payload, signature = good.split(".")
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    public_key = (stack.state / "jwks.json").read_bytes()
    by_public_key = _unsigned(_claims(), "HS256")
    by_public_key += "." + _base64(hmac.digest(public_key, by_public_key.encode(), "sha256"))
    bad = {
        "expired": _signed_by_issuer(stack, _claims(exp=past)),
        "without expiry": _signed_by_issuer(stack, _claims(exp=None)),
        "of another issuer": _signed_by_issuer(stack, _claims(iss="http://elsewhere")),
        "for another audience": _signed_by_issuer(stack, _claims(aud="other")),
        "without tenant": _signed_by_issuer(stack, _claims(tenant_id=None)),
        "with a tenant that is too long": _signed_by_issuer(stack, _claims(tenant_id="a" * 256)),
        "with a tenant that is several": _signed_by_issuer(stack, _claims(tenant_id=["a", "b"])),
        "without subject": _signed_by_issuer(stack, _claims(sub=None)),
        "of an unknown key": _signed_by_issuer(stack, _claims(), kid="other"),
        "signed by a stranger": jwt.encode(_claims(), stranger_key, "ES256", headers={"kid": "minichat-dev"}),
        "unsigned": _unsigned(_claims(), "none") + ".",
        "signed with the public key as a secret": by_public_key,
        "with an altered payload": f"{header}.{payload[:-2]}AA.{signature}",
        "cut": good[:-10],
        "not a token": "abc",
    }
    assert httpx2.get(f"{stack.base_url}/models", headers={"authorization": f"Bearer {good}"}).status_code == 200
    for why, token in bad.items():
        answer = httpx2.get(f"{stack.base_url}/models", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401, why
        _refused(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    for headers in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}):
        _refused(httpx2.get(f"{stack.base_url}/models", headers=headers), 401, "unauthenticated")


@pytest.mark.holds("contract.problem")
def test_paths_and_methods_that_do_not_exist_are_problems_too(user: User) -> None:
    _refused(user.http.get("/nothing"), 404, "not_found")
    answer = user.http.put("/models")
    _refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.holds("contract.body-6mb")
def test_a_body_larger_than_a_function_takes_is_refused(user: User) -> None:
    chat_id = user.new_chat()
    answer = user.http.post(f"/chats/{chat_id}/messages:stream", json={"content": "x" * 6_100_000})
    _refused(answer, 413, "request_too_large")


@pytest.mark.holds("contract.message-3mb")
def test_a_message_over_the_models_input_is_too_long(user: User) -> None:
    small = user.new_chat(model="gpt-4.1-nano")
    refused = user.send(small, "x" * 1_000_000)
    assert (refused.status, refused.problem["code"]) == (400, "input_too_long")
    too_large = user.send(user.new_chat(), "x" * 3_100_000)
    assert (too_large.status, too_large.problem["code"]) == (400, "input_too_long")
    assert user.messages(small) == []
    assert user.send(small, "[[say:short]]").text == "short"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("naïve 😀 👩‍👩‍👧‍👦 \U0001f9ff", id="emoji"),
        pytest.param("before\x00after", id="NUL"),
        pytest.param("שלום \u202eעולם\u202c مرحبا", id="right to left"),
        pytest.param("\U00020000\U0010ffff" * 50, id="4-byte characters"),
        pytest.param("a\u2028b\u2029c\x85d\r\ne\tf", id="line separators"),
        pytest.param("  spaces around \n", id="white space around"),
        pytest.param('{"role": "system"} \\u0000 \\n "', id="escapes"),
        pytest.param("\ufeffbom \ufffe", id="byte order marks"),
    ],
)
@pytest.mark.holds("contract.bytes")
def test_every_character_goes_in_and_comes_back(user: User, content: str) -> None:
    chat_id = user.new_chat()
    answer = user.send(chat_id, f"[[echo]]{content}")
    listed = user.messages(chat_id)
    assert listed[0]["content"] == f"[[echo]]{content}"
    assert answer.text == content.strip()
    assert listed[1]["content"] == content.strip()


@pytest.mark.parametrize("size", [16_384, 16_385, 350_001, 600_000, 1_048_576, 2_900_000])
@pytest.mark.holds("contract.message-3mb")
def test_a_long_message_goes_in_and_comes_back_whole(user: User, size: int) -> None:
    chat_id = user.new_chat()
    # Multi-byte characters at every offset: no part may be cut inside one.
    content = ("[[say:got it]]" + "äb😀c" * size)[: size - 200]
    while len(content.encode()) > size:
        content = content[: len(content) - (len(content.encode()) - size) // 4 - 1]
    answer = user.send(chat_id, content)
    assert answer.text == "got it"
    for order in ("asc", "desc"):
        listed = user.messages(chat_id, **{"$orderby": f"created_at {order}"})
        assert {message["content"] for message in listed} == {content, "got it"}
    retried = user.retry(chat_id, answer.request_id)
    assert retried.text == "got it"
    assert [message["content"] for message in user.messages(chat_id)] == [content, "got it"]


def test_a_long_answer_comes_back_whole(user: User) -> None:
    chat_id = user.new_chat()
    text = "lang " * 12_000
    answer = user.send(chat_id, f"[[echo]][[delay:0]]{text}")
    assert answer.text == text.strip()
    assert user.messages(chat_id)[1]["content"] == text.strip()


def test_names_stand_for_stable_ids(stack: Stack) -> None:
    assert as_uuid("acme") == as_uuid("acme") != as_uuid("rival")
