"""What the edge of a request promises whoever sends it: the token first, headers on every answer, words for the log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from starlette.types import Receive, Scope, Send

from minichat import __version__
from minichat.domain.errors import ServiceUnavailable
from minichat.http.app import create_app
from minichat.http.edge import Edge
from minichat.local.issuer import KEY_ID, Issuer
from minichat.observability import logger
from minichat.settings import Settings, Store
from minichat.storage import quota
from tests.conftest import fresh_tables
from tests.support.domain.builders import an_id

PREFIX = "/mini-chat/v1"
HOUR = timedelta(hours=1)
ANOTHERS = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def tables(engine: str) -> Store:
    return fresh_tables(engine)


@pytest.fixture
async def client(tmp_path: Path, tables: Store) -> AsyncIterator[httpx2.AsyncClient]:
    keys = json.loads(Issuer(tmp_path).jwks_file.read_text())
    with_rsa = json.loads(RSAAlgorithm.to_jwk(RSA_KEY.public_key())) | {"kid": "rsa"}
    encrypting = json.loads(ECAlgorithm.to_jwk(ANOTHERS.public_key())) | {"kid": "encrypting", "use": "enc"}
    agreeing = encrypting | {"kid": "agreeing", "use": "sig", "key_ops": ["deriveKey"]}
    jwks = tmp_path / "published.json"
    jwks.write_text(json.dumps({"keys": [*keys["keys"], with_rsa, encrypting, agreeing, "no key"]}))
    settings = Settings.model_validate(
        {
            "store": tables,
            "cursor_secret": "long enough, and nobody else's",
            "auth": {"jwks": str(jwks), "features_claim": "features"},
        }
    )
    transport = httpx2.ASGITransport(create_app(settings))
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://test{PREFIX}") as started:
        yield started


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """The fields of the log lines from now on."""
    lines: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(vars(record))

    handler, edge = Kept(), logging.getLogger(logger.name)
    edge.addHandler(handler)
    yield lines
    edge.removeHandler(handler)


def token(folder: Path, *, key: Any = None, kid: str = KEY_ID, algorithm: str = "ES256", **said: object) -> str:
    """A token with these claims, a span counted from now, None left out; signed by the folder's key."""
    auth, now = Settings().auth, datetime.now(UTC)
    claims: dict[str, object] = {
        "iss": auth.issuer,
        "aud": auth.audience,
        "exp": now + HOUR,
        "tenant_id": an_id(1),
        "sub": an_id(2),
        "features": ["ai_chat"],
    }
    at = {name: now + value if isinstance(value, timedelta) else value for name, value in said.items()}
    whole = {name: value for name, value in (claims | at).items() if value is not None}
    signing = key or (folder / "issuer-key.pem").read_text()
    return jwt.encode(whole, signing, algorithm=algorithm, headers={"kid": kid})


def bearer(given: str) -> dict[str, str]:
    return {"authorization": f"Bearer {given}"}


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("expired", {"exp": -HOUR}),
        ("not_yet_valid", {"nbf": HOUR}),
        ("issuer", {"iss": "https://elsewhere.example"}),
        ("audience", {"aud": "others"}),
        ("claim", {"exp": None}),
        ("claim", {"tenant_id": None}),
        ("claim", {"sub": "no name, because it is too long " * 9}),
        ("signature", {"key": ANOTHERS}),
        ("key", {"kid": "unknown"}),
        ("key", {"kid": "encrypting", "key": ANOTHERS}),
        ("key", {"kid": "agreeing", "key": ANOTHERS}),
        ("algorithm", {"algorithm": "HS256", "key": "a symmetric secret of more than thirty-two bytes"}),
    ],
)
async def test_the_log_says_why_a_token_is_none_and_the_caller_is_not_told(
    client: httpx2.AsyncClient, tmp_path: Path, log: list[dict[str, Any]], reason: str, said: dict[str, Any]
) -> None:
    answer = await client.get("/chats", headers=bearer(token(tmp_path, **said)))
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.json()["detail"] == "A valid bearer token is required."
    assert (log[-1]["code"], log[-1]["reason"], log[-1]["status"]) == ("unauthenticated", reason, 401)


