"""The settings of a provider: its address, its protocol, and where its key is."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from minichat.settings_group import SettingsGroup


class Timeouts(SettingsGroup):
    """Seconds granted to one provider call."""

    connect_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    first_byte_seconds: Annotated[float, Field(gt=0, le=600)] = 60
    idle_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    total_seconds: Annotated[float, Field(gt=0, le=900)] = 170


class Secret(SettingsGroup):
    """Where a provider's key is read from; never the key itself."""

    source: Literal["env", "secretsmanager", "ssm"] = "env"
    name: str


class ProviderAuth(SettingsGroup):
    """The header that carries the key; if none is given, the one that the provider's kind expects."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    prefix: str = "Bearer "
    secret: Secret


ProviderKind = Literal[
    "openai_responses", "azure_openai_responses", "openai_chat", "anthropic_messages", "bedrock_converse"
]

_API_PATHS: dict[str, str] = {
    "openai_responses": "/v1/responses",
    "azure_openai_responses": "/openai/v1/responses",
    "openai_chat": "/v1/chat/completions",
    "anthropic_messages": "/v1/messages",
    "bedrock_converse": "/model/{model}/converse-stream",
}
_ENDPOINTS: dict[str, str] = {
    "openai_responses": "responses",
    "azure_openai_responses": "responses",
    "openai_chat": "chat_completions",
}
_KEY_HEADERS: dict[str, str] = {"azure_openai_responses": "api-key", "anthropic_messages": "x-api-key"}


class Override(SettingsGroup):
    """What differs for one tenant: the provider's address, and the key."""

    base_url: str | None = None
    auth: ProviderAuth | None = None


