"""The HTTP server of the local stack: one process with the app of every function, configured by its environment.

It also publishes the development issuer's key set, where containers of `sam local` can read it.
"""

import argparse
import os
import sys
from pathlib import Path

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from minichat.http.admin.app import PREFIX, create_admin_app
from minichat.http.app import create_app
from minichat.local import limits
from minichat.local.issuer import JWKS_PATH
from minichat.local.sign_in import with_sign_in
from minichat.settings import Settings, SettingsError, load


def main() -> None:
    """Serves until stopped; exits with code 2 and names the settings when some are wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    limits.install()
    try:
        settings = load(os.environ)
        app = create_both(settings)
    except SettingsError as error:
        sys.exit(f"{error}")
    uvicorn.run(
        with_sign_in(_with_key_set(app, Path(settings.auth.jwks)), settings),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        http="h11",  # whatever else is installed
        timeout_graceful_shutdown=1,
        backlog=4096,
    )


def create_both(settings: Settings) -> ASGIApp:
    """The chat API, and below its prefix the operator's; only the former has anything to end at shutdown.

    Raises SettingsError.
    """
    chat, admin, prefix = create_app(settings), create_admin_app(settings), f"{settings.url_prefix}{PREFIX}/"

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        is_admin = scope["type"] == "http" and scope["path"].startswith(prefix)
        await (admin if is_admin else chat)(scope, receive, send)

    return either


def _with_key_set(app: ASGIApp, jwks: Path) -> ASGIApp:
    if not jwks.is_file():
        return app
    key_set = Response(jwks.read_bytes(), media_type="application/json")

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == JWKS_PATH:
            await key_set(scope, receive, send)
        else:
            await app(scope, receive, send)

    return served


if __name__ == "__main__":
    main()
