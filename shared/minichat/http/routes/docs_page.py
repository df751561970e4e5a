"""A page that shows the OpenAPI documents: Swagger UI, vendored (`make docs-page`), so that no other host is asked."""

import gzip
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from minichat.http.acting import acts

FOLDER = Path(__file__).parents[1] / "docs_page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load and call (Content-Security-Policy): this server, and pictures within its style sheet."""
_TYPES = {
    "page.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}

router = APIRouter()


@router.get("/docs", dependencies=[acts("service:read")], include_in_schema=False)
async def get_docs_page(request: Request) -> Response:
    """The page. Needs no token; what one tries out on it needs one."""
    return _file(request, "page.html")


@router.get("/docs/{name}", dependencies=[acts("service:read")], include_in_schema=False)
async def get_docs_file(request: Request, name: str) -> Response:
    """A file of the page."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if not request.app.state.minichat.settings.docs_page or name not in _TYPES:
        raise HTTPException(404)
    headers = {
        "content-security-policy": POLICY,
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache" if name.startswith("page") else "public, max-age=86400",
    }
    return Response(_content(name), media_type=_TYPES[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    # Never sent compressed: a REST API passes only those bytes through that its binary types name.
    packed = FOLDER / f"{name}.gz"
    return gzip.decompress(packed.read_bytes()) if packed.exists() else (FOLDER / name).read_bytes()
