"""The app of the operator's API: one locally, two functions on AWS.

One function may change policies and reach no queue, the other the reverse. (All queues' URLs and the providers' entries
together would not fit into the 4 KB of a function's variables, either.)
"""

from collections.abc import Iterator
from enum import Flag, auto

from fastapi import APIRouter
from starlette.middleware.cors import CORSMiddleware

from minichat.http.app import assembled
from minichat.http.edge import Edge
from minichat.settings import Settings

PREFIX = "/admin/v1"
"""Below the prefix of the deployment."""


class AdminPart(Flag):
    """Which routes an app of the operator's API serves: those about the table, or those about the queues."""

    TABLE = auto()
    QUEUES = auto()


TABLE, QUEUES = AdminPart.TABLE, AdminPart.QUEUES


def admin_routers(parts: AdminPart) -> Iterator[APIRouter]:
    """The routers of these parts, imported only when they are asked for."""
    if TABLE in parts:
        from minichat.http.admin.routes import (  # noqa: PLC0415
            api_keys,
            authorization,
            erasures,
            exports,
            grants,
            openapi,
            policies,
            providers,
            reconcile,
            running,
            tenant_usage,
        )

        yield from (policies.router, providers.router, tenant_usage.router, running.router, api_keys.router)
        yield from (grants.router, authorization.router, reconcile.router, erasures.router, exports.router)
        yield openapi.router
    if QUEUES in parts:
        from minichat.http.admin.routes import dead_letters, service  # noqa: PLC0415

        yield from (dead_letters.router, service.router)


def create_admin_app(settings: Settings, parts: AdminPart = TABLE | QUEUES) -> Edge | CORSMiddleware:
    """The operator's app of this deployment, connected to its tables and queues (no network is used yet).

    Raises SettingsError when the policy is wrong.
    """
    if QUEUES in parts:
        from minichat.events import sqs  # noqa: PLC0415  boto3 costs half a second at a start

        sqs.connect(settings)
    return assembled(settings, admin_routers(parts), PREFIX, with_lists=False)
