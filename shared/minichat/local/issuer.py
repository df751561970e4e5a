"""A token issuer for development: its key lives in the state folder and signs what the local stack accepts."""

import json
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from minichat.auth_settings import Auth

KEY_ID = "minichat-dev"
ROLES_CLAIM = "roles"
"""Where a token has roles, unless settings name another claim."""
JWKS_PATH = "/.well-known/jwks.json"
"""Where the local server publishes the key set."""
JWKS_FILE = "jwks.json"
"""In the state folder: the public half of the key."""


def as_uuid(name: str) -> str:
    """The name if it is a UUID, else a UUID derived from it."""
    try:
        return str(UUID(name))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"minichat-dev:{name}"))


class Issuer:
    """Signs tokens with the key of a state folder; makes the key when it is missing."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.jwks_file = state / JWKS_FILE
        self._key_file = state / "issuer-key.pem"
        made = self._key_file.exists() and self._key_file.stat().st_size > 0  # empty: its making was interrupted
        self._key = self._load() if made else self._make()
        self._publish()

    def token(  # noqa: PLR0913  one for each thing that a token says
        self,
        tenant: str,
        user: str,
        *,
        now: datetime,
        lifetime: timedelta,
        auth: Auth = Auth(),
        roles: Sequence[str] = (),
        **more: Any,
    ) -> str:
        """A token for a user of a tenant, each a UUID or any name, with what the settings require, and `more` claims.

        `roles` are the issuer's names of them. A claim in a path has the path as its name, which is as good.
        """
        claims: dict[str, Any] = {
            "iss": auth.issuer,
            "iat": now,
            "exp": now + lifetime,
            auth.audience_claim: auth.audience,
            auth.subject_claim: as_uuid(user),
            auth.tenant_claim: as_uuid(tenant),
            auth.subject_type_claim: "user",
            **auth.expected_claims,
            **more,
        }
        if roles:
            claims[auth.roles_claim or ROLES_CLAIM] = list(roles)
        if auth.features_claim is not None:
            claims[auth.features_claim] = [auth.required_feature]
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": KEY_ID})

    def _load(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_pem_private_key(self._key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _make(self) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(os.open(self._key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
        return key

    def _publish(self) -> None:
        """Writes the public half unless the file holds it: it may be missing, broken, or of another key."""
        public = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        document = {"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}]}
        text = json.dumps(document).encode()
        if not self.jwks_file.exists() or self.jwks_file.read_bytes() != text:
            self.jwks_file.write_bytes(text)