@pytest.mark.holds("contract.token")
async def test_a_token_is_signed_by_one_of_two_algorithms(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    assert (await client.get("/chats", headers=bearer(token(tmp_path)))).status_code == 200
    for algorithm, status in (("RS256", 200), ("RS512", 401), ("PS256", 401)):
        given = token(tmp_path, key=RSA_KEY, kid="rsa", algorithm=algorithm)
        assert (await client.get("/chats", headers=bearer(given))).status_code == status


# FastAPI's own, of every body; a process that is not a test does not see it.
@pytest.mark.filterwarnings("ignore:The 'alias' attribute")
@pytest.mark.holds("contract.no-token")
async def test_the_root_says_who_answers_and_where_to_go_on(client: httpx2.AsyncClient) -> None:
    root = client.base_url.join("/")
    said = (await client.get(root)).json()
    assert (said["name"], said["version"]) == ("Mini Chat", __version__)
    for link in ("openapi", "docs", "health"):
        assert (await client.get(root.join(said[link]))).status_code == 200
    assert (await client.post(root)).json()["code"] == "method_not_allowed"


# As above.
@pytest.mark.filterwarnings("ignore:The 'alias' attribute")
@pytest.mark.parametrize("prefix", ["", "/mini-chat"])
async def test_the_root_leads_openais_clients_to_their_door_whatever_is_before_it(tables: Store, prefix: str) -> None:
    settings = Settings.model_validate(
        {"store": tables, "cursor_secret": "long enough, and nobody else's", "url_prefix": prefix}
    )
    transport = httpx2.ASGITransport(create_app(settings))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test/") as client:
        said = (await client.get("/")).json()
        assert said["openai"] == f"{prefix}/openai/v1".lstrip("/")
        assert (await client.get(f"/{said['openai']}/models")).json()["error"]["code"] == "invalid_api_key"


async def test_nobody_needs_a_token_for_health_and_the_document(client: httpx2.AsyncClient) -> None:
    for path in ("/health", "/openapi.json", "/docs"):
        for headers in ({}, bearer("a.b.c")):
            assert (await client.get(path, headers=headers)).status_code == 200


@pytest.mark.holds("contract.trace", "contract.server-timing")
async def test_a_callers_trace_is_that_of_the_log_line_and_the_problem_and_times_are_told(
    client: httpx2.AsyncClient, tmp_path: Path, log: list[dict[str, Any]]
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = bearer(token(tmp_path)) | {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = await client.get(f"/chats/{an_id(9)}/messages", headers=headers)
    assert (answer.status_code, answer.json()["trace_id"], log[-1]["trace_id"]) == (404, trace, trace)
    told = [one.partition(";dur=") for one in answer.headers["server-timing"].split(", ")]
    assert {"auth", "read", "total"} <= {name for name, _, _ in told}
    assert all(float(spent) >= 0 for _, _, spent in told)


@pytest.mark.parametrize(
    ("reason", "headers"),
    [("missing", {}), ("missing", {"authorization": "Basic YTpi"}), ("malformed", bearer("a.b.c"))],
)
async def test_a_header_that_holds_no_token_is_refused_alike(
    client: httpx2.AsyncClient, log: list[dict[str, Any]], reason: str, headers: dict[str, str]
) -> None:
    assert (await client.get("/chats", headers=headers)).status_code == 401
    assert log[-1]["reason"] == reason


@pytest.mark.parametrize(
    ("features", "status"),
    [
        (["ai_chat"], 200),
        (["search", "ai_chat"], 200),
        ("search ai_chat", 200),
        ({"ai_chat": True}, 200),
        ("no_ai_chat_for_you", 403),
        ("ai_chat_trial", 403),
        (["no_ai_chat_for_you"], 403),
        ({"ai_chat": False}, 403),
        ({"ai_chat": "true"}, 403),
        ([], 403),
        ("", 403),
        (True, 403),
        (None, 403),
    ],
)
async def test_a_licence_names_the_feature_whole(
    client: httpx2.AsyncClient, tmp_path: Path, features: object, status: int
) -> None:
    answer = await client.get("/chats", headers=bearer(token(tmp_path, features=features)))
    assert answer.status_code == status
    assert answer.json().get("code") == (None if status == 200 else "feature_not_licensed")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/chats", b"{"),
        ("POST", "/chats", b'{"title": 7}'),
        ("GET", "/chats/no-uuid", b""),
        ("POST", "/chats/no-uuid/messages:stream", b"["),
        ("PUT", "/chats/no-uuid/messages/no-uuid/reaction", b"{}"),
        ("GET", "/chats?limit=0", b""),
    ],
)
async def test_of_a_strangers_request_nothing_is_read(
    client: httpx2.AsyncClient, method: str, path: str, body: bytes
) -> None:
    answer = await client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/chats", "GET, POST"),
        (f"/chats/{an_id(1)}", "DELETE, GET, PATCH"),
        (f"/chats/{an_id(1)}/turns/{an_id(2)}", "DELETE, GET, PATCH"),
        (f"/chats/{an_id(1)}/attachments/{an_id(2)}", "DELETE, GET"),
        (f"/chats/{an_id(1)}/messages/{an_id(2)}/reaction", "DELETE, PUT"),
        ("/quota/status", "GET"),
    ],
)
async def test_a_method_that_a_path_lacks_is_answered_with_all_that_it_has(
    client: httpx2.AsyncClient, tmp_path: Path, path: str, allowed: str
) -> None:
    answer = await client.request("TRACE", path, headers=bearer(token(tmp_path)))
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


