"""The layers below the deployment's policy: a tenant's, and a user's (turns-and-quota 5).

A layer inherits what it leaves out. It narrows: it denies models, switches features off, and bounds limits; a tenant's
also gives models its own prices and prompts. None of them switches on what a higher one has switched off. What a later
policy of the deployment makes meaningless, such as a price of a removed model, is ignored.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from minichat.domain.errors import FieldError
from minichat.domain.policy import MAX_VERSION, KillSwitches, Model, Multiplier, Policy, PolicyPart, UserLimits

MAX_TENANT_BYTES = 60_000
"""Size of the JSON of a tenant's layer: a process keeps those of a thousand tenants."""


def _a_switch(name: str) -> str:
    if name not in KillSwitches.model_fields:
        raise ValueError("there is no such switch")
    return name


SwitchName = Annotated[str, AfterValidator(_a_switch), Field(json_schema_extra={"enum": [*KillSwitches.model_fields]})]
LayerVersion = Annotated[int | None, Field(ge=1, le=MAX_VERSION, description="none: the one after the last")]


class ModelChoice(PolicyPart):
    """The models that may be chosen: of those that `allow` names, or of all, the ones that are not denied."""

    allow: Annotated[tuple[str, ...] | None, Field(description="none: every model of the layer above")] = None
    deny: tuple[str, ...] = ()

    def permits(self, model_id: str) -> bool:
        """Whether the model may be chosen."""
        return model_id not in self.deny and (self.allow is None or model_id in self.allow)


class OwnModel(PolicyPart):
    """What a tenant says of one model; multipliers are micro-credits per million tokens."""

    input_tokens_credit_multiplier_micro: Multiplier | None = None
    output_tokens_credit_multiplier_micro: Multiplier | None = None
    system_prompt: str | None = None


class OwnLimits(PolicyPart):
    """What a user of a tenant may spend who has no limits of their own, and the most that any of them may."""

    default: UserLimits | None = None
    most: UserLimits | None = None


class TenantLayer(PolicyPart):
    """A tenant's layer."""

    policy_version: LayerVersion = None
    models: ModelChoice = ModelChoice()
    own: Annotated[dict[str, OwnModel], Field(description="by the model's id")] = Field(default_factory=dict)
    system_prompt: Annotated[str | None, Field(description="of every model that has none in `own`")] = None
    default_model: Annotated[str | None, Field(description="of new chats without a wish")] = None
    kill_switches: dict[SwitchName, bool] = Field(default_factory=dict)
    user_limits: OwnLimits = OwnLimits()
    idle_chats_days: Annotated[
        int | None, Field(ge=1, le=36_500, description="chats that nobody used for so long are deleted; none: never")
    ] = None


class UserLayer(PolicyPart):
    """A user's layer."""

    policy_version: LayerVersion = None
    models: ModelChoice = ModelChoice()
    limits: UserLimits | None = None


Document = Policy | TenantLayer | UserLayer
"""What one version of a layer says."""


def effective(policy: Policy, tenant: TenantLayer | None, user: UserLayer | None = None) -> Policy:
    """The policy that applies to a user of a tenant, or, without a user's layer, to all who have none."""
    return _under_user(policy if tenant is None else _under_tenant(policy, tenant), user)


def _under_tenant(policy: Policy, layer: TenantLayer) -> Policy:
    limits, own = policy.user_limits, layer.user_limits
    default = own.default or limits.default
    most = limits.most if own.most is None else own.most.within(limits.most)
    switched_off = {name: True for name, is_on in layer.kill_switches.items() if is_on}
    return policy.model_copy(
        update={
            "model_catalog": tuple(_with_own(_chosen(model, layer.models), layer) for model in policy.model_catalog),
            "kill_switches": policy.kill_switches.model_copy(update=switched_off),
            "user_limits": limits.model_copy(update={"default": default, "most": most}),
            "default_model": layer.default_model or policy.default_model,
        }
    )


def _under_user(policy: Policy, layer: UserLayer | None) -> Policy:
    if layer is None:
        return policy
    changed: dict[str, Any] = {}
    if layer.models != ModelChoice():
        changed["model_catalog"] = tuple(_chosen(model, layer.models) for model in policy.model_catalog)
    if layer.limits is not None:
        # The policy is now this user's alone.
        changed["user_limits"] = policy.user_limits.model_copy(update={"default": layer.limits, "users": {}})
    return policy.model_copy(update=changed)


def _chosen(model: Model, choice: ModelChoice) -> Model:
    """The model, disabled where it may not be chosen: a chat that has it goes on as with any disabled one."""
    return model if not model.enabled or choice.permits(model.id) else model.model_copy(update={"enabled": False})


