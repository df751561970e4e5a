"""The operator's API in this process: what the functions do, with the AWS credentials and settings of who runs it."""

import asyncio
import getpass
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import httpx2

from minichat.auth_settings import Auth
from minichat.http.admin.app import PREFIX, create_admin_app
from minichat.local.issuer import ROLES_CLAIM, Issuer
from minichat.settings import Settings
from minichat_client import MiniChat

LIFETIME = timedelta(hours=12)


@contextmanager
def in_this_process(settings: Settings, by: str | None) -> Iterator[MiniChat]:
    """The deployment's operator's API, for an operator who has the login name, or the one that is given.

    Its token is signed by a key that nobody else has, and that is gone afterwards.
    """
    with TemporaryDirectory() as folder:
        issuer = Issuer(Path(folder))
        auth = Auth(jwks=str(issuer.jwks_file), roles_claim=ROLES_CLAIM)
        who = by or getpass.getuser()
        token = issuer.token(
            "operators", who, now=datetime.now(UTC), lifetime=LIFETIME, auth=auth, roles=["operator"], sub=who
        )
        # The app's own client knows AWS's usual addresses only; boto3 knows AWS_ENDPOINT_URL and profiles, too.
        where = settings.store.endpoint or boto3.client("dynamodb", settings.store.region).meta.endpoint_url
        store = settings.store.model_copy(update={"endpoint": where})
        app = OwnProcess(settings.model_copy(update={"auth": auth, "store": store}))
        with MiniChat(f"http://localhost{settings.url_prefix}{PREFIX}", token, transport=app) as api:
            yield api


class OwnProcess(httpx2.BaseTransport):
    """Has the app of this process answer, one request at a time, all on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._app = httpx2.ASGITransport(create_admin_app(settings), raise_app_exceptions=False)
        self._loop = asyncio.Runner()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The app's answer, whole. Its lines and metrics are for a service's log: what is printed is the command's."""
        logging.disable(logging.WARNING)
        try:
            with redirect_stdout(io.StringIO()):
                return self._loop.run(self._answered(request))
        finally:
            logging.disable(logging.NOTSET)

    def close(self) -> None:
        """Ends the event loop."""
        self._loop.close()

    async def _answered(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self._app.handle_async_request(request)
        return httpx2.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
