"""The policy: which models exist, what they cost and may take, and what is switched off (turns-and-quota 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from minichat.domain.errors import InvalidModel, ModelNotFound

MAX_MULTIPLIER = 10_000_000_000
MAX_TOKENS = 10_000_000
MAX_VERSION = 2_000_000_000

Tier = Literal["standard", "premium"]
ContextSize = Literal["low", "medium", "high"]
Multiplier = Annotated[int, Field(ge=1, le=MAX_MULTIPLIER)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Budget = Annotated[int, Field(ge=0, le=MAX_TOKENS, description="tokens")]
MicroCredits = Annotated[int, Field(ge=0)]


class PolicyPart(BaseModel):
    """A part of a policy or of a layer: nothing in it changes, and unknown members are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EstimationBudgets(PolicyPart):
    """How tokens are estimated before a provider has counted them, in tokens and per cent.

    A model inherits the deployment's where it says nothing. The longer names are those of older policy files.
    """

    model_config = ConfigDict(validate_by_name=True)

    bytes_per_token: Annotated[int, Field(ge=1, le=16, validation_alias="bytes_per_token_conservative")] = 4
    fixed_overhead: Annotated[Budget, Field(validation_alias="fixed_overhead_tokens")] = 100
    safety_margin_pct: Annotated[int, Field(ge=0, le=100)] = 10
    image_token_budget: Budget = 1000
    tool_surcharge: Annotated[Budget, Field(validation_alias="tool_surcharge_tokens")] = 500
    web_search_surcharge: Annotated[Budget, Field(validation_alias="web_search_surcharge_tokens")] = 500
    code_interpreter_surcharge: Annotated[Budget, Field(validation_alias="code_interpreter_surcharge_tokens")] = 1000
    minimal_generation_floor: Budget = 50


class ApiParams(PolicyPart):
    """Sampling parameters that are sent as they are."""

    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)


class ToolSupport(PolicyPart):
    """Which tools the model can be offered. A policy with `image_generation` or `mcp` is refused."""

    web_search: bool = False
    file_search: bool = False
    code_interpreter: bool = False
    image_generation: bool = False
    mcp: bool = False


class Features(PolicyPart):
    """What else a model can do. Answers stream: a policy with a model that cannot is refused."""

    model_config = ConfigDict(extra="allow")

    streaming: bool = True
    structured_output: Annotated[bool, Field(description="for readers of the file: no answer asks for it")] = False


class GeneralConfig(PolicyPart):
    """What a provider's call of the model carries."""

    type: Annotated[str, Field(description="for readers of the file")] = ""
    available_from: Annotated[
        datetime | None,
        AfterValidator(lambda given: given if given is None or given.tzinfo else given.replace(tzinfo=UTC)),
        Field(description="nobody can choose the model before; UTC where it names no zone"),
    ] = None
    max_file_size_mb: Annotated[int | None, Field(ge=1, description="the most in an attachment of its chats")] = None
    api_params: ApiParams = ApiParams()
    features: Features = Features()
    tool_support: ToolSupport = ToolSupport()
    supported_endpoints: Annotated[
        frozenset[str],
        BeforeValidator(lambda given: [one for one, has in given.items() if has] if isinstance(given, dict) else given),
        Field(description="none means any; else the one that its provider's kind calls must be among them"),
    ] = frozenset()

    def unusable(self, endpoint: str | None) -> str | None:
        """The first member that no answer can use at this endpoint, and why; None where there is none."""
        for tool in ("image_generation", "mcp"):
            if getattr(self.tool_support, tool):
                return f"tool_support.{tool}: no answer can use this tool; leave it out"
        if not self.features.streaming:
            return "features.streaming: answers stream; a model that cannot is of no use here"
        if endpoint is not None and self.supported_endpoints and endpoint not in self.supported_endpoints:
            return f"supported_endpoints: its provider is called at {endpoint!r}, which is not among them"
        return None


class Preference(PolicyPart):
    """How a model stands among the others."""

    is_default: bool = False
    sort_order: int = 0