def _with_own(model: Model, layer: TenantLayer) -> Model:
    own = layer.own.get(model.id, OwnModel())
    said = own.model_dump(exclude_none=True)
    if layer.system_prompt is not None:
        said.setdefault("system_prompt", layer.system_prompt)
    return model.model_copy(update=said) if said else model


def own_contradictions(layer: TenantLayer) -> Iterator[FieldError]:
    """What of a tenant's layer contradicts the rest of it, whatever the deployment's policy is."""
    yield from _both_in(layer.models)
    wanted = layer.default_model
    if wanted is not None and not layer.models.permits(wanted):
        yield FieldError("default_model", f"The layer denies the model {wanted!r} that it makes the default.", "denied")


def tenant_contradictions(layer: TenantLayer, above: Policy) -> Iterator[FieldError]:
    """What is wrong with a tenant's layer under this policy, by the path of each wrong member."""
    known = {model.id for model in above.model_catalog}
    yield from own_contradictions(layer)
    yield from _unknown_in(layer.models, known)
    for model_id in layer.own:
        if model_id not in known:
            yield _unknown(f"own.{model_id}", model_id)
    if layer.default_model is not None and layer.default_model not in known:
        yield _unknown("default_model", layer.default_model)
    for name, is_on in layer.kill_switches.items():
        if not is_on and getattr(above.kill_switches, name):
            message = f"The deployment has set {name}: no layer below can take that back."
            yield FieldError(f"kill_switches.{name}", message, "set_above")
    own, most = layer.user_limits, above.user_limits.most
    if own.most is not None:
        yield from _too_high("user_limits.most", own.most, most)
    if own.default is not None:
        yield from _too_high("user_limits.default", own.default, most if own.most is None else own.most.within(most))
    if not effective(above, layer).enabled_models():
        yield FieldError("models", "No model is left.", "no_model")


def user_contradictions(layer: UserLayer, above: Policy) -> Iterator[FieldError]:
    """What is wrong with a user's layer under the policy of their tenant, by the path of each wrong member."""
    catalog = {model.id: model for model in above.model_catalog}
    yield from _both_in(layer.models)
    yield from _unknown_in(layer.models, set(catalog))
    for number, model_id in enumerate(layer.models.allow or ()):
        if model_id in catalog and not catalog[model_id].enabled:
            message = f"A layer above denies or disables the model {model_id!r}."
            yield FieldError(f"models.allow.{number}", message, "denied_above")
    if layer.limits is not None:
        yield from _too_high("limits", layer.limits, above.user_limits.most)
    if not effective(above, None, layer).enabled_models():
        yield FieldError("models", "No model is left.", "no_model")


def _unknown_in(choice: ModelChoice, known: set[str]) -> Iterator[FieldError]:
    for list_name, ids in (("allow", choice.allow or ()), ("deny", choice.deny)):
        for number, model_id in enumerate(ids):
            if model_id not in known:
                yield _unknown(f"models.{list_name}.{number}", model_id)


def _both_in(choice: ModelChoice) -> Iterator[FieldError]:
    for number, model_id in enumerate(choice.deny):
        if model_id in (choice.allow or ()):
            message = f"The model {model_id!r} is both allowed and denied."
            yield FieldError(f"models.deny.{number}", message, "contradiction")


def _unknown(path: str, model_id: str) -> FieldError:
    return FieldError(path, f"There is no model {model_id!r} in the deployment's policy.", "unknown_model")


def _too_high(path: str, limits: UserLimits, most: UserLimits | None) -> Iterator[FieldError]:
    if most is not None and (limit := limits.above(most)) is not None:
        yield FieldError(f"{path}.{limit}", "A layer above permits less.", "above_most")


class LayerDifference(PolicyPart):
    """A member that two versions of a layer say differently; None where one of them does not say it."""

    path: str
    before: Any = None
    after: Any = None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[LayerDifference]:
    """The members of two documents that differ, by their paths; lists of things with ids are compared by these."""
    one, other = dict(_members("", before)), dict(_members("", after))
    paths = dict.fromkeys([*one, *other])
    return [
        LayerDifference(path=path, before=one.get(path), after=other.get(path))
        for path in paths
        if one.get(path) != other.get(path)
    ]


def _members(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    named = _by_id(value)
    if not isinstance(named, Mapping) or not named:
        yield path, value
        return
    for name, inner in named.items():
        yield from _members(f"{path}.{name}" if path else str(name), inner)


def _by_id(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "id" in one for one in value):
        return {one["id"]: one for one in value}
    return value
