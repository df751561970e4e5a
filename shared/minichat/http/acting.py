"""Which action a route is: what the decision point decides about."""

from typing import Any

from fastapi import Depends
from starlette.requests import Request

from minichat.domain.actions import Action


def acts(action: Action) -> Any:
    """The dependency by which a route names its action: `@router.get(..., dependencies=[acts("chat:read")])`."""

    async def named(request: Request) -> None:
        request.state.action = action

    return Depends(named)
