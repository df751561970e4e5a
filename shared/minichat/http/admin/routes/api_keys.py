"""API keys of a tenant's services: its administrator's, and nobody else's."""

import secrets
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body

from minichat.domain import access_errors, errors
from minichat.domain.api_key import RANDOM_BYTES, ApiKey, NewApiKey
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.views import ApiKeyList, ApiKeyView, NewApiKeyBody, NewApiKeyView
from minichat.http.deps import Authenticated
from minichat.http.problems import documented
from minichat.services import api_keys

router = APIRouter(tags=["API keys"], route_class=Authenticated)
_PATH = "/tenants/{tenant_id}/api_keys"
_REFUSALS = (errors.Forbidden, access_errors.TenantNotFound)
_EXAMPLE = {"name": "CRM", "scopes": ["chat:create", "turn:send"], "expires_at": "2030-01-31T00:00:00Z"}


@router.get(_PATH, dependencies=[acts("api_key:list")], responses=documented(*_REFUSALS))
def list_api_keys(call: TenantCall) -> ApiKeyList:
    """The tenant's keys, the newest first."""
    return ApiKeyList(items=[ApiKeyView(**_told(key)) for key in api_keys.listed(call)])


@router.post(_PATH, status_code=201, dependencies=[acts("api_key:create")], responses=documented(*_REFUSALS))
def create_api_key(call: TenantCall, body: Annotated[NewApiKeyBody, Body(examples=[_EXAMPLE])]) -> NewApiKeyView:
    """Makes a key; its text is in this answer alone."""
    wanted = NewApiKey(body.name, tuple(body.scopes), body.expires_at, body.account)
    made = api_keys.create(call, wanted, secrets.token_bytes(RANDOM_BYTES))
    return NewApiKeyView(**_told(made.key), key=made.text)


@router.delete(
    f"{_PATH}/{{key_id}}",
    dependencies=[acts("api_key:revoke")],
    responses=documented(*_REFUSALS, access_errors.ApiKeyNotFound),
)
def revoke_api_key(call: TenantCall, key_id: str) -> ApiKeyView:
    """Revokes a key for good; every process refuses it within five seconds, and a stream that it began goes on."""
    return ApiKeyView(**_told(api_keys.revoke(call, key_id)))


def _told(key: ApiKey) -> dict[str, Any]:
    known = asdict(key)
    return {name: known[name] for name in ApiKeyView.model_fields if name != "id"} | {"id": key.key_id}
