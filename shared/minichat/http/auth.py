"""From a bearer token to a verified caller: the only place where a Caller comes from outside.

RS256 and ES256 only: an algorithm is never taken from the token alone (a symmetric one would let the public key sign).
Signature, issuer, audience and expiry are all required. Keys come from the issuer's JSON Web Key Set, by URL or file.
"""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from starlette.requests import Request

from minichat.domain.actions import ROLES
from minichat.domain.errors import FeatureNotLicensed, ServiceUnavailable, TokenFault, Unauthenticated
from minichat.domain.identity import Caller, SubjectType, TenantId, UserId
from minichat.settings import Auth

ALGORITHMS = ["RS256", "ES256"]
KEYS_LIFESPAN_SECONDS = 3600
UNKNOWN_KEY_COOLDOWN_SECONDS = 10
"""A token with an unknown key id makes us ask the issuer again, at most this often."""

VERIFIED_SECONDS = 300
"""How long a verified token counts as such, if it does not expire before: so long may a withdrawn key live on."""
MAX_VERIFIED = 4096
"""Tokens that a process knows, about 1 MB: beyond that the oldest is verified again."""


class SigningKeys:
    """The issuer's public keys, read when first needed and again when an unknown key id appears."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = float("-inf")
        self._failure: ServiceUnavailable | None = None
        self._lock = asyncio.Lock()

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """The public key of that id.

        Raises Unauthenticated when the issuer has no such key; ServiceUnavailable when it does not answer.
        """
        if key_id not in self._keys or self._age() > KEYS_LIFESPAN_SECONDS:
            async with self._lock:
                if self._age() > UNKNOWN_KEY_COOLDOWN_SECONDS:
                    await self._refresh()
        if not self._keys:
            raise ServiceUnavailable from self._failure
        try:
            return self._keys[key_id]
        except KeyError:
            raise Unauthenticated("key") from None

    def _age(self) -> float:
        return time.monotonic() - self._read_at

    async def _refresh(self) -> None:
        # The cooldown holds after a failure, too: requests must not queue up behind a silent issuer.
        self._read_at = time.monotonic()
        try:
            self._keys = await asyncio.to_thread(read_keys, self._location)
        except ServiceUnavailable as error:
            self._failure = error  # the known keys stay valid meanwhile


def read_keys(location: str) -> dict[str | None, jwt.PyJWK]:
    """The public keys of a JSON Web Key Set, by their ids; the set is at a URL or in a file.

    Raises ServiceUnavailable when it cannot be read.
    """
    try:
        if location.startswith(("https://", "http://")):
            found = jwt.PyJWKClient(location, cache_keys=False, timeout=5).fetch_data()
        else:
            found = json.loads(Path(location).read_text(encoding="utf-8"))
        keys = jwt.PyJWKSet.from_dict({"keys": [one for one in found["keys"] if _verifies(one)]}).keys
    except (jwt.PyJWTError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ServiceUnavailable from error
    return {key.key_id: key for key in keys}


def _verifies(key: Any) -> bool:
    """Whether a key may sign: one published for encryption may not (RFC 7517, 4.2, 4.3)."""
    return isinstance(key, dict) and key.get("use", "sig") == "sig" and "verify" in key.get("key_ops", ["verify"])


@dataclass(frozen=True, slots=True)
class _Verified:
    """Whose a token is, and until when nobody need verify it again, as a Unix time."""

    caller: Caller
    until: float


class Authenticator:
    """Verifies the token of a request and reads the caller from its claims.

    A token is verified once and then known by its digest: it comes with every request of a conversation, and its
    signature takes longer to check than all else of a request's edge.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._keys = SigningKeys(auth.jwks)
        self._verified: dict[bytes, _Verified] = {}

    async def caller(self, request: Request) -> Caller:
        """Who sends this request.

        Raises Unauthenticated, FeatureNotLicensed, ServiceUnavailable (the issuer's keys cannot be read).
        """
        authorization = request.headers.get("authorization")
        auth = self._auth
        if authorization is None and auth.development_tenant is not None and auth.development_user is not None:
            return Caller(TenantId(auth.development_tenant), UserId(auth.development_user))
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("missing")
        return await self._whose(token.strip())

    async def _whose(self, token: str) -> Caller:
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None and time.time() < known.until:
            return known.caller
        claims = await self._claims(token)
        caller = self._from_claims(claims)
        until = min(int(claims["exp"]) + self._auth.leeway_seconds, time.time() + VERIFIED_SECONDS)
        self._verified.pop(digest, None)
        while len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = _Verified(caller, until)
        return caller

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise Unauthenticated("algorithm")
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._keys.key(header.get("kid")),
                algorithms=ALGORITHMS,
                issuer=self._auth.issuer,
                audience=self._auth.audience,
                leeway=self._auth.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_fault(error)) from None
        return claims

    def _from_claims(self, claims: dict[str, Any]) -> Caller:
        auth = self._auth
        try:
            # Ids become parts of keys, so they must be UUIDs.
            tenant = UUID(str(claims[auth.tenant_claim]))
            subject = UUID(str(claims[auth.subject_claim]))
        except (KeyError, ValueError):
            raise Unauthenticated("claim") from None
        subject_type: SubjectType = "system" if claims.get(auth.subject_type_claim) == "system" else "user"
        roles = frozenset(role for role in ROLES if _lists(claims.get(auth.roles_claim), role))
        caller = Caller(TenantId(str(tenant)), UserId(str(subject)), subject_type, roles)
        if auth.features_claim is not None and not _lists(claims.get(auth.features_claim), auth.required_feature):
            raise FeatureNotLicensed(caller)
        return caller


def _lists(features: object, wanted: str) -> bool:
    """Whether a claim names the feature: in a list of words, in words with spaces between, or as a member that is true.

    Only whole words match: `no_ai_chat_for_you` does not grant `ai_chat`.
    """
    match features:
        case str():
            return wanted in features.split()
        case list():
            return wanted in features
        case dict():
            return features.get(wanted) is True
        case _:
            return False


_FAULTS: dict[type[jwt.PyJWTError], TokenFault] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.ImmatureSignatureError: "not_yet_valid",
    jwt.InvalidIssuedAtError: "not_yet_valid",
    jwt.InvalidIssuerError: "issuer",
    jwt.InvalidAudienceError: "audience",
    jwt.MissingRequiredClaimError: "claim",
    jwt.InvalidAlgorithmError: "algorithm",
    jwt.InvalidKeyError: "key",
    jwt.InvalidSignatureError: "signature",
}


def _fault(error: jwt.PyJWTError) -> TokenFault:
    return next((_FAULTS[kind] for kind in type(error).__mro__ if kind in _FAULTS), "malformed")
