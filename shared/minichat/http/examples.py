"""Puts examples into the OpenAPI documents: of the parameters, the body and the answers of an operation, and of every
problem that it may answer with."""

import re
from collections.abc import Mapping
from typing import Any

from minichat.http import problems, sse

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
REQUEST_ID = "3f9d1c62-7b0a-4e5e-9a41-0d2f6c8b7e15"
INSTANT = "2026-03-02T09:30:00Z"
_RESET = "2026-04-01T00:00:00Z"
_STREAM_URL = f"/mini-chat/v1/chats/01a1fd42-d8d3-756c-b9cd-05918e7930d0/turns/{REQUEST_ID}/stream"
_MORE: dict[str, dict[str, Any]] = {
    "invalid_request": {
        "errors": [{"field": "content", "message": "Field required", "code": "missing"}],
    },
    "forbidden": {"action": "turn:send"},
    "generation_in_progress": {"stream_url": _STREAM_URL},
    "request_id_conflict": {"turn_state": "running", "stream_url": _STREAM_URL},
    "quota_exceeded": {
        "quota_scope": "tokens", "quota_tier": "total", "quota_period": "monthly", "next_reset": _RESET,
    },
    "rate_limited": {"scope": "sends_per_minute", "whose": "user", "limit": 20, "retry_after_seconds": 3},
}  # fmt: skip
"""What the document of a problem says besides."""


def show(
    operation: dict[str, Any], of_schemas: Mapping[str, Any], of_parameters: Mapping[str, Any], shown: dict[str, Any]
) -> None:
    """Puts an example into everything of an operation that can have one.

    Problems are shown by reference: `shown` gets those that are not in it yet.
    """
    name = operation["operationId"]
    for parameter in operation.get("parameters", ()):
        said = parameter["name"]
        if (value := of_parameters.get(f"{name} {said}", of_parameters.get(said))) is not None:
            parameter["example"] = value
    for content in operation.get("requestBody", {}).get("content", {}).values():
        _put(content, name, of_schemas)
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
            if kind == problems.MEDIA_TYPE:
                codes = re.findall(r"`(\w+)`", response["description"])
                content["examples"] = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
                shown |= {code: {"value": _problem(int(status), code)} for code in codes}
            elif kind == sse.MEDIA_TYPE:
                content["example"] = of_schemas["StreamEvent"]
            else:
                _put(content, name, of_schemas)


def _put(content: dict[str, Any], operation: str, of_schemas: Mapping[str, Any]) -> None:
    schema = content["schema"]
    given = schema.get("examples")
    named = schema.get("$ref", "").rpartition("/")[2]
    if (example := given[0] if given else of_schemas.get(named or operation)) is not None:
        content["example"] = example  # a test says where one is missing


def _problem(status: int, code: str) -> dict[str, Any]:
    return {
        "type": f"urn:minichat:problem:{code}",
        "title": code,
        "status": status,
        "detail": problems.usual_detail(code),
        "instance": "/mini-chat/v1/chats",
        "code": code,
        "trace_id": TRACE_ID,
        **_MORE.get(code, {}),
    }
