"""Tokens of ten issuers, in the shapes that these publish, and what becomes of one that does not fit."""

import argparse
import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from starlette.requests import Request

from minichat.auth_settings import Auth
from minichat.cli import main
from minichat.cli.output import table
from minichat.cli.target import a_tenant
from minichat.cli.token_check import checked
from minichat.domain.errors import Unauthenticated
from minichat.domain.identity import Caller
from minichat.http import claims as claims_of
from minichat.http.auth import Authenticator
from minichat.settings import current
from tests.support.http.tokens import SHAPES, Shape, published, signed

GUIDE = Path(__file__).parents[2] / "docs" / "identity.md"
TOKEN = SHAPES["auth0"]


def _auth(shape: Shape, folder: Path, **more: Any) -> Auth:
    return Auth.model_validate({**shape.settings, "jwks": published(folder), **more})


def _caller(token: str, auth: Auth) -> Caller:
    request = Request({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})
    return asyncio.run(Authenticator(auth).caller(request))


def _changed(claims: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (claims | changes).items() if value is not None}


@pytest.mark.parametrize("issuer", SHAPES)
def test_a_token_of_this_issuer_is_accepted_with_its_settings(issuer: str, tmp_path: Path) -> None:
    shape = SHAPES[issuer]
    auth, token = _auth(shape, tmp_path), signed(shape.claims)
    caller = _caller(token, auth)
    assert (caller.tenant_id, caller.user_id, caller.roles) == (shape.tenant, shape.subject, shape.roles)
    assert [one for one in checked(token, auth) if not one.good] == []


@pytest.mark.parametrize("issuer", SHAPES)
def test_the_guide_says_these_settings_of_this_issuer(issuer: str) -> None:
    blocks = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)]
    assert {"issuer", "jwks"} <= set.intersection(*map(set, blocks))
    assert SHAPES[issuer].settings in [{k: v for k, v in one.items() if k != "jwks"} for one in blocks]


@pytest.mark.parametrize("issuer", SHAPES)
def test_a_token_without_one_of_the_claims_that_count_is_refused(issuer: str, tmp_path: Path) -> None:
    shape = SHAPES[issuer]
    auth = _auth(shape, tmp_path)
    paths = [auth.subject_claim, auth.audience_claim, "iss", *auth.expected_claims]
    for name in [*paths, *([] if auth.tenant else [auth.tenant_claim])]:
        outer = name if name in shape.claims else name.split(".")[0]
        token = signed(_changed(shape.claims, **{outer: None}))
        with pytest.raises(Unauthenticated):
            _caller(token, auth)
        wrong = [one.name for one in checked(token, auth) if not one.good]
        assert name in wrong
    with pytest.raises(Unauthenticated):
        _caller(signed(shape.claims, exp=int(time.time()) - 3600), auth)


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"iss": "https://evil.example/"}, "iss", "issuer"),
        ({"iss": "https://my-domain.auth0.com"}, "iss", "issuer"),
        ({"aud": ["other"]}, "aud", "audience"),
        ({"aud": [1, None]}, "aud", "audience"),
        ({"aud": []}, "aud", "audience"),
        ({"org_id": ""}, "org_id", "claim"),
        ({"org_id": "a" * 256}, "org_id", "claim"),
        ({"org_id": ["a", "b"]}, "org_id", "claim"),
        ({"org_id": {"a": 1}}, "org_id", "claim"),
        ({"org_id": True}, "org_id", "claim"),
        ({"org_id": "deployment"}, "org_id", "claim"),
        ({"sub": ""}, "sub", "claim"),
        ({"nbf": int(time.time()) + 900}, "nbf", "not_yet_valid"),
        ({"exp": int(time.time()) - 900}, "exp", "expired"),
        ({"exp": "tomorrow"}, "exp", "malformed"),
    ],
)
def test_a_claim_that_does_not_fit_is_named(changes: dict[str, Any], name: str, reason: str, tmp_path: Path) -> None:
    auth, token = _auth(TOKEN, tmp_path), signed(TOKEN.claims | changes)
    with pytest.raises(Unauthenticated) as refused:
        _caller(token, auth)
    assert refused.value.reason == reason
    (wrong,) = [one for one in checked(token, auth) if not one.good]
    assert wrong.name == name


