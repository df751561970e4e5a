"""A customer's own service that says the layers of tenants: one signed request, one answer within its deadline.

    GET <url>
    Minichat-Tenant: <tenant id>
    Minichat-Timestamp: <seconds since 1970>
    Minichat-Signature: v1=<hex of HMAC-SHA256 over "<timestamp>\\n<path and query>\\n<tenant id>" with the secret>

200 has the layer as JSON, with its `policy_version`; 404 says that the tenant has none.
"""

import asyncio
import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
from pydantic import ValidationError

from minichat import greenlets
from minichat.domain.identity import TenantId
from minichat.domain.policy_layers import MAX_TENANT_BYTES, TenantLayer, own_contradictions
from minichat.moment import now
from minichat.provider_entries import TenantPolicies
from minichat.providers import egress
from minichat.providers.credentials import ProviderKeys
from minichat.providers.transport import NotAsked

CONNECTIONS = 8
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


class NoLayerTold(Exception):
    """The service gave no answer that can be used; the message says why, without its words."""


class TenantPolicyService:
    """The service of these settings."""

    def __init__(self, entry: TenantPolicies) -> None:
        self._entry = entry
        self._keys = ProviderKeys()
        limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._client = egress.client(limits, anywhere=entry.allow_insecure)
        self._calls = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="policy")

    def layer(self, tenant_id: TenantId) -> TenantLayer | None:
        """The layer of a tenant; None where the service knows of none.

        Raises NoLayerTold.
        """
        # In a thread: a deadline of the whole answer is none of the client's.
        asking = self._calls.submit(self._asked, tenant_id)
        seconds = self._entry.deadline_ms / 1000
        try:
            if greenlets.may_wait():
                return greenlets.wait(asyncio.wait_for(asyncio.wrap_future(asking), seconds))
            return asking.result(seconds)
        except TimeoutError:
            asking.cancel()
            raise NoLayerTold("no answer in time") from None
        except (httpx2.HTTPError, NotAsked) as error:
            raise NoLayerTold(type(error).__name__) from None

    def _asked(self, tenant_id: TenantId) -> TenantLayer | None:
        secret = None if self._entry.secret is None else self._keys.get(self._entry.secret)
        if secret is None:
            raise NoLayerTold("the secret cannot be read")
        timeout, body = self._entry.deadline_ms / 1000, bytearray()
        headers = signed(self._entry.url, tenant_id, secret, str(int(now().timestamp())))
        with self._client.stream("GET", self._entry.url, headers=headers, timeout=timeout) as answer:
            if answer.status_code == _NOT_FOUND:
                return None
            if answer.status_code == _UNAUTHORIZED and self._entry.secret is not None:
                # It may have been rotated.
                self._keys.refused(self._entry.secret, secret)
            if answer.status_code != _OK:
                raise NoLayerTold(f"status {answer.status_code}")
            for part in answer.iter_raw():
                body += part
                if len(body) > MAX_TENANT_BYTES:
                    raise NoLayerTold("the layer is too large")
        try:
            layer = TenantLayer.model_validate_json(bytes(body))
        except ValidationError as error:
            paths = {".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False)}
            raise NoLayerTold(f"not a layer: {', '.join(sorted(paths))}") from None
        if layer.policy_version is None:
            raise NoLayerTold("not a layer: policy_version")
        if wrong := list(own_contradictions(layer)):
            raise NoLayerTold(f"the layer contradicts itself: {', '.join(error.field for error in wrong)}")
        return layer


def signed(url: str, tenant_id: TenantId, secret: str, timestamp: str) -> dict[str, str]:
    """The headers of a request for a tenant's layer."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    signature = hmac.new(secret.encode(), f"{timestamp}\n{target}\n{tenant_id}".encode(), hashlib.sha256).hexdigest()
    return {
        "accept": "application/json",
        "accept-encoding": "identity",
        "minichat-tenant": tenant_id,
        "minichat-timestamp": timestamp,
        "minichat-signature": f"v1={signature}",
    }
