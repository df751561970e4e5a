"""The console of the local stack lets its user be anybody: the development issuer signs what they choose.

Only here, never in a function: `local` is no part of what is deployed.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from minichat.domain.actions import ROLES
from minichat.http.console import PAGE, SIGN_IN
from minichat.local.issuer import JWKS_FILE, Issuer
from minichat.settings import Settings

LONGEST_SECONDS = 12 * 3600
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


class TokenWish(BaseModel):
    """Who somebody wants to be, and for how many seconds."""

    tenant: str = Field(min_length=1, max_length=100)
    user: str = Field(min_length=1, max_length=100)
    role: str = Field(default="", max_length=100)
    seconds: int = Field(default=LONGEST_SECONDS, ge=1, le=LONGEST_SECONDS)


def with_sign_in(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The app with `GET /console`, which leads to the console, and what the console signs in with."""
    page = f"{settings.url_prefix}/v1/{PAGE}"
    jwks = Path(settings.auth.jwks)
    issuer = Issuer(jwks.parent) if jwks.name == JWKS_FILE and jwks.is_file() else None

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        answer: Response | None = None
        if scope["type"] == "http" and settings.console:
            request = Request(scope, receive)
            match scope["method"], scope["path"]:
                case "GET" | "HEAD", "/console":
                    answer = RedirectResponse(page)
                case "GET", path if path == f"{page}/config.json" and _is_local(request):
                    scope.setdefault("state", {})[SIGN_IN] = _ways(settings, issuer)
                case "POST", path if path == f"{page}/token" and issuer and _is_local(request):
                    answer = await _signed(request, issuer, settings)
                case _:
                    pass
        await (answer or app)(scope, receive, send)

    return served


def _ways(settings: Settings, issuer: Issuer | None) -> dict[str, object]:
    if settings.auth.development_user:
        return {"sign_in": "none"}
    return {"sign_in": "local", "roles": list(ROLES)} if issuer else {}


async def _signed(request: Request, issuer: Issuer, settings: Settings) -> Response:
    try:
        wish = TokenWish.model_validate_json(await request.body())
    except ValidationError as error:
        problems = [{"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
        return JSONResponse({"detail": "That is nobody.", "errors": problems}, 400)
    token = issuer.token(
        wish.tenant,
        wish.user,
        now=datetime.now(UTC),
        lifetime=timedelta(seconds=wish.seconds),
        auth=settings.auth,
        roles=[wish.role] if wish.role else [],
    )
    return JSONResponse({"token": token}, headers={"cache-control": "no-store"})


def _is_local(request: Request) -> bool:
    """Whether this machine's own user asks, by a page of ours: neither somebody else in its network, nor a page of
    another site that had its name resolved to this machine."""
    if request.client is None or request.url.hostname not in _LOCAL_NAMES:
        return False
    try:
        is_near = ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return is_near and request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
