"""What an event of an API Gateway REST API says: the ASGI scope and the body of a request."""

import base64
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, urlencode

from stream_runtime_api import TRACE_ID, of_several


class NotARequest(ValueError):
    """The event is not one that API Gateway makes of a request."""


def event_of(body: bytes) -> dict[str, Any]:
    """The event of an invocation.

    Raises NotARequest when it is not JSON, or not what API Gateway makes of a request.
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotARequest(f"the event of {len(body)} bytes is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise NotARequest("the event is not an object")
    for name in ("httpMethod", "path"):
        if not isinstance(event.get(name), str):
            raise NotARequest(f"the event is not of an API Gateway REST API: it has no {name}")
    return event


def scope_of(event: dict[str, Any], *, deadline_ms: int | None, request_id: str) -> dict[str, Any]:
    """The ASGI scope of an API Gateway REST event; `state` has the invocation's id and deadline (Unix milliseconds),
    and as `gateway_path` the path with all that the gateway has before ours.

    Of one of several it also has `trace_header`; that of the only one is in the environment (_X_AMZN_TRACE_ID).

    What is optional may be missing or null. Names and values that are not ASCII become UTF-8.
    """
    parameters = event.get("multiValueQueryStringParameters") or event.get("queryStringParameters") or {}
    path = unquote(event["path"])
    context = event.get("requestContext") or {}
    client = (context.get("identity") or {}).get("sourceIp") or ""
    state = {"aws_request_id": request_id} | ({} if deadline_ms is None else {"deadline_ms": deadline_ms})
    if "path" in context:
        state["gateway_path"] = context["path"]
    if (one := of_several.get()) is not None and TRACE_ID in one.headers:
        state["trace_header"] = one.headers[TRACE_ID]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": event["httpMethod"],
        "scheme": "https",
        "path": path,
        "raw_path": quote(path, safe="/:", errors="replace").encode(),
        "query_string": urlencode(parameters, doseq=True, errors="replace").encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode(errors="replace"), value.encode(errors="replace")) for name, value in _headers(event)
        ],
        "client": (client, 0),
        "server": ("lambda", 443),
        "state": state,
    }


def _headers(event: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, values in (event.get("multiValueHeaders") or event.get("headers") or {}).items():
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                yield name, str(value)


def body_of(event: dict[str, Any]) -> bytes:
    """The request's body as bytes.

    Raises NotARequest when it says that it is base64 and is not.
    """
    body: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return body.encode(errors="surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise NotARequest(f"the body is not base64: {error}") from error
