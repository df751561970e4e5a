"""Who is let in without a token, and that a token counts wherever one is given."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import anyio
import jwt
import pytest
from starlette.requests import Request

from minichat.auth_settings import Auth
from minichat.domain.errors import Unauthenticated
from minichat.domain.identity import Caller
from minichat.http.auth import Authenticator
from minichat.local.issuer import Issuer, as_uuid
from tests.support.domain.builders import a_caller
from tests.support.patience import PATIENCE

DEVELOPER = a_caller()


def caller(tenant: str | None, user: str | None, **headers: str) -> Caller:
    authenticator = Authenticator(Auth(development_tenant=tenant, development_user=user))
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return anyio.run(authenticator.caller, Request({"type": "http", "headers": raw}))


def test_without_a_token_the_developer_calls_where_there_is_one() -> None:
    assert caller(DEVELOPER.tenant_id, DEVELOPER.user_id) == DEVELOPER
    with pytest.raises(Unauthenticated):
        caller(None, None)


@pytest.mark.parametrize("given", ["Bearer nonsense", "Bearer ", ""])
def test_a_token_that_is_none_is_refused_also_where_a_developer_needs_none(given: str) -> None:
    with pytest.raises(Unauthenticated):
        caller(DEVELOPER.tenant_id, DEVELOPER.user_id, authorization=given)


def test_a_token_that_is_known_is_not_verified_again_and_not_beyond_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer(tmp_path)
    auth = Auth(jwks=str(issuer.jwks_file), leeway_seconds=0)
    authenticator = Authenticator(auth)
    token = issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(seconds=3), auth=auth)
    request = Request({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})
    verified = Mock(wraps=jwt.decode)
    monkeypatch.setattr(jwt, "decode", verified)

    async def until_it_is_over(first: Caller) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                assert await authenticator.caller(request) == first
                await asyncio.sleep(0.05)

    async def asked() -> None:
        first = await authenticator.caller(request)
        assert await authenticator.caller(request) == first
        assert verified.call_count == 1
        with pytest.raises(Unauthenticated):
            await until_it_is_over(first)

    asyncio.run(asked())


def test_a_token_with_another_signature_is_another_token(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    auth = Auth(jwks=str(issuer.jwks_file))
    authenticator = Authenticator(auth)
    token = issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(hours=1), auth=auth)
    forged = f"{token.rpartition('.')[0]}.{'A' * 86}"

    async def whose(given: str) -> Caller:
        return await authenticator.caller(
            Request({"type": "http", "headers": [(b"authorization", f"Bearer {given}".encode())]})
        )

    async def asked() -> None:
        await whose(token)
        with pytest.raises(Unauthenticated):
            await whose(forged)

    asyncio.run(asked())


def test_a_process_knows_no_more_tokens_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minichat.http.auth.MAX_VERIFIED", 2)
    issuer = Issuer(tmp_path)
    auth = Auth(jwks=str(issuer.jwks_file))
    authenticator = Authenticator(auth)

    async def asked() -> None:
        for user in ("ann", "bob", "cleo", "ann"):
            token = issuer.token("acme", user, now=datetime.now(UTC), lifetime=timedelta(hours=1), auth=auth)
            headers = [(b"authorization", f"Bearer {token}".encode())]
            found = await authenticator.caller(Request({"type": "http", "headers": headers}))
            assert found.user_id == as_uuid(user)

    asyncio.run(asked())
    assert len(authenticator._verified) == 2
