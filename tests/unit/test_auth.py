"""Who is let in without a token, and that a token counts wherever one is given."""

import anyio
import pytest
from starlette.requests import Request

from minichat.domain.errors import Unauthenticated
from minichat.domain.identity import Caller
from minichat.http.auth import Authenticator
from minichat.settings import Auth
from tests.support.domain.builders import a_caller

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
