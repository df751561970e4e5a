"""What `minichat deploy check` looks at without an account: the parameters, and the issuer of tokens that they name."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2
from jwt import PyJWKClientConnectionError

from minichat import settings
from minichat.cli import deploy_options
from minichat.cli.deploy_plan import Plan
from minichat.cli.findings import CONNECT_SECONDS, Check, Finding, one_line, place
from minichat.domain.errors import ServiceUnavailable
from minichat.http.auth import read_keys
from minichat.local import deployed

DISCOVERY = "/.well-known/openid-configuration"
"""Below the issuer (OpenID Connect Discovery 1.0, 4)."""
_RESERVED = re.compile(r"(^|\.)(example\.(com|net|org)|example|invalid|test)$")
"""Names that are nobody's (RFC 2606)."""


def of(plan: Plan) -> Iterator[tuple[str, Check]]:
    """Every such check by its name."""
    wrong = dict(_wrong(plan))
    wrong = wrong or dict(deploy_options.alone(plan))
    for name, finding in wrong.items():
        yield f"parameter {name}", partial(_as_it_is, finding)
    if not wrong:
        yield "parameters", partial(_settings, plan)
    if "JwtIssuer" not in wrong:
        yield "token issuer", partial(_issuer, plan.parameters["JwtIssuer"])
    if "JwtJwksUrl" not in wrong:
        yield "key set", partial(_key_set, plan.parameters["JwtIssuer"], plan.parameters["JwtJwksUrl"])


def _as_it_is(finding: Finding) -> Finding:
    return finding


def _wrong(plan: Plan) -> Iterator[tuple[str, Finding]]:
    """Each parameter that CloudFormation would refuse, or SAM pass over."""
    for name in sorted(plan.given.keys() - plan.declared.keys()):
        near = get_close_matches(name, plan.declared, n=1)
        advice = f"It is called {near[0]}." if near else "Leave it out: sam deploy would, without a word."
        yield name, Finding("failed", "the template has no such parameter", advice)
    for name, declared in plan.declared.items():
        told = declared.get("Description") or "See the template."
        if name not in plan.given and "Default" not in declared:
            yield name, Finding("failed", "has no value, and no default", told)
        elif problem := _problem(plan.parameters[name], declared):
            yield name, Finding("failed", problem, told)


def _problem(value: str, declared: Mapping[str, Any]) -> str | None:
    """What a parameter's declaration has against a value."""
    if allowed := [str(one) for one in declared.get("AllowedValues", ())]:
        return None if value in allowed else f"{value!r} is none of {', '.join(allowed)}"
    if declared["Type"] == "Number":
        if re.fullmatch(r"-?\d+(\.\d+)?", value) is None:
            return f"{value!r} is no number"
        least, most = declared.get("MinValue"), declared.get("MaxValue")
        if (least is not None and float(value) < least) or (most is not None and float(value) > most):
            return f"{value} is not between {least} and {most}"
    pattern, most_characters = declared.get("AllowedPattern"), declared.get("MaxLength")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        return f"{value!r} does not match {pattern}"
    if most_characters is not None and len(value) > most_characters:
        return f"has {len(value)} characters, and {most_characters} is the most"
    return None


def _settings(plan: Plan) -> Finding:
    """What the functions would have against the parameters when they start."""
    _, problems = settings.examine(deployed.by_parameters(plan.parameters))
    if problems:
        said = "; ".join(map(one_line, problems))
        return Finding("failed", said, "Correct the parameter of that setting: no function would start.")
    return Finding("ok", f"{len(plan.given)} are given, the others have their defaults")


def _issuer(issuer: str) -> Finding:
    if _is_placeholder(issuer):
        return Finding("failed", f"{issuer} is a placeholder", "Name your own in JwtIssuer (docs/identity.md).")
    compare = "Compare it with the `iss` of a token: `minichat token check` does."
    if not _can_be_asked(issuer):
        return Finding("warning", f"{issuer} is no address that could be asked", compare)
    try:
        found = _discovered(issuer)
    except httpx2.HTTPError as error:
        advice = "Correct JwtIssuer, or see why it does not answer."
        return Finding("failed", f"{place(issuer)} cannot be reached ({type(error).__name__})", advice)
    if found is None:
        return Finding("warning", f"{place(issuer)} tells nothing of itself at {DISCOVERY}", compare)
    if found.get("issuer") != issuer:
        advice = "Set JwtIssuer to that, to the letter: the tokens say it."
        return Finding("failed", f"{issuer} calls itself {found.get('issuer')!a}", advice)
    return Finding("ok", f"{issuer} calls itself so")


def _key_set(issuer: str, url: str) -> Finding:
    if _is_placeholder(url):
        advice = "Name your issuer's in JwtJwksUrl (docs/identity.md)."
        return Finding("failed", f"{place(url)} is a placeholder", advice)
    try:
        keys = read_keys(url)
    except ServiceUnavailable as error:
        reached = not isinstance(error.__cause__, PyJWKClientConnectionError)
        why = (
            "is no JSON Web Key Set with a key that signs"
            if reached
            else f"cannot be read: {one_line(error.__cause__)}"
        )
        return Finding(
            "failed", f"{place(url)} {why}", "Correct JwtJwksUrl: `jwks_uri` of the issuer's discovery names it."
        )
    other = _own_keys(issuer, url)
    if other is not None and other[1].isdisjoint(keys):
        advice = f"Set JwtJwksUrl to {other[0]}: with these keys, every token would be refused."
        return Finding("failed", f"{place(url)} has keys, and none is the issuer's", advice)
    return Finding("ok", f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} at {place(url)}")


def _own_keys(issuer: str, url: str) -> tuple[str, set[str | None]] | None:
    """Where an issuer itself says that its keys are, and their ids; None when it does not say, or says this URL."""
    try:
        found = _discovered(issuer) if _can_be_asked(issuer) else None
        where = str((found or {}).get("jwks_uri", url))
        return None if where == url else (where, set(read_keys(where)))
    except (httpx2.HTTPError, ServiceUnavailable):
        return None


def _discovered(issuer: str) -> dict[str, Any] | None:
    """What an issuer publishes of itself; None when it publishes nothing that can be read.

    Raises HTTPError when it does not answer.
    """
    answer = httpx2.get(issuer.rstrip("/") + DISCOVERY, timeout=CONNECT_SECONDS, follow_redirects=True)
    try:
        found = answer.json() if answer.is_success else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else None


def _can_be_asked(issuer: str) -> bool:
    """Whether it is an address, and one issuer's: with `{tid}` it stands for those of many tenants."""
    return issuer.startswith("https://") and "{tid}" not in issuer


def _is_placeholder(url: str) -> bool:
    host = urlsplit(url).hostname or url
    return _RESERVED.search(host) is not None
