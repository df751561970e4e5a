"""What the claims of a verified token say, by the deployment's settings: whose it is, or what is wrong with it.

Issuers agree on little besides the names in RFC 7519: docs/identity.md has the settings for ten of them. Signature and
times are checked before (`http.auth`); nothing here trusts a claim that settings do not name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minichat.auth_settings import Auth
from minichat.domain.actions import ROLES
from minichat.domain.api_key import SERVICE
from minichat.domain.errors import TokenFault
from minichat.domain.identity import SubjectType, TenantId, UserId
from minichat.domain.names import said

Claims = Mapping[str, Any]

_IN_BRACES = re.compile(r"\{([^{}]+)\}")
_INSERTED = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
"""What a claim may put into the issuer's URL: no slash, so that it stays within its place."""


@dataclass(frozen=True, slots=True)
class WrongClaim:
    """A claim that makes a token unacceptable: its name, the word for log lines, and why, for the operator."""

    name: str
    fault: TokenFault
    why: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom the claims name, with which of our roles, and whether they have the feature that the deployment wants."""

    tenant_id: TenantId
    user_id: UserId
    subject_type: SubjectType
    roles: frozenset[str]
    licensed: bool


def value(claims: Claims, path: str) -> Any:
    """A claim's value; None if it is absent.

    The whole path is a name first (`https://example.com/tenant`); then names within names, the longest first.
    """
    if path in claims:
        return claims[path]
    for at in (at for at in range(len(path) - 1, 0, -1) if path[at] == "."):
        inner = claims.get(path[:at])
        if isinstance(inner, Mapping) and (found := value(inner, path[at + 1 :])) is not None:
            return found
    return None


def wrong(claims: Claims, auth: Auth) -> list[WrongClaim]:
    """Everything that is wrong with the claims, times aside; a token is acceptable when nothing is."""
    return [*_not_for_us(claims, auth), *_of_nobody(claims, auth)]


def subject(claims: Claims, auth: Auth) -> Subject:
    """Whom acceptable claims name.

    Raises ValueError for claims of which something is `wrong`.
    """
    return Subject(
        TenantId(auth.tenant or _name(value(claims, auth.tenant_claim))),
        UserId(_name(value(claims, auth.subject_claim))),
        "system" if value(claims, auth.subject_type_claim) == "system" else "user",
        roles(claims, auth),
        auth.features_claim is None or auth.required_feature in _listed(value(claims, auth.features_claim)),
    )


def roles(claims: Claims, auth: Auth) -> frozenset[str]:
    """Which of our roles the claims give; names that nothing is known of give none."""
    if auth.roles_claim is None:
        return frozenset()
    ours = auth.roles or dict(zip(ROLES, ROLES, strict=True))
    return frozenset(ours[name] for name in _listed(value(claims, auth.roles_claim)) if name in ours)


def _not_for_us(claims: Claims, auth: Auth) -> Iterator[WrongClaim]:
    issuer, issuers = claims.get("iss"), (auth.issuer, *auth.other_issuers)
    if not any(issuer == _filled(one, claims) for one in issuers):
        yield WrongClaim("iss", "issuer", f"is {_shown(issuer)}, and {_one_of(issuers)} is expected")
    name, wanted = auth.audience_claim, (auth.audience, *auth.other_audiences)
    found = value(claims, name)
    if found is None:
        yield WrongClaim(name, "claim", f"is absent, and {_one_of(wanted)} is expected{_instead(claims, name)}")
    elif set(wanted).isdisjoint(found if isinstance(found, list) and _all_texts(found) else [str(found)]):
        yield WrongClaim(name, "audience", f"is {_shown(found)}, and {_one_of(wanted)} is expected")
    for name, expected in auth.expected_claims.items():
        if (found := value(claims, name)) != expected:
            yield WrongClaim(name, "claim", f"is {_shown(found)}, and {expected!r} is expected")


def _of_nobody(claims: Claims, auth: Auth) -> Iterator[WrongClaim]:
    wanted = {"subject_claim": auth.subject_claim}
    if auth.tenant is None:
        wanted["tenant_claim"] = auth.tenant_claim
    for setting, name in wanted.items():
        found = value(claims, name)
        try:
            text = _name(found)
        except ValueError as problem:
            yield WrongClaim(name, "claim", f"{problem} (it is the {setting})")
        else:
            if setting == "subject_claim" and text.startswith(SERVICE):
                yield WrongClaim(name, "claim", f"begins with {SERVICE!r}, as only service accounts do")


def _name(found: Any) -> str:
    """A tenant's or a subject's name in a claim; Keycloak lists the organizations of a user.

    Raises ValueError, saying why it is none.
    """
    if isinstance(found, list) and len(found) == 1:
        (found,) = found
    if found is None:
        raise ValueError("is absent")
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise ValueError(f"is {_shown(found)}, not one text")  # noqa: TRY004  it is the token's, not the caller's, type
    return said(str(found))


def _listed(found: Any) -> frozenset[str]:
    """Words in a claim: in a list, in a text with spaces between, or as members that are true or hold something.

    Only whole words match: `no_ai_chat_for_you` does not grant `ai_chat`.
    """
    match found:
        case str():
            return frozenset(found.split())
        case list():
            return frozenset(one for one in found if isinstance(one, str))
        case dict():
            return frozenset(name for name, held in found.items() if held is True or (held and isinstance(held, dict)))
        case _:
            return frozenset()


def _filled(issuer: str, claims: Claims) -> str | None:
    """The issuer with the claims that it names in braces; None when one is absent or does not fit a URL."""
    for name in _IN_BRACES.findall(issuer):
        found = value(claims, name)
        if not isinstance(found, str) or not _INSERTED.fullmatch(found):
            return None
        issuer = issuer.replace(f"{{{name}}}", found)
    return issuer


def _instead(claims: Claims, name: str) -> str:
    others = [one for one in ("aud", "client_id", "azp", "cid") if one != name and one in claims]
    return f"; the token has {' and '.join(others)}: audience_claim can name it" if others else ""


def _all_texts(found: list[Any]) -> bool:
    return all(isinstance(one, str) for one in found)


def _one_of(wanted: tuple[str, ...]) -> str:
    return " or ".join(map(repr, wanted))


def _shown(found: Any) -> str:
    return "absent" if found is None else ascii(found)[:200]
