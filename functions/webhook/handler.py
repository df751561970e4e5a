"""Copies of events to the endpoints of others."""

from typing import Any

from minichat.events import sqs
from minichat.events.consume import NotYet, PermanentFailure, Received, consume
from minichat.moment import now
from minichat.services.event_export import ENDPOINT, WEBHOOK
from minichat.services.webhooks import Deliveries, Undeliverable, Untaken
from minichat.settings import current

sqs.connect(current())
_deliveries = Deliveries()


def handler(event: dict[str, Any], context: object) -> object:
    """The messages to redeliver, as a partial batch response."""
    del context
    return consume(event, WEBHOOK, dict[str, Any], _deliver)


def _deliver(event: dict[str, Any], received: Received) -> str:
    del event
    wanted = received.attributes.get(ENDPOINT, "")
    webhook = next((one for one in current().export.webhooks if one.name == wanted), None)
    if webhook is None:
        # A later deployment has dropped the endpoint.
        raise PermanentFailure(f"there is no webhook {wanted!r}")
    try:
        _deliveries.deliver(webhook, received.event_id, received.body, now())
    except Undeliverable as problem:
        raise PermanentFailure(str(problem)) from None
    except Untaken as problem:
        raise NotYet(str(problem)) from None
    return "delivered"
