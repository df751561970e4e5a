"""Examples of the layers of a policy, as the OpenAPI document shows them."""

from typing import Any

from minichat.domain.policy import Policy
from minichat.domain.policy_layers import TenantLayer, UserLayer

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
SWITCHES = {"disable_web_search": True}

LAYERS: dict[type[Policy | TenantLayer | UserLayer], dict[str, Any]] = {
    Policy: {"policy_version": 7, "model_catalog": [_MODEL], "user_limits": {"default": LIMITS}},
    TenantLayer: {"models": {"deny": ["large"]}, "kill_switches": SWITCHES},
    UserLayer: {"models": {"allow": ["small"]}, "limits": LIMITS},
}
"""Of each kind of layer a document that it can be."""


def described(kind: type[Policy | TenantLayer | UserLayer]) -> dict[str, Any]:
    """What an operation says in the OpenAPI document whose body is a layer: routes take whatever JSON it is, so that a
    layer that is wrong is refused in the words of policies."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}", "examples": [LAYERS[kind]]}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
