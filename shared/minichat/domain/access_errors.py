"""What can be refused to administrators: of grants, of keys, and of a tenant's own policies.

InvalidRequest
└── AuthorizationInvalid      invalid_authorization  400
ChatError
├── ApiKeyNotFound            api_key_not_found      404
├── GrantNotFound             grant_not_found        404
├── TenantNotFound            tenant_not_found       404
├── PolicyNotFound            policy_not_found       404
├── QueueNotFound             queue_not_found        404
├── ErasureNotFound           erasure_not_found      404  (domain.erasure)
├── ErasureRunning            erasure_running        409  (domain.erasure)
├── ProvidersNotFound         providers_not_found    404
├── ProvidersConflict         providers_conflict     409
├── PolicyConflict            policy_conflict        409
└── AuthorizationConflict     authorization_conflict 409
"""

from minichat.domain.errors import ChatError, InvalidRequest


class AuthorizationInvalid(InvalidRequest):
    """A tenant's own policies do not parse, name what there is not, or would lock out its administrators; `errors`
    names `policies` and each reason."""

    code = "invalid_authorization"
    detail = "The policies cannot be used."


class GrantNotFound(ChatError):
    """The tenant has no such grant: it was revoked, or ended some time ago."""

    code = "grant_not_found"
    detail = "The grant was not found."


class ApiKeyNotFound(ChatError):
    """The tenant has no API key of that id."""

    code = "api_key_not_found"
    detail = "There is no such API key."


class TenantNotFound(ChatError):
    """The tenant is one that the caller may not know of, or no tenant can be called so."""

    code = "tenant_not_found"
    detail = "There is no such tenant."


class PolicyNotFound(ChatError):
    """The layer of the policy has no such version, or none at all."""

    code = "policy_not_found"
    detail = "There is no such version of this layer of the policy."


class QueueNotFound(ChatError):
    """The deployment has no dead-letter queue of that name."""

    code = "queue_not_found"
    detail = "There is no such queue."


class ProvidersNotFound(ChatError):
    """There is no such version of provider entries or of a tenant's overrides, or none at all."""

    code = "providers_not_found"
    detail = "There is no such version of the providers."


class ProvidersConflict(ChatError):
    """Other providers were published meanwhile; those stay in force."""

    code = "providers_conflict"
    detail = "Another version of the providers was published meanwhile, and stays in force."


class PolicyConflict(ChatError):
    """A version that does not follow the one in force, or another was published meanwhile; that one stays."""

    code = "policy_conflict"
    detail = "Another version of this layer of the policy is in force."


class AuthorizationConflict(ChatError):
    """Another version of the tenant's own policies is in force than the one that was to be replaced."""

    code = "authorization_conflict"
    detail = "The policies were changed meanwhile: read them again."

    def __init__(self, current: int | None = None) -> None:
        self.current = current
        super().__init__()
