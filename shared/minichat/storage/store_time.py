"""The store's clock: every answer of DynamoDB, and of engines that speak its protocol, has a `Date`."""

import time
from contextlib import suppress
from typing import Any

from minichat import moment
from minichat.domain.errors import ServiceUnavailable


def listen(client: Any) -> None:
    """Makes every answer to this botocore client correct this process's clock."""
    client.meta.events.register("before-call.dynamodb", _asked)
    client.meta.events.register("after-call.dynamodb", _answered)


def ask() -> None:
    """Reads something small if the store's time is not known yet, so that even the first instant is right.

    If the store does not answer, the process's own clock must do.
    """
    from minichat.storage import policies  # noqa: PLC0415  whoever connects to the store imports this module

    if not moment.has_heard():
        with suppress(ServiceUnavailable):
            policies.current_version()


def _asked(context: dict[str, Any], **_: Any) -> None:
    context["asked_at"] = time.time()


def _answered(http_response: Any, context: dict[str, Any], **_: Any) -> None:
    received = time.time()
    date = http_response.headers.get("date")
    if date is not None and "asked_at" in context:
        moment.heard(date, context["asked_at"], received)
