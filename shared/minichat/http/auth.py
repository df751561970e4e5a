"""From a bearer token to a verified caller: the only place where a Caller comes from outside.

RS256 and ES256 only: an algorithm is never taken from the token alone (a symmetric one would let the public key sign).
Signature, issuer, audience (or what stands for it, `http.claims`) and expiry are all required. Keys come from the
issuer's JSON Web Key Set, by URL or file. A token that begins with `mck_` is an API key: one read says whose.
"""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from starlette.requests import Request

from minichat import greenlets
from minichat.auth_settings import Auth
from minichat.domain import api_key
from minichat.domain.errors import FeatureNotLicensed, ServiceUnavailable, TokenFault, Unauthenticated
from minichat.domain.identity import Caller, TenantId, UserId
from minichat.http import claims as claims_of
from minichat.moment import now
from minichat.observability import logger
from minichat.services import api_keys

ALGORITHMS = ["RS256", "ES256"]
KEYS_LIFESPAN_SECONDS = 3600
UNKNOWN_KEY_COOLDOWN_SECONDS = 10
"""A token with an unknown key id makes us ask the issuer again, at most this often."""

VERIFIED_SECONDS = 300
"""How long a verified token counts as such, if it does not expire before: so long may a withdrawn key live on."""
KEY_SECONDS = 4
"""The same for an API key, whose revocation is in force within five seconds."""
SERVICE_ROLES = frozenset({"service"})
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
        self._noting: set[asyncio.Task[None]] = set()

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
        found = await (self._by_key(token) if token.startswith(api_key.PREFIX) else self._by_claims(token))
        self._verified.pop(digest, None)
        while len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = found
        return found.caller

    async def _by_claims(self, token: str) -> _Verified:
        claims = await self._claims(token)
        until = min(int(claims["exp"]) + self._auth.leeway_seconds, time.time() + VERIFIED_SECONDS)
        return _Verified(self._from_claims(claims), until)

    async def _by_key(self, text: str) -> _Verified:
        until = time.time() + KEY_SECONDS  # from before the read: what it saw is no older
        try:
            presented = api_key.presented(text)
        except ValueError:
            raise Unauthenticated("malformed") from None
        instant = now()
        key = await greenlets.run(api_keys.verified, presented, instant)
        if not api_keys.is_noted(key, instant):
            # The request does not wait for this.
            task = asyncio.ensure_future(greenlets.run(api_keys.note_use, key, instant))
            self._noting.add(task)
            task.add_done_callback(self._noted)
        caller = Caller(key.tenant_id, key.user_id, "system", SERVICE_ROLES, frozenset(key.scopes))
        return _Verified(caller, min(until, key.expires_at.timestamp()))

    def _noted(self, task: asyncio.Task[None]) -> None:
        self._noting.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.warning("the use of an API key is not noted", exc_info=problem)

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            return await verified(token, self._keys, self._auth)
        except jwt.PyJWTError as error:
            raise Unauthenticated(fault(error)) from None

    def _from_claims(self, claims: dict[str, Any]) -> Caller:
        if wrong := claims_of.wrong(claims, self._auth):
            raise Unauthenticated(wrong[0].fault)
        found = claims_of.subject(claims, self._auth)
        caller = Caller(found.tenant_id, found.user_id, found.subject_type, found.roles)
        if not found.licensed:
            raise FeatureNotLicensed(caller)
        return caller


async def verified(token: str, keys: SigningKeys, auth: Auth) -> dict[str, Any]:
    """The claims of a token whose signature and times are good: nothing else is checked.

    Raises a PyJWTError; Unauthenticated when the issuer has no such key; ServiceUnavailable when it does not answer.
    """
    header = jwt.get_unverified_header(token)
    if header.get("alg") not in ALGORITHMS:
        raise jwt.InvalidAlgorithmError(f"the token is signed by {header.get('alg')!r}")
    # Issuer and audience are in other claims at some issuers: `http.claims` compares them.
    claims: dict[str, Any] = jwt.decode(
        token,
        await keys.key(header.get("kid")),
        algorithms=ALGORITHMS,
        leeway=auth.leeway_seconds,
        options={"require": ["exp", "iss"], "verify_aud": False},
    )
    return claims


_FAULTS: dict[type[jwt.PyJWTError], TokenFault] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.ImmatureSignatureError: "not_yet_valid",
    jwt.InvalidIssuedAtError: "not_yet_valid",
    jwt.InvalidIssuerError: "issuer",
    jwt.MissingRequiredClaimError: "claim",
    jwt.exceptions.InvalidSubjectError: "claim",
    jwt.InvalidAlgorithmError: "algorithm",
    jwt.InvalidKeyError: "key",
    jwt.InvalidSignatureError: "signature",
}


def fault(error: jwt.PyJWTError) -> TokenFault:
    """The word for what a library refused a token for."""
    return next((_FAULTS[kind] for kind in type(error).__mro__ if kind in _FAULTS), "malformed")