def test_a_tenants_issuer_speaks_for_no_other_tenant(tmp_path: Path) -> None:
    shape = SHAPES["entra"]
    auth = _auth(shape, tmp_path)
    for tid in ("00000000-0000-0000-0000-000000000001", "a/../b", None):
        with pytest.raises(Unauthenticated):
            _caller(signed(_changed(shape.claims, tid=tid)), auth)


def test_a_claim_is_its_whole_name_before_it_is_a_path() -> None:
    claims = {"https://example.com/tenant": "one", "a.b": {"c.d": "two"}, "a": {"b": "three"}}
    assert claims_of.value(claims, "https://example.com/tenant") == "one"
    assert claims_of.value(claims, "a.b.c.d") == "two"
    assert claims_of.value({"a": {"b": "three"}}, "a.b") == "three"
    assert claims_of.value(claims, "a.c") is None
    assert claims_of.value({"a": "b"}, "a.b") is None


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ("auditor operator poet", {"auditor", "operator"}),
        (["auditor", 7, None], {"auditor"}),
        ({"auditor": {"org": "acme"}, "operator": False, "support": True}, {"auditor", "support"}),
        (None, set()),
        (7, set()),
    ],
)
def test_roles_are_words_of_a_claim_of_which_we_know_the_meaning(said: Any, ours: set[str]) -> None:
    assert claims_of.roles({"roles": said}, Auth(roles_claim="roles")) == ours
    assert claims_of.roles({"roles": said}, Auth()) == set()
    assert claims_of.roles({"roles": said}, Auth(roles_claim="roles", roles={"boss": "operator"})) == set()


def test_a_role_that_does_not_exist_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="there is no role 'boss', only operator"):
        Auth(roles={"admin": "boss"})


def test_a_shared_secret_is_refused_with_a_word_on_what_to_do(tmp_path: Path) -> None:
    token = jwt.encode({**SHAPES["supabase"].claims, "exp": int(time.time()) + 60}, "s" * 32, algorithm="HS256")
    auth = _auth(SHAPES["supabase"], tmp_path)
    with pytest.raises(Unauthenticated):
        _caller(token, auth)
    (wrong,) = [one for one in checked(token, auth) if not one.good]
    assert (wrong.name, "key pair (RS256, ES256)" in wrong.found) == ("alg", True)


def test_the_command_says_who_a_token_is_and_never_says_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINICHAT_AUTH", json.dumps(TOKEN.settings))
    monkeypatch.setenv("MINICHAT_AUTH__JWKS", published(tmp_path))
    current.cache_clear()
    token = signed(TOKEN.claims)
    try:
        assert main.main(["token", "check", token]) == 0
        said = capsys.readouterr().out
        for word in ("'org_9ybsU1dN2dKfDkBi'", "'auth0|5f7c8ec7c33c6c004bbafe82'", "tenant_admin", "accepts"):
            assert word in said
        forged = f"{token.rpartition('.')[0]}.{'A' * 342}"
        for refused in (forged, "nonsense", signed(TOKEN.claims, org_id=None)):
            assert main.main(["token", "check", refused]) == 1
        said += capsys.readouterr().out
        assert "Signature verification failed" in said
        assert "NO  org_id" in said
        for part in token.split("."):
            assert part not in said
    finally:
        current.cache_clear()


def test_a_token_of_the_local_stack_has_the_roles_that_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["token", "--tenant", "acme", "--user", "ann", "--state", str(tmp_path)]
    assert main.main([*asked, "--role", "tenant_admin", "--role", "auditor"]) == 0
    auth = Auth(jwks=str(tmp_path / "jwks.json"), roles_claim="roles")
    assert _caller(capsys.readouterr().out.strip(), auth).roles == {"tenant_admin", "auditor"}
    with pytest.raises(SystemExit):
        main.main(["token"])


def test_no_token_names_a_service_account(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated):
        _caller(signed(TOKEN.claims | {"sub": "mck:crm"}), _auth(TOKEN, tmp_path))


def test_what_would_steer_a_terminal_is_shown_and_not_done() -> None:
    shown = table(("user",), [("\x1b[2J\u202eann",)])
    assert shown.splitlines()[1] == r"\x1b[2J\u202eann"


def test_a_tenant_that_can_be_none_is_no_option() -> None:
    assert a_tenant("0B8F4C1E-6A52-4A0E-9A57-0F8D8F3F2C11") == "0b8f4c1e-6a52-4a0e-9a57-0f8d8f3f2c11"
    with pytest.raises(argparse.ArgumentTypeError):
        a_tenant("")
