"""The proof that an erasure leaves: a manifest of counts as a JSON Web Signature (RFC 7515, compact, HS256)."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

from minichat.domain.errors import ServiceUnavailable
from minichat.observability import logger
from minichat.settings import Settings


def signed(says: dict[str, Any], settings: Settings) -> str:
    """A manifest, signed by the deployment.

    Raises ServiceUnavailable without a secret.
    """
    header = {"alg": "HS256", "typ": "minichat-erasure+jws"}
    said = b".".join(_url(json.dumps(part, separators=(",", ":"), sort_keys=True).encode()) for part in (header, says))
    return b".".join((said, _signature(said, settings))).decode()


def verifies(manifest: str, settings: Settings) -> bool:
    """Whether the deployment has signed a manifest.

    Raises ServiceUnavailable without a secret.
    """
    said, _, signature = manifest.rpartition(".")
    return hmac.compare_digest(signature.encode(), _signature(said.encode(), settings))


def check_secret(settings: Settings) -> None:
    """Raises ServiceUnavailable when nothing can be signed."""
    _secret(settings)


def _signature(said: bytes, settings: Settings) -> bytes:
    return _url(hmac.digest(_secret(settings), said, hashlib.sha256))


def _secret(settings: Settings) -> bytes:
    secret = settings.manifest_secret.get_secret_value()
    if not secret:
        logger.error("manifest_secret is not set: nothing can be erased")
        raise ServiceUnavailable
    return secret.encode()


def _url(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")
