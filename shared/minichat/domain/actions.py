"""What can be done, by name: each route has an action, and each decision is about one."""

from typing import Literal

Action = Literal[
    "chat:create",
    "chat:list",
    "chat:read",
    "chat:update",
    "chat:delete",
    "chat:export",
    "message:list",
    "message:react",
    "turn:send",
    "turn:retry",
    "turn:edit",
    "turn:delete",
    "turn:read",
    "turn:resume",
    "turn:cancel",
    "attachment:create",
    "attachment:read",
    "attachment:list",
    "attachment:delete",
    "model:list",
    "quota:read",
    "usage:read",
    "export:create",
    "export:read",
    "tenant_usage:read",
    "running_turn:list",
    "running_turn:cancel",
    "policy:read",
    "policy:publish",
    "limits:read",
    "limits:write",
    "switch:write",
    "provider:read",
    "provider:write",
    "api_key:list",
    "api_key:create",
    "api_key:revoke",
    "authorization:read",
    "authorization:publish",
    "grant:list",
    "grant:create",
    "grant:revoke",
    "data:export",
    "data:erase",
    "dead_letter:list",
    "dead_letter:redrive",
    "reconcile:read",
    "deployment:read",
    "service:read",
]

ROLES = ("operator", "tenant_admin", "auditor", "support", "service")
"""`operator` serves the deployment, all others their own tenant."""

CHAT_READS: frozenset[Action] = frozenset(
    ("chat:read", "message:list", "turn:read", "turn:resume", "attachment:read", "attachment:list")
)
"""What others than its owner may be permitted to do with a chat. Whatever changes one stays its owner's: by its keys
and the conditions of its writes."""

CHAT_WRITES: frozenset[Action] = frozenset(
    (
        "chat:update",
        "chat:delete",
        "chat:export",
        "message:react",
        "turn:send",
        "turn:retry",
        "turn:edit",
        "turn:delete",
        "turn:cancel",
        "attachment:create",
        "attachment:delete",
    )
)
"""What changes a chat, or takes a copy of all of it."""

OWN_ACCOUNT: frozenset[Action] = frozenset(
    ("chat:create", "chat:list", "model:list", "quota:read", "export:create", "export:read")
)
"""What is always about the caller's own account: its owner need not be looked up."""

RECOVERY: frozenset[Action] = frozenset(("authorization:read", "authorization:publish"))
"""What mends a tenant's own policies: those have no say in it, or they could lock everybody out."""
