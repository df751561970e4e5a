"""Settings of who calls: which tokens are accepted, and what their claims mean."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from minichat.domain.actions import ROLES
from minichat.domain.names import said
from minichat.settings_group import SettingsGroup, several


def _absent(given: Any) -> Any:
    """Nothing for an empty text, as a template's parameter says it."""
    return given or None


Texts = Annotated[tuple[str, ...], BeforeValidator(several)]
Named = Annotated[str | None, BeforeValidator(_absent)]
Mapped = Annotated[dict[str, str], BeforeValidator(lambda given: given or {})]


class Auth(SettingsGroup):
    """How a bearer token becomes a caller (identity). A claim is its name, or a path of names with dots between."""

    issuer: Annotated[str, Field(description="the `iss`; `{tid}` in it is that claim's value")] = (
        "http://localhost/minichat-dev"
    )
    other_issuers: Annotated[Texts, Field(description="whose tokens the same keys sign")] = ()
    audience: str = "minichat"
    other_audiences: Annotated[Texts, Field(description="that are as good")] = ()
    audience_claim: Annotated[str, Field(description="where an issuer says `client_id` or `azp` instead")] = "aud"
    expected_claims: Annotated[Mapped, Field(description="claims that must have this value")] = Field(
        default_factory=dict
    )
    jwks: Annotated[str, Field(description="URL or file path of the issuer's JSON Web Key Set")] = ""
    tenant: Annotated[Named, Field(description="everybody's, where tokens name none")] = None
    tenant_claim: str = "tenant_id"
    subject_claim: str = "sub"
    subject_type_claim: str = "subject_type"
    roles_claim: Named = None
    roles: Annotated[
        Mapped, Field(description="the issuer's names of our roles; without any, roles have our names")
    ] = Field(default_factory=dict)
    features_claim: Named = None
    required_feature: str = "ai_chat"
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    development_tenant: str | None = None
    development_user: str | None = None

    @model_validator(mode="after")
    def _development_user_is_whole(self) -> "Auth":
        if (self.development_tenant is None) != (self.development_user is None):
            raise ValueError("development_tenant and development_user belong together")
        return self

    @model_validator(mode="after")
    def _names_what_there_is(self) -> "Auth":
        if unknown := sorted(set(self.roles.values()) - set(ROLES)):
            raise ValueError(f"roles: there is no role {unknown[0]!r}, only {', '.join(ROLES)}")
        if self.tenant is not None:
            said(self.tenant)
        return self
