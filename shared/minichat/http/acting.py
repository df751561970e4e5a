"""Which action a route is: what the decision point decides about."""

from collections.abc import Sequence
from typing import Any

from fastapi import params
from fastapi.routing import APIRoute

from minichat.domain.actions import Action


class Acts(params.Depends):
    """A dependency that only names an action: nothing is called for it."""

    action: Action


def acts(action: Action) -> Any:
    """The dependency by which a route names its action: `@router.get(..., dependencies=[acts("chat:read")])`."""
    named = Acts(_nothing)
    object.__setattr__(named, "action", action)
    return named


async def _nothing() -> None:
    """What a route without a decision point calls (those that need no token)."""


def without_actions(dependencies: Sequence[params.Depends]) -> list[params.Depends]:
    """The dependencies that are there to be called."""
    return [one for one in dependencies if not isinstance(one, Acts)]


def action_of(dependencies: Sequence[params.Depends]) -> Action | None:
    """The action that a route names; None when it names none."""
    return next((one.action for one in dependencies if isinstance(one, Acts)), None)


def action_of_route(route: APIRoute) -> Action | None:
    """The action of a route, whether it needs a token or not."""
    named: Action | None = getattr(route, "action", None)
    return named or action_of(route.dependencies)
