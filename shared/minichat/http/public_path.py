"""What a client's address has before the path that we serve: a stage, the base path of a domain, a proxy's prefix.

API Gateway tells the whole path (`requestContext.path`), and leaves the base path of a custom domain in `path`, too. A
proxy that takes a prefix away says so in `X-Forwarded-Prefix`: only it knows what the client sees, so that wins.
"""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def note_prefix(request: Request, served_at: str) -> None:
    """Notes in the request's state what comes before our path, and has its path begin where our routes do: at
    `served_at`, such as `/mini-chat/v1`."""
    scope = request.scope
    state: dict[str, Any] = scope["state"]
    context: Mapping[str, Any] = (scope.get("aws.event") or {}).get("requestContext") or {}
    told = context.get("path") or state.get("gateway_path")
    if isinstance(told, str):
        before, served, _ = told.partition(f"{served_at}/")
        state["prefix"] = _shaped(before) if served else ""
        before, served, rest = scope["path"].partition(f"{served_at}/")
        if before and served:
            scope["path"] = f"{served}{rest}"
    forwarded = request.headers.get("x-forwarded-prefix")
    if forwarded is not None:
        state["prefix"] = _shaped(forwarded.rstrip("/"))


def public_path(request: Request, path: str) -> str:
    """A path of ours as this client has to ask for it."""
    return f"{request.scope['state'].get('prefix', '')}{path}"


def _shaped(prefix: str) -> str:
    """A prefix that is none, such as another host's address, counts as absent."""
    return prefix if _PREFIX.fullmatch(prefix) else ""
