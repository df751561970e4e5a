"""The OpenAPI document of the operator's API."""

from functools import cache
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from minichat.http.acting import acts
from minichat.http.admin.bodies import EXAMPLES
from minichat.http.public_path import public_path

router = APIRouter(tags=["service"])


@router.get("/openapi.json", dependencies=[acts("service:read")])
async def get_open_api(request: Request) -> dict[str, Any]:
    """This document. Needs no token."""
    described = document(request.app.state.minichat.settings.url_prefix)
    return described | {"servers": [{"url": public_path(request, "") or "/"}]}


@cache
def document(url_prefix: str) -> dict[str, Any]:
    """The document of the whole operator's API, whichever of its functions serves it."""
    from minichat.http.admin.about import ABOUT  # noqa: PLC0415  hardly anybody asks for it
    from minichat.http.admin.app import PREFIX, QUEUES, TABLE, admin_routers  # noqa: PLC0415  it includes this route
    from minichat.http.document import described  # noqa: PLC0415  as rarely

    return described(admin_routers(TABLE | QUEUES), f"{url_prefix}{PREFIX}", ABOUT, taken=tuple(EXAMPLES))