class Provider(SettingsGroup):
    """One provider of models; a policy's `provider_id` names it by its key in `providers`. The default is one provider,
    `openai`, with its API key in `OPENAI_API_KEY`.

    `api_path` may hold `{model}`. Bedrock's address follows from its region; without `auth`, the role signs its calls.
    """

    kind: ProviderKind = "openai_responses"
    base_url: Annotated[str, Field(description="https; Bedrock's follows from its region")]
    api_path: Annotated[str, Field(pattern=r"^/[^?#]*$", description="its kind's, where none is given")]
    auth: ProviderAuth | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    max_tokens_field: Annotated[
        Literal["max_completion_tokens", "max_tokens"] | None,
        Field(description="what an openai_chat server calls the output limit; older ones only know max_tokens"),
    ] = None
    tenant_overrides: dict[str, Override] = Field(default_factory=dict)
    allowed_hosts: Annotated[
        tuple[str, ...], Field(description="the only hosts of base_urls, or *.suffixes of them; empty permits any")
    ] = ()
    timeouts: Timeouts = Timeouts()
    retries: Annotated[int, Field(ge=0, le=5)] = 2
    tells_who_asks: Annotated[
        bool,
        Field(description="sends keyed hashes of user, tenant and chat; some servers refuse members they do not know"),
    ] = True
    allow_insecure: Annotated[
        bool, Field(description="permits plain HTTP and private addresses: local servers, private endpoints")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _as_its_kind_has_it(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(kind := given.get("kind", "openai_responses"), str):
            return given
        made: dict[str, Any] = {"api_path": _API_PATHS.get(kind, "/"), **given}
        if kind == "bedrock_converse" and isinstance(region := given.get("region"), str):
            made.setdefault("base_url", f"https://bedrock-runtime.{region}.amazonaws.com")
        made["auth"] = _with_header(kind, given.get("auth"))
        if isinstance(overrides := given.get("tenant_overrides"), dict):
            made["tenant_overrides"] = {
                tenant: {**said, "auth": _with_header(kind, said.get("auth"))} if isinstance(said, dict) else said
                for tenant, said in overrides.items()
            }
        return made

    @model_validator(mode="after")
    def _leads_where_it_may(self) -> "Provider":
        for base_url in (self.base_url, *filter(None, (other.base_url for other in self.tenant_overrides.values()))):
            address = urlsplit(base_url)
            if address.scheme != "https" and not (self.allow_insecure and address.scheme == "http"):
                raise ValueError("base_url must be https (plain http needs allow_insecure)")
            if not address.hostname or "@" in address.netloc or address.query or address.fragment:
                raise ValueError("base_url must name a host, and neither a user nor a query")
            if self.allowed_hosts and not any(_is_host(address.hostname, allowed) for allowed in self.allowed_hosts):
                raise ValueError("base_url's host is not among allowed_hosts")
        return self

    @model_validator(mode="after")
    def _keys_stay_with_their_host(self) -> "Provider":
        # The entry's key goes only to hosts that an operator has vouched for.
        for tenant, other in self.tenant_overrides.items():
            elsewhere = other.base_url is not None and other.auth is None and self.auth is not None
            if elsewhere and not self.allowed_hosts:
                raise ValueError(f"tenant_overrides.{tenant}: a base_url needs an auth, or allowed_hosts")
        return self

    @model_validator(mode="after")
    def _has_only_what_its_kind_knows(self) -> "Provider":
        owners: dict[str, ProviderKind] = {
            "region": "bedrock_converse",
            "api_version": "azure_openai_responses",
            "max_tokens_field": "openai_chat",
        }
        for key, kind in owners.items():
            if getattr(self, key) is not None and self.kind != kind:
                raise ValueError(f"{key} is only for kind {kind}")
        if self.kind == "bedrock_converse" and (self.region is None or "{model}" not in self.api_path):
            raise ValueError("kind bedrock_converse needs a region, and {model} in its api_path")
        return self

    @property
    def endpoint(self) -> str | None:
        """The name of this kind's endpoint in a catalog's `supported_endpoints`; None if it has none."""
        return _ENDPOINTS.get(self.kind)

    @property
    def keeps_files(self) -> bool:
        """Whether this kind has files and vector stores."""
        return self.kind in ("openai_responses", "azure_openai_responses")

    def of_tenant(self, tenant_id: str) -> "Provider":
        """The entry as it is for this tenant."""
        if (other := self.tenant_overrides.get(tenant_id)) is None:
            return self
        return self.model_copy(update={name: value for name, value in other if value is not None})


def _with_header(kind: str, auth: Any) -> Any:
    """The given `auth`, with the header that this kind of provider expects unless it names another."""
    if isinstance(auth, dict) and kind in _KEY_HEADERS:
        return {"header": _KEY_HEADERS[kind], "prefix": "", **auth}
    return auth


def _is_host(name: str, allowed: str) -> bool:
    allowed = allowed.lower()
    return name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))


OPENAI = Provider(
    base_url="https://api.openai.com",
    api_path=_API_PATHS["openai_responses"],
    auth=ProviderAuth(secret=Secret(source="env", name="OPENAI_API_KEY")),
)


class TenantPolicies(SettingsGroup):
    """A service of yours that says the layers of tenants, instead of the table (turns-and-quota 5)."""

    url: Annotated[str, Field(description="asked for each tenant; empty: layers are in the table")] = ""
    secret: Annotated[Secret | None, Field(description="signs the requests (HMAC-SHA256)")] = None
    deadline_ms: Annotated[int, Field(ge=50, le=10_000, description="for a whole answer")] = 1000
    cache_seconds: Annotated[float, Field(ge=0, le=3600, description="how long an answer counts")] = 60
    allow_insecure: Annotated[bool, Field(description="permits plain HTTP and private addresses")] = False

    @model_validator(mode="after")
    def _leads_where_it_may(self) -> "TenantPolicies":
        if not self.url:
            return self
        address = urlsplit(self.url)
        if address.scheme != "https" and not (self.allow_insecure and address.scheme == "http"):
            raise ValueError("url must be https (plain http needs allow_insecure)")
        if not address.hostname or "@" in address.netloc or address.fragment:
            raise ValueError("url must name a host, and neither a user nor a fragment")
        if self.secret is None:
            raise ValueError("url needs a secret that signs the requests")
        return self
