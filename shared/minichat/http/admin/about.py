"""What the OpenAPI document says of the operator's API, and its examples: a deployment with one tenant."""

from typing import Any

from minichat import __version__
from minichat.domain.policy_layers import TenantLayer
from minichat.http.admin.bodies import EXAMPLES, LIMITS, SWITCHES
from minichat.http.document import About
from minichat.http.examples import INSTANT, REQUEST_ID
from minichat.provider_entries import ProviderEntries

_TENANT_ID, _USER_ID, _ADMIN = "acme", "auth0|5f7c8ec7c33c6c004bbafe82", "olga"
_CHAT_ID = "01a1fd42-d8d3-756c-b9cd-05918e7930d0"
_KEY_ID, _GRANT_ID, _ERASURE_ID = (
    "k_5d1a7c3e",
    "01a1fd44-1c2d-7e3f-8a4b-5c6d7e8f9a0b",
    "01a1fd45-2d3e-7f40-9b5c-6d7e8f9a0b1c",
)
_EVENT_ID = "01a1fd46-3e4f-7a51-8c6d-7e8f9a0b1c2d"
_LATER = "2026-03-02T17:30:00Z"

_POLICY = {
    "version": 7,
    "published_at": INSTANT,
    "published_by": _ADMIN,
    "withdrawn": False,
    "document": {"policy_version": 7, **EXAMPLES[TenantLayer]},
}
_PROVIDERS = {
    "version": 3,
    "published_at": INSTANT,
    "published_by": _ADMIN,
    "document": EXAMPLES[ProviderEntries],
}
_API_KEY = {
    "id": _KEY_ID,
    "name": "CRM",
    "account": "service-crm",
    "scopes": ["chat:create", "turn:send"],
    "created_at": INSTANT,
    "created_by": _ADMIN,
    "expires_at": "2030-01-31T00:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}
_GRANT = {
    "id": _GRANT_ID,
    "user_id": "sam@support.example",
    "until": _LATER,
    "reason": "Ticket 4711: an answer that stops halfway",
    "granted_by": _ADMIN,
    "granted_at": INSTANT,
}
_ERASURE = {
    "id": _ERASURE_ID,
    "scope": "user",
    "user_id": _USER_ID,
    "requested_at": INSTANT,
    "completed_at": None,
    "passes": 1,
    "waits_for": None,
    "counts": {"chats": 12, "messages": 431},
    "manifest": None,
}
_EXPORT_ID = "01a1fd47-4f50-7b62-9d7e-8f9a0b1c2d3e"
_EXPORT: dict[str, Any] = {
    "id": _EXPORT_ID,
    "scope": "user",
    "user_id": _USER_ID,
    "chat_id": None,
    "state": "running",
    "requested_at": INSTANT,
    "ended_at": None,
    "expires_at": "2026-03-09T09:30:00Z",
    "counts": {"chat": 12, "message": 431},
    "files": [],
}
_USED = {
    "day": "2026-03-02",
    "turns": 12,
    "credits_micro": 431_200,
    "input_tokens": 9_804,
    "output_tokens": 3_117,
    "web_searches": 3,
    "code_interpreter_calls": 0,
    "file_searches": 5,
    "image_inputs": 1,
    "write_units": 410,
    "read_units": 36,
    "function_ms": 51_300,
}
_RUNNING = {
    "tenant_id": _TENANT_ID,
    "user_id": _USER_ID,
    "chat_id": _CHAT_ID,
    "request_id": REQUEST_ID,
    "model": "gpt-5.2",
    "started_at": INSTANT,
    "last_progress_at": INSTANT,
    "cancel_requested": False,
    "reserved_micro": 52_000,
}
_FOUND: dict[str, Any] = {
    "at": INSTANT,
    "counts": {"quota": 1},
    "findings": [
        {
            "kind": "quota",
            "tenant_id": _TENANT_ID,
            "where": f"user {_USER_ID}, 2026-03",
            "says": "52000",
            "should_say": "51000",
        }
    ],
}
_LETTER = {
    "since": INSTANT,
    "event_type": "turn_settled",
    "event_id": _EVENT_ID,
    "tenant_id": _TENANT_ID,
    "reason": "delivered 10 times",
    "received": 11,
}

ABOUT = About(
    title="Mini Chat: operators",
    summary="For operators of a deployment, and administrators of its tenants: each operation says its action.",
    description="""\
Every operation but `getOpenApi` needs a bearer token whose roles, or whose API key's scopes, permit its action
(`x-action`). What another tenant has is unknown to who may do nothing there: 404. Refusals are problem documents
(RFC 9457), whose `code` is the stable word.""",
    tags={
        "policy": "Models, prices, limits and kill switches: the deployment's, a tenant's and a user's layer.",
        "providers": "Where language models are, and whose keys are used; keys themselves are never said.",
        "usage": "What a tenant has used.",
        "running turns": "Answers that are being made now.",
        "API keys": "Keys of a tenant's services.",
        "grants": "Leave for support to read in a tenant.",
        "authorization": "A tenant's own policies of who may do what, as Cedar text.",
        "reconciliation": "What did not agree when quota and usage were compared with the turns.",
        "data": "People's rights: erasure.",
        "dead letters": "Events that could not be handled.",
        "service": "The deployment itself.",
    },
    examples={
        "PolicyVersionView": _POLICY,
        "PolicyVersions": {"items": [_POLICY]},
        "PublishedView": {"version": 8},
        "Changes": {"items": [{"path": "kill_switches.disable_web_search", "before": False, "after": True}]},
        "LimitsView": {"version": 2, "limits": LIMITS},
        "SwitchesView": {"version": 8, "kill_switches": SWITCHES},
        "ProvidersVersionView": _PROVIDERS,
        "ProvidersVersions": {"items": [_PROVIDERS]},
        "UsedList": {"items": [_USED], "unreadable": 0},
        "RunningTurns": {"items": [_RUNNING], "unreadable": 0},
        "ApiKeyView": _API_KEY,
        "ApiKeyList": {"items": [_API_KEY]},
        "NewApiKeyView": {**_API_KEY, "key": "mck_k_5d1a7c3e_…"},
        "GrantView": _GRANT,
        "GrantList": {"items": [_GRANT]},
        "AuthorizationView": {
            "version": 2,
            "policies": '@id("no-files") forbid (principal, action == Action::"attachment:create", resource);',
            "published_at": INSTANT,
            "published_by": _ADMIN,
        },
        "ReconcileReports": {"items": [_FOUND]},
        "ReconcileRuns": {
            "items": [{**_FOUND, "seconds": 41.7, "turns": 182_004, "accounts": 912, "entries": 181_990, "repaired": 1}]
        },
        "ErasureView": _ERASURE,
        "ErasureList": {"items": [_ERASURE]},
        "ExportView": _EXPORT,
        "ExportList": {"items": [_EXPORT]},
        "QueueList": {"items": [{"queue": "usage", "waiting": 4, "in_flight": 1, "dead": 1, "looked_at": 1}]},
        "DeadLetterList": {"items": [_LETTER]},
        "RedrivenView": {"sent": 1, "failed": 0},
        "AdminHealth": {
            "status": "ok",
            "failing": [],
            "version": __version__,
            "dead_letters": 0,
            "waiting": 4,
            "oldest_running_seconds": 2.5,
        },
        "getOpenApi": {"openapi": "3.1.0", "info": {"title": "Mini Chat", "version": __version__}, "paths": {}},
    },
    parameters={
        "tenant_id": _TENANT_ID,
        "user_id": _USER_ID,
        "chat_id": _CHAT_ID,
        "request_id": REQUEST_ID,
        "key_id": _KEY_ID,
        "grant_id": _GRANT_ID,
        "erasure_id": _ERASURE_ID,
        "export_id": _EXPORT_ID,
        "event_id": _EVENT_ID,
        "queue": "usage",
        "version": 7,
        "base": 3,
        "before": 7,
        "listReconcileRuns before": INSTANT,
        "listReconcileReports before": INSTANT,
        "limit": 10,
        "from": "2026-03-01",
        "to": "2026-03-31",
        "by": "day",
    },
)