class Model(PolicyPart):
    """One entry of the catalog. Multipliers are micro-credits per million tokens."""

    id: Annotated[str, Field(min_length=1)]
    provider_model_id: Annotated[str, Field(min_length=1)]
    provider_id: Annotated[str, Field(min_length=1)]
    display_name: Annotated[str, Field(min_length=1)]
    provider_display_name: Annotated[str, Field(description="for readers of the file")] = ""
    description: str = ""
    icon: str = ""
    tier: Annotated[Tier, BeforeValidator(lambda tier: tier.lower() if isinstance(tier, str) else tier)]
    enabled: bool = False
    multimodal_capabilities: tuple[str, ...] = ()
    context_window: Tokens
    max_output_tokens: Tokens
    max_input_tokens: Tokens
    input_tokens_credit_multiplier_micro: Multiplier
    output_tokens_credit_multiplier_micro: Multiplier
    multiplier_display: str = ""
    estimation_budgets: EstimationBudgets = EstimationBudgets()
    max_num_results: Annotated[int, Field(ge=1)] = 5
    web_search_context_size: Annotated[ContextSize | None, Field(description="none means the deployment's")] = None
    max_tool_calls: Annotated[int, Field(ge=0)] = 2
    general_config: GeneralConfig = GeneralConfig()
    preference: Preference = Preference()
    system_prompt: str = ""
    thread_summary_prompt: str = ""


class KillSwitches(PolicyPart):
    """Features that an operator has switched off for everyone."""

    disable_premium_tier: bool = False
    force_standard_tier: bool = False
    disable_web_search: bool = False
    disable_file_search: bool = False
    disable_images: bool = False
    disable_code_interpreter: bool = False


class PolicyLimits(PolicyPart):
    """What one user may spend in one bucket."""

    limit_daily_credits_micro: MicroCredits
    limit_monthly_credits_micro: MicroCredits

    def within(self, most: "PolicyLimits") -> "PolicyLimits":
        """Of each limit the lower one."""
        return PolicyLimits(
            limit_daily_credits_micro=min(self.limit_daily_credits_micro, most.limit_daily_credits_micro),
            limit_monthly_credits_micro=min(self.limit_monthly_credits_micro, most.limit_monthly_credits_micro),
        )


class UserLimits(PolicyPart):
    """`standard` is the ceiling over everything, `premium` a cap inside it."""

    standard: PolicyLimits
    premium: PolicyLimits

    def within(self, most: "UserLimits | None") -> "UserLimits":
        """These limits, or the other ones where those are lower."""
        if most is None or self.above(most) is None:
            return self
        return UserLimits(standard=self.standard.within(most.standard), premium=self.premium.within(most.premium))

    def above(self, most: "UserLimits") -> str | None:
        """The path of the first limit that is above the other one's; None where none is."""
        for bucket in ("standard", "premium"):
            own, other = getattr(self, bucket), getattr(most, bucket)
            for name in PolicyLimits.model_fields:
                if getattr(own, name) > getattr(other, name):
                    return f"{bucket}.{name}"
        return None


class LimitsByUser(PolicyPart):
    """The limits of everyone, and of those who have their own; `most` bounds those that lower layers give."""

    default: UserLimits
    users: dict[str, UserLimits] = Field(default_factory=dict)
    most: Annotated[UserLimits | None, Field(description="no layer gives a user more; none for any number")] = None


