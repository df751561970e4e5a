"""Documents that are published, as the OpenAPI document describes them: layers of the policy, and providers."""

from typing import Any

from pydantic import BaseModel

from minichat.domain.policy import Policy
from minichat.domain.policy_layers import TenantLayer, UserLayer
from minichat.provider_entries import ProviderEntries, TenantProviders

_MODEL = {
    "id": "small",
    "provider_model_id": "gpt-4.1-mini",
    "provider_id": "openai",
    "display_name": "Small",
    "tier": "standard",
    "enabled": True,
    "context_window": 128_000,
    "max_output_tokens": 4_000,
    "max_input_tokens": 120_000,
    "input_tokens_credit_multiplier_micro": 400_000,
    "output_tokens_credit_multiplier_micro": 1_600_000,
}
_LITTLE = {"limit_daily_credits_micro": 2_000_000, "limit_monthly_credits_micro": 40_000_000}
LIMITS = {"standard": _LITTLE, "premium": _LITTLE}
_KEY = {"secret": {"source": "secretsmanager", "name": "/mini-chat/providers/openai"}}
_KEY_OF_TENANT = {"secret": {"source": "secretsmanager", "name": "/mini-chat/providers/acme/openai"}}
_OPENAI = {"base_url": "https://api.openai.com", "api_path": "/v1/responses", "auth": _KEY}
SWITCHES = {"disable_web_search": True}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    Policy: {"policy_version": 7, "model_catalog": [_MODEL], "user_limits": {"default": LIMITS}},
    TenantLayer: {"models": {"deny": ["large"]}, "kill_switches": SWITCHES},
    UserLayer: {"models": {"allow": ["small"]}, "limits": LIMITS},
    ProviderEntries: {"providers": {"openai": _OPENAI}},
    TenantProviders: {"overrides": {"openai": {"auth": _KEY_OF_TENANT}}},
}
"""Of each kind of document one that it can be."""


def described(kind: type[BaseModel]) -> dict[str, Any]:
    """What an operation says in the OpenAPI document whose body is such a document: routes take whatever JSON it is, so
    that what is wrong with one is told in its own words."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}", "examples": [EXAMPLES[kind]]}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