async def test_nobody_between_keeps_an_answer_or_guesses_its_type(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    for path in ("/chats", "/health", "/unknown", f"/chats/{an_id(1)}"):
        answer = await client.get(path, headers=bearer(token(tmp_path)))
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


async def test_a_log_line_says_whether_its_process_was_new(
    client: httpx2.AsyncClient, log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "minichat-api")
    for _ in range(2):
        await client.get("/health")
    assert [line["cold_start"] for line in log] == [True, False]
    assert {line["function"] for line in log} == {"minichat-api"}


@pytest.mark.parametrize("fails", [True, False])
async def test_the_failure_of_a_request_that_was_given_up_is_in_the_log(
    log: list[dict[str, Any]], *, fails: bool
) -> None:
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def late(*_: object) -> None:
        await may_end.wait()
        asyncio.get_running_loop().call_soon(ended.set)
        if fails:
            raise RuntimeError

    async def at_its_end(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"deadline_ms": 0}
        await Edge(late, "test")(scope, receive, send)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(at_its_end), base_url="http://test") as started:
        assert (await started.get("/chats")).status_code == 503
    may_end.set()
    await ended.wait()
    await asyncio.sleep(0)
    assert [line["msg"] for line in log] == ["request", *["a request that was given up failed"] * fails]


async def test_what_does_not_answer_is_named_in_the_log_alone(
    client: httpx2.AsyncClient, tmp_path: Path, log: list[dict[str, Any]]
) -> None:
    (tmp_path / "published.json").unlink()
    answer = await client.get("/chats", headers=bearer(token(tmp_path)))
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert "published.json" not in answer.text
    assert "FileNotFoundError" in log[-1]["cause"]


async def test_a_store_that_nobody_reaches_is_named_in_the_log_alone(
    tmp_path: Path, log: list[dict[str, Any]], engine: str
) -> None:
    jwks = Issuer(tmp_path).jwks_file
    nowhere = {"endpoint": "http://127.0.0.1:9"}
    values = {"store": nowhere, "cursor_secret": "long enough, and nobody else's", "auth": {"jwks": str(jwks)}}
    transport = httpx2.ASGITransport(create_app(Settings.model_validate(values)))
    try:
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://test{PREFIX}") as lost:
            answer = await lost.get("/quota/status", headers=bearer(token(tmp_path)))
    finally:
        fresh_tables(engine)  # connected to an engine again, for the tests that follow
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert "127.0.0.1" not in answer.text
    assert "EndpointConnectionError" in log[-1]["cause"]


async def test_who_finds_out_by_itself_that_it_cannot_go_on_is_named(
    client: httpx2.AsyncClient, tmp_path: Path, log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(*_: object, **__: object) -> None:
        raise ServiceUnavailable

    monkeypatch.setattr(quota, "quota_use", gives_up)
    answer = await client.get("/quota/status", headers=bearer(token(tmp_path)))
    assert (answer.status_code, log[-1]["status"]) == (503, 503)
    assert "gives_up" in log[-1]["cause"]
    assert "gives_up" not in answer.text