class Policy(PolicyPart):
    """One immutable version of everything above. A turn settles with the version that priced it."""

    policy_version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    model_catalog: Annotated[tuple[Model, ...], Field(min_length=1)]
    kill_switches: KillSwitches = KillSwitches()
    user_limits: LimitsByUser
    default_model: Annotated[str | None, Field(description="of new chats without a wish, while it is enabled")] = None

    @model_validator(mode="after")
    def _catalog_is_unambiguous(self) -> "Policy":
        ids = [model.id for model in self.model_catalog]
        for number, model_id in enumerate(ids):
            if model_id in ids[:number]:
                raise ValueError(f"model_catalog.{number}.id: {model_id!r} is there twice")
        defaults: dict[str, str] = {}
        for number, model in enumerate(self.model_catalog):
            if not (model.enabled and model.preference.is_default):
                continue
            if model.tier in defaults:
                raise ValueError(
                    f"model_catalog.{number}.preference.is_default: {defaults[model.tier]!r} is the default of tier "
                    f"{model.tier} already"
                )
            defaults[model.tier] = model.id
        if self.default_model is not None and self.default_model not in ids:
            raise ValueError(f"default_model: there is no model {self.default_model!r}")
        return self

    def in_deployment(self, deployment: "Deployment", now: datetime) -> "Policy":
        """This policy as it applies now in a deployment: models inherit what they leave out, and wait for their day."""
        catalog = tuple(_in_deployment(model, deployment, now) for model in self.model_catalog)
        return self.model_copy(update={"model_catalog": catalog})

    def served_by(self, providers: Mapping[str, str | None]) -> "Policy":
        """This policy, if every model can answer here: its provider is one of these, called at an endpoint it supports.

        `providers` maps each to its endpoint's name, if any. Raises ValueError naming the path of the first that
        cannot.
        """
        for number, model in enumerate(self.model_catalog):
            if model.provider_id not in providers:
                known = ", ".join(sorted(providers)) or "none"
                raise ValueError(
                    f"model_catalog.{number}.provider_id: there is no provider {model.provider_id!r} (known: {known})"
                )
            if (problem := model.general_config.unusable(providers[model.provider_id])) is not None:
                raise ValueError(f"model_catalog.{number}.general_config.{problem}")
        return self

    def enabled_models(self) -> list[Model]:
        """What may be chosen, by `sort_order`, then in the catalog's order."""
        return sorted((m for m in self.model_catalog if m.enabled), key=lambda model: model.preference.sort_order)

    def limits_of(self, user_id: str) -> UserLimits:
        """What this user may spend: their own limits, else everyone's, and no more than the most of all."""
        limits = self.user_limits
        return limits.users.get(user_id, limits.default).within(limits.most)

    def model(self, model_id: str) -> Model:
        """The enabled model of that id.

        Raises ModelNotFound for an unknown and for a disabled one alike.
        """
        for model in self.enabled_models():
            if model.id == model_id:
                return model
        raise ModelNotFound(f"There is no model {model_id!r}.")

    def default_of(self, tier: str) -> Model | None:
        """The tier's enabled default, else its first enabled model, else None."""
        enabled = [model for model in self.enabled_models() if model.tier == tier]
        return next((model for model in enabled if model.preference.is_default), enabled[0] if enabled else None)

    def model_for_new_chat(self, wanted: str | None) -> Model:
        """The wanted model, or the default: `default_model`, premium default, standard default, first enabled.

        Raises InvalidModel when the wanted one is not available, or nothing is (context-attachments-providers 6).
        """
        enabled = self.enabled_models()
        if wanted is not None:
            candidates = [model for model in enabled if model.id == wanted]
        else:
            defaults = [model for model in enabled if model.preference.is_default]
            chosen = [model for model in enabled if model.id == self.default_model]
            candidates = [*chosen, *(m for m in defaults if m.tier == "premium"), *defaults, *enabled]
        if not candidates:
            raise InvalidModel(f"The model {wanted!r} is not available." if wanted is not None else None)
        return candidates[0]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What models inherit, and how many tokens one message may have whatever its model takes; None for any number."""

    budgets: EstimationBudgets
    web_search_context_size: ContextSize
    max_input_tokens: int | None


def _in_deployment(model: Model, deployment: Deployment, now: datetime) -> Model:
    own, available_from = model.estimation_budgets, model.general_config.available_from
    said = {name: getattr(own, name) for name in own.model_fields_set}
    most = deployment.max_input_tokens
    return model.model_copy(
        update={
            "enabled": model.enabled and (available_from is None or available_from <= now),
            "estimation_budgets": deployment.budgets.model_copy(update=said),
            "web_search_context_size": model.web_search_context_size or deployment.web_search_context_size,
            "max_input_tokens": model.max_input_tokens if most is None else min(model.max_input_tokens, most),
        }
    )
