"""Events delivered to endpoints outside, signed as Standard Webhooks says (https://www.standardwebhooks.com).

`webhook-id` names the event, however often it is delivered; `webhook-timestamp` is when this attempt was made, in Unix
seconds; `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`. The endpoint has taken
an event when it answers 2xx within ten seconds. 410 ends it; everything else is tried again later, for about a day.
"""

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

import httpx2

from minichat.domain.identity import micros
from minichat.export_settings import Webhook
from minichat.providers import credentials, egress
from minichat.providers.transport import AddressRefused

SECONDS = 10
_GONE = 410
_LIMITS = httpx2.Limits(max_connections=10, max_keepalive_connections=10, keepalive_expiry=3)


class Undeliverable(Exception):
    """No attempt will deliver to this endpoint; the message says why."""


class Untaken(Exception):
    """The endpoint did not take the event this time; the message says why."""


class Deliveries:
    """Delivers to the endpoints of a deployment; keeps connections and secrets."""

    def __init__(self) -> None:
        self._keys = credentials.ProviderKeys()
        self._clients: dict[bool, httpx2.Client] = {}

    def deliver(self, webhook: Webhook, event_id: str, body: str, now: datetime) -> None:
        """Posts an event.

        Raises Undeliverable, Untaken.
        """
        if not (webhook.allow_insecure or webhook.url.startswith("https://")):
            raise Undeliverable("the endpoint is not https")
        if (secret := self._keys.get(webhook.secret)) is None:
            raise Untaken(f"{credentials.described(webhook.secret)} has no secret, or cannot be read")
        timestamp = str(micros(now) // 1_000_000)
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(secret, event_id, timestamp, body),
        }
        try:
            answer = self._client(webhook).post(webhook.url, content=body.encode(), headers=headers, timeout=SECONDS)
        except AddressRefused:
            raise Undeliverable("the endpoint's address is private") from None
        except httpx2.HTTPError as problem:
            raise Untaken(type(problem).__name__) from None
        if answer.status_code == _GONE:
            raise Undeliverable("the endpoint is gone (410)")
        if not answer.is_success:
            raise Untaken(f"the endpoint answered {answer.status_code}")

    def _client(self, webhook: Webhook) -> httpx2.Client:
        anywhere = webhook.allow_insecure
        if anywhere not in self._clients:
            self._clients[anywhere] = egress.client(_LIMITS, anywhere=anywhere)
        return self._clients[anywhere]


def signature(secret: str, event_id: str, timestamp: str, body: str) -> str:
    """What `webhook-signature` says.

    Raises Undeliverable when the secret is no base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise Undeliverable("the secret of the signature is not base64") from None
    signed = hmac.new(key, f"{event_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
