"""The development issuer: its tokens verify with its published keys alone."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest

from minichat.auth_settings import Auth
from minichat.domain.errors import ServiceUnavailable, Unauthenticated
from minichat.http import auth
from minichat.http.auth import SigningKeys
from minichat.local.issuer import KEY_ID, Issuer, as_uuid

HOUR = timedelta(hours=1)


def _claims(issuer: Issuer, token: str, auth: Auth) -> dict[str, Any]:
    """What a stranger reads who has the key set and knows whom the token is for."""
    keys = jwt.PyJWKSet.from_dict(json.loads(issuer.jwks_file.read_text()))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=["ES256"], audience=auth.audience, issuer=auth.issuer)
    return claims


def test_a_token_verifies_with_the_published_key(tmp_path: Path) -> None:
    issuer, now = Issuer(tmp_path), datetime.now(UTC)
    claims = _claims(issuer, issuer.token("acme", "ann", now=now, lifetime=HOUR), Auth())
    assert (claims["tenant_id"], claims["sub"]) == (as_uuid("acme"), as_uuid("ann"))
    assert claims["exp"] - claims["iat"] == HOUR.total_seconds()
    assert "features" not in claims


def test_a_token_has_the_claims_that_the_settings_name(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    auth = Auth(issuer="https://id.example", audience="ours", tenant_claim="org", features_claim="features")
    token = issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=HOUR, auth=auth)
    claims = _claims(issuer, token, auth)
    assert (claims["org"], claims["features"]) == (as_uuid("acme"), [auth.required_feature])


def test_an_expired_token_does_not_verify(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    token = issuer.token("acme", "ann", now=datetime.now(UTC) - 2 * HOUR, lifetime=HOUR)
    with pytest.raises(jwt.ExpiredSignatureError):
        _claims(issuer, token, Auth())


def test_another_folders_key_does_not_verify(tmp_path: Path) -> None:
    token = Issuer(tmp_path / "one").token("acme", "ann", now=datetime.now(UTC), lifetime=HOUR)
    with pytest.raises(jwt.InvalidSignatureError):
        _claims(Issuer(tmp_path / "two"), token, Auth())


def _other_keys(folder: Path) -> bytes:
    return Issuer(folder).jwks_file.read_bytes()


@pytest.mark.parametrize("broken", [None, b"", b'{"keys": [', b'{"keys": []}', b"\xff", "another key's"])
def test_a_key_set_that_does_not_hold_the_key_is_written_again(tmp_path: Path, broken: bytes | str | None) -> None:
    token = Issuer(tmp_path).token("acme", "ann", now=datetime.now(UTC), lifetime=HOUR)
    file = tmp_path / "jwks.json"
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken if isinstance(broken, bytes) else _other_keys(tmp_path / "other"))
    assert _claims(Issuer(tmp_path), token, Auth())["sub"] == as_uuid("ann")


def test_a_key_set_that_holds_the_key_is_left_alone(tmp_path: Path) -> None:
    file = Issuer(tmp_path).jwks_file
    os.utime(file, (0, 0))
    assert Issuer(tmp_path).jwks_file.stat().st_mtime == 0


def test_a_key_whose_making_was_interrupted_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "issuer-key.pem").touch()
    issuer = Issuer(tmp_path)
    token = issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=HOUR)
    assert _claims(issuer, token, Auth())["sub"] == as_uuid("ann")


def test_the_key_set_has_no_private_part(tmp_path: Path) -> None:
    (key,) = json.loads(Issuer(tmp_path).jwks_file.read_text())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_a_name_always_stands_for_the_same_uuid_and_a_uuid_for_itself() -> None:
    assert as_uuid("acme") == as_uuid("acme") == str(UUID(as_uuid("acme")))
    assert as_uuid("acme") != as_uuid("ann")
    assert as_uuid("0B8F4C1E-6A52-4A0E-9A57-0F8D8F3F2C11") == "0b8f4c1e-6a52-4a0e-9a57-0f8d8f3f2c11"


class _Published:
    """A key set at a URL, as an issuer publishes it: with a time to keep it, which changes nothing here."""

    def __init__(self, issuer: Issuer) -> None:
        self.answer: tuple[int, bytes] = (200, issuer.jwks_file.read_bytes())
        self.asked = 0

    def also(self, issuer: Issuer, key_id: str) -> None:
        """A second key beside the first, as while one is rotated."""
        first = json.loads(self.answer[1])["keys"]
        (second,) = json.loads(issuer.jwks_file.read_bytes())["keys"]
        self.answer = (200, json.dumps({"keys": [*first, second | {"kid": key_id}]}).encode())

    @contextmanager
    def served(self) -> Iterator[str]:
        published = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                published.asked += 1
                status, body = published.answer
                self.send_response(status)
                self.send_header("Cache-Control", "max-age=300")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/keys"
            server.shutdown()


async def test_a_key_that_is_rotated_at_its_url_is_found_and_the_old_one_goes_with_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Issuer(tmp_path / "first"), Issuer(tmp_path / "second")
    published = _Published(first)
    with published.served() as url:
        keys = SigningKeys(url)
        for _ in range(3):
            await keys.key(KEY_ID)
        assert published.asked == 1
        published.also(second, "second")
        with pytest.raises(Unauthenticated):  # nobody asks twice within the cooldown
            await keys.key("second")
        monkeypatch.setattr(auth, "UNKNOWN_KEY_COOLDOWN_SECONDS", -1)
        await keys.key("second")
        await keys.key(KEY_ID)
        assert published.asked == 2
        (_, kept) = json.loads(published.answer[1])["keys"]
        published.answer = (200, json.dumps({"keys": [kept]}).encode())
        monkeypatch.setattr(auth, "KEYS_LIFESPAN_SECONDS", -1)
        with pytest.raises(Unauthenticated):
            await keys.key(KEY_ID)
        await keys.key("second")


@pytest.mark.parametrize(
    "answer", [(500, b""), (429, b"slow down"), (200, b"<html>"), (200, b'{"keys": []}'), (200, b"[]")]
)
async def test_a_url_that_answers_with_no_keys_keeps_those_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes]
) -> None:
    published = _Published(Issuer(tmp_path))
    monkeypatch.setattr(auth, "UNKNOWN_KEY_COOLDOWN_SECONDS", -1)
    monkeypatch.setattr(auth, "KEYS_LIFESPAN_SECONDS", -1)
    with published.served() as url:
        keys = SigningKeys(url)
        await keys.key(KEY_ID)
        published.answer = answer
        await keys.key(KEY_ID)
        assert published.asked == 2
        with pytest.raises(ServiceUnavailable):
            await SigningKeys(url).key(KEY_ID)
