"""How provider entries and tenants' overrides are checked, published and shown (context-attachments-providers 6)."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from minichat.domain.errors import FieldError, InvalidRequest
from minichat.domain.identity import TenantId
from minichat.domain.names import in_path
from minichat.provider_entries import Provider, ProviderEntries, Secret, TenantProviders, overridden
from minichat.services.policy_in_force import first_policy
from minichat.settings import Settings
from minichat.storage import policies, provider_versions
from minichat.storage.provider_versions import Publication

_NAME = re.compile(r"[A-Za-z0-9/_.+=@-]+")


def validate(
    document: Mapping[str, Any], tenant_id: TenantId | None, settings: Settings
) -> ProviderEntries | TenantProviders:
    """The entries that a document describes, or a tenant's overrides, if they may be published.

    Raises InvalidRequest naming each wrong member by its path, ServiceUnavailable.
    """
    kind: type[ProviderEntries | TenantProviders] = ProviderEntries if tenant_id is None else TenantProviders
    try:
        config = kind.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(*map(_field_error, error.errors(include_url=False, include_input=False))) from None
    if isinstance(config, ProviderEntries):
        wrong = [*_wrong_secrets(config, settings), *_wrong_models(config, settings)]
    else:
        assert tenant_id is not None
        wrong = list(_wrong_overrides(config, tenant_id, settings))
    if wrong:
        raise InvalidRequest(*wrong)
    return config


def publish(
    document: Mapping[str, Any], tenant_id: TenantId | None, settings: Settings, publication: Publication
) -> int:
    """Checks and publishes a document as the next version; returns the version.

    Raises InvalidRequest as `validate` does, ProvidersMoved (also when another is in force than its base),
    ServiceUnavailable; what is in force stays then.
    """
    previous = provider_versions.current_providers(tenant_id)
    if publication.base not in (None, previous or 0):
        raise provider_versions.ProvidersMoved(previous or 0)
    said = validate(document, tenant_id, settings).model_dump_json(exclude_unset=True).encode()
    try:
        return provider_versions.publish_providers(tenant_id, said, publication, previous=previous)
    except provider_versions.ProvidersTooLarge as error:
        raise InvalidRequest(FieldError("", str(error), "too_large")) from None


def show(tenant_id: TenantId | None, version: int | None = None) -> provider_versions.PublishedProviders | None:
    """A version, or the one in force; None where there is none.

    Raises ServiceUnavailable.
    """
    wanted = provider_versions.current_providers(tenant_id) if version is None else version
    return None if wanted is None else provider_versions.read_providers(tenant_id, wanted)


def deployment_entries(settings: Settings) -> Mapping[str, Provider]:
    """The deployment's entries in force: the settings' until some are published.

    Raises ServiceUnavailable.
    """
    published = show(None)
    if published is None:
        return settings.providers
    return ProviderEntries.model_validate_json(published.document).providers


def in_force(settings: Settings) -> Settings:
    """The settings with the deployment's entries in force as `providers`.

    Raises ServiceUnavailable.
    """
    return settings.model_copy(update={"providers": deployment_entries(settings)})


def _wrong_secrets(config: ProviderEntries, settings: Settings) -> Iterator[FieldError]:
    # What the settings name, the functions can read already: so a deployment moves into the table as it is.
    vouched = {secret for entry in settings.providers.values() for _, secret in _secrets(entry)}
    for name, entry in config.providers.items():
        for path, secret in _secrets(entry):
            if secret not in vouched:
                yield from _outside(f"providers.{name}.{path}", secret, settings.provider_secrets_prefix)


def _secrets(entry: Provider) -> Iterator[tuple[str, Secret]]:
    if entry.auth is not None:
        yield "auth.secret.name", entry.auth.secret
    for tenant, other in entry.tenant_overrides.items():
        if other.auth is not None:
            yield f"tenant_overrides.{tenant}.auth.secret.name", other.auth.secret


def _outside(path: str, secret: Secret, prefix: str) -> Iterator[FieldError]:
    inside = secret.source != "env" and secret.name.startswith(prefix) and len(secret.name) > len(prefix)
    if not inside or not _NAME.fullmatch(secret.name):
        detail = f"The functions read keys from Secrets Manager or Parameter Store, under {prefix} only."
        yield FieldError(path, detail, "outside_of_prefix")


def _wrong_models(config: ProviderEntries, settings: Settings) -> Iterator[FieldError]:
    version = policies.current_version()
    published = None if version is None else policies.read(version, policies.DEPLOYMENT)
    policy = first_policy(settings) if published is None else published.policy
    try:
        policy.served_by({name: entry.endpoint for name, entry in config.providers.items()})
    except ValueError as error:
        path, _, why = str(error).partition(": ")
        yield FieldError("providers", f"The policy in force needs it: {path}: {why}", "needed_by_policy")


def _wrong_overrides(config: TenantProviders, tenant_id: TenantId, settings: Settings) -> Iterator[FieldError]:
    entries = deployment_entries(settings)
    for name, override in config.overrides.items():
        path = f"overrides.{name}"
        if (entry := entries.get(name)) is None:
            yield FieldError(path, "The deployment has no provider of this name.", "unknown_provider")
            continue
        if override.auth is not None:
            # Its own folder: no tenant may use another's key.
            own = f"{settings.provider_secrets_prefix}{in_path(tenant_id)}/"
            yield from _outside(f"{path}.auth.secret.name", override.auth.secret, own)
        if override.base_url is not None and _is_private(override.base_url) and not entry.allow_insecure:
            yield FieldError(f"{path}.base_url", "The address is not a public one.", "private_address")
        try:
            overridden(entry, override, tenant_id)
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)
            yield from (FieldError(path, _field_error(problem).message) for problem in said)
        except ValueError as error:
            yield FieldError(path, str(error))


def _is_private(base_url: str) -> bool:
    """Whether an address names a host that is never public; where other names lead, the guard sees at each call."""
    from minichat.providers import egress  # noqa: PLC0415  only publishing needs it here

    host = ""
    with suppress(ValueError):
        host = (urlsplit(base_url).hostname or "").rstrip(".")
        ip_address(host)
        return not egress.is_public(host)
    return host == "localhost" or host.endswith((".localhost", ".internal", ".local"))


def _field_error(problem: Any) -> FieldError:
    path = ".".join(str(part) for part in problem["loc"])
    return FieldError(path, str(problem["msg"]).removeprefix("Value error, "))
