"""The app of the operator's API. It may import what the chat API may not: boto3 costs half a second at a start."""

from collections.abc import Iterator

from fastapi import APIRouter
from starlette.middleware.cors import CORSMiddleware

from minichat.events import sqs
from minichat.http.app import assembled
from minichat.http.edge import Edge
from minichat.settings import Settings

PREFIX = "/admin/v1"
"""Below the prefix of the deployment."""


def admin_routers() -> Iterator[APIRouter]:
    """The routers of the operator's API."""
    from minichat.http.admin.routes import (  # noqa: PLC0415  its document is made from this
        api_keys,
        dead_letters,
        policies,
        running,
        service,
        tenant_usage,
    )

    yield from (policies.router, tenant_usage.router, running.router, dead_letters.router, api_keys.router)
    yield service.router


def create_admin_app(settings: Settings) -> Edge | CORSMiddleware:
    """The operator's app of this deployment, connected to its tables and queues (no network is used yet).

    Raises SettingsError when the policy is wrong; ValueError without a cursor secret.
    """
    sqs.connect(settings)
    return assembled(settings, admin_routers(), PREFIX, with_lists=True)
