"""The service itself: its health and its OpenAPI document."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from minichat import __version__
from minichat.http.acting import acts
from minichat.http.public_path import public_path
from minichat.http.response_models import Health

router = APIRouter(tags=["service"])


@router.get("/health", dependencies=[acts("service:read")])
async def get_health() -> Health:
    """Whether this process answers. Needs no token and touches no store."""
    return Health(version=__version__)


@router.get("/openapi.json", dependencies=[acts("service:read")])
async def get_open_api(request: Request) -> dict[str, Any]:
    """This document. Needs no token."""
    from minichat.http.document import document  # noqa: PLC0415  hardly anybody asks for it

    described = document(request.app.state.minichat.settings.url_prefix)
    return described | {"servers": [{"url": public_path(request, "") or "/"}]}
