"""`minichat token check`: whether the deployment accepts a token, and if not, which claim is in the way."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jwt

from minichat.auth_settings import Auth
from minichat.cli import target
from minichat.domain import api_key
from minichat.domain.errors import ServiceUnavailable, Unauthenticated
from minichat.http import claims as claims_of
from minichat.http.auth import ALGORITHMS, SigningKeys
from minichat.settings import current

_TIMES = {"exp": "verify_exp", "nbf": "verify_nbf", "iat": "verify_iat"}
_SECRETS = ("HS256", "HS384", "HS512")


class Checked(NamedTuple):
    """One thing about a token, whether it is good, and what was found."""

    name: str
    good: bool
    found: str


def add_to(commands: Any) -> None:
    """Adds the command to those of `token`."""
    parser = commands.add_parser("check", help="say whether the deployment accepts a token", description=__doc__)
    parser.add_argument("token", help="the token; - reads it from the standard input, out of the shell's history")
    target.add_to(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what was checked, never the token itself; 1 when it is refused."""
    said = sys.stdin.read() if options.token == "-" else options.token  # noqa: S105  it is a dash
    token = said.strip().removeprefix("Bearer ")
    target.attach(options)
    auth = current().auth
    found = checked(token, auth)
    for one in found:
        print(f"{'ok ' if one.good else 'NO '} {one.name:<14} {one.found}")
    good = all(one.good for one in found)
    print("The deployment accepts this token." if good else "The deployment refuses this token.")
    return 0 if good else 1


def checked(token: str, auth: Auth) -> list[Checked]:
    """Everything that the deployment looks at in a token, each with what was found, as far as it can be read."""
    if token.startswith(api_key.PREFIX):
        return [_key(token)]
    try:
        header = jwt.get_unverified_header(token)
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        return [Checked("token", good=False, found=f"is no JSON Web Token: {error}")]
    found = [*_signature(token, header, auth), *_times(token, claims, auth)]
    wrong = claims_of.wrong(claims, auth)
    named = {one.name for one in wrong}
    found += [
        Checked(name, good=True, found=ascii(claims_of.value(claims, name))[:200])
        for name in dict.fromkeys(("iss", auth.audience_claim, *auth.expected_claims))
        if name not in named
    ]
    found += [Checked(one.name, good=False, found=one.why) for one in wrong]
    return found if wrong else [*found, *_subject(claims, auth)]


def _key(text: str) -> Checked:
    try:
        key = api_key.presented(text)
    except ValueError as problem:
        return Checked("API key", good=False, found=str(problem))
    said = f"{key.key_id} of tenant {key.tenant_id!a}, if it is in the list of keys and not revoked"
    return Checked("API key", good=True, found=said)


def _signature(token: str, header: dict[str, Any], auth: Auth) -> Iterator[Checked]:
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm in _SECRETS:
        why = f"{algorithm} is signed with a shared secret: have the issuer sign with a key pair (RS256, ES256)"
        yield Checked("alg", good=False, found=why)
        return
    if algorithm not in ALGORITHMS:
        yield Checked("alg", good=False, found=f"{algorithm!r}, and {' or '.join(ALGORITHMS)} is expected")
        return
    yield Checked("alg", good=True, found=algorithm)
    try:
        key = asyncio.run(SigningKeys(auth.jwks).key(key_id))
        options: Any = dict.fromkeys((*_TIMES.values(), "verify_aud"), False)
        jwt.decode(token, key, algorithms=ALGORITHMS, options=options)
    except ServiceUnavailable:
        yield Checked("key", good=False, found=f"the key set cannot be read: {auth.jwks or 'jwks is not set'}")
    except Unauthenticated:
        yield Checked("key", good=False, found=f"{auth.jwks} has no key {key_id!r}: another issuer's, or rotated away")
    except jwt.PyJWTError as error:
        yield Checked("signature", good=False, found=f"{error} (key {key_id!r})")
    else:
        yield Checked("signature", good=True, found=f"by key {key_id!r}")


def _times(token: str, claims: dict[str, Any], auth: Auth) -> Iterator[Checked]:
    for name, option in _TIMES.items():
        if name not in claims and name != "exp":
            continue
        # Each alone: the library stops at the first that is wrong.
        unchecked = dict.fromkeys((*_TIMES.values(), "verify_signature", "verify_aud"), False)
        options: Any = {**unchecked, option: True, "require": [name]}
        try:
            jwt.decode(token, options=options, leeway=auth.leeway_seconds)
        except jwt.PyJWTError as error:
            yield Checked(name, good=False, found=f"{_instant(claims.get(name))}: {error}")
        else:
            yield Checked(name, good=True, found=_instant(claims[name]))


def _instant(said: Any) -> str:
    try:
        return datetime.fromtimestamp(int(said), UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return ascii(said)[:100]


def _subject(claims: dict[str, Any], auth: Auth) -> Iterator[Checked]:
    found = claims_of.subject(claims, auth)
    yield Checked("tenant", good=True, found=ascii(found.tenant_id) + (" (fixed)" if auth.tenant is not None else ""))
    yield Checked("subject", good=True, found=f"{found.user_id!a}, a {found.subject_type}")
    yield Checked("roles", good=True, found=", ".join(sorted(found.roles)) or "none: an ordinary user")
    if auth.features_claim is not None:
        said = f"{auth.features_claim} {'has' if found.licensed else 'lacks'} {auth.required_feature!r}"
        yield Checked("feature", good=found.licensed, found=said)
