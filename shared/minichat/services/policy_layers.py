"""How layers of the policy are checked, compared, published and shown (turns-and-quota 5).

`storage.policies` has the places of the layers (`DEPLOYMENT`, `of_tenant`, `of_user`), and their `history`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from minichat.domain.errors import FieldError, InvalidRequest
from minichat.domain.policy import Policy
from minichat.domain.policy_layers import (
    Document,
    LayerDifference,
    TenantLayer,
    UserLayer,
    differences,
    effective,
    tenant_contradictions,
    user_contradictions,
)
from minichat.services.policy_in_force import first_policy
from minichat.services.tenant_layers import tenant_layers
from minichat.settings import Settings
from minichat.storage import policies
from minichat.storage.policies import DEPLOYMENT, Place, Published

D = TypeVar("D", Policy, TenantLayer, UserLayer)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who publishes, when, and the id of the event that says so."""

    by: str
    at: datetime
    token: str


def checked(document: Mapping[str, Any], place: Place[D], settings: Settings) -> D:
    """The layer that a document describes, if it contradicts neither itself nor the layers above it.

    Raises InvalidRequest naming each wrong member by its path; ServiceUnavailable.
    """
    try:
        layer = place.kind.model_validate(document)
        _serves(layer, settings)
        policies.stored_form(layer)
    except ValidationError as error:
        raise InvalidRequest(*map(_field_error, error.errors(include_url=False))) from None
    except policies.PolicyTooLarge as error:
        raise InvalidRequest(FieldError("", str(error), "too_large")) from None
    except ValueError as error:
        path, _, why = str(error).partition(": ")
        raise InvalidRequest(FieldError(path, why)) from None
    if wrong := list(_contradictions(layer, place, settings)):
        raise InvalidRequest(*wrong)
    return layer


def publish(document: Mapping[str, Any] | None, place: Place[Any], settings: Settings, publisher: Publisher) -> int:
    """Publishes the layer that a document describes; None withdraws a tenant's or a user's. The version.

    Raises InvalidRequest as `checked` does, VersionTaken, ServiceUnavailable; the version in force is unchanged then.
    """
    if document is None and place.tenant_id is None:
        raise InvalidRequest(FieldError("", "The deployment's policy inherits from nothing: it cannot be withdrawn."))
    if place.layer == "tenant" and settings.tenant_policies.url:
        raise InvalidRequest(FieldError("", "Layers of tenants come from the service that tenant_policies.url names."))
    layer = None if document is None else checked(document, place, settings)
    return policies.publish(layer, place, at=publisher.at, by=publisher.by, token=publisher.token)


def compared(document: Mapping[str, Any] | None, place: Place[Any], settings: Settings) -> list[LayerDifference]:
    """How the layer that a document describes differs from the one in force; None for one that is withdrawn.

    Raises InvalidRequest as `checked` does; ServiceUnavailable.
    """
    layer: Document = place.kind() if document is None else checked(document, place, settings)
    current = shown(place)
    return differences({} if current is None else _said(current.policy), _said(layer))


def shown(place: Place[D], version: int | None = None) -> Published[D] | None:
    """A version of a layer, or the one in force; None where there is none.

    Raises ServiceUnavailable.
    """
    wanted = policies.current_version(place) if version is None else version
    return None if wanted is None else policies.read(wanted, place)


def _said(layer: Document) -> dict[str, Any]:
    return layer.model_dump(mode="json", exclude_unset=True, exclude={"policy_version"})


def _serves(layer: Document, settings: Settings) -> None:
    """Raises ValueError naming the first model of the deployment's that cannot answer here."""
    if isinstance(layer, Policy):
        layer.served_by(settings.endpoints)


def _contradictions(layer: Document, place: Place[Any], settings: Settings) -> list[FieldError]:
    match layer:
        case TenantLayer():
            return list(tenant_contradictions(layer, _deployment(settings)))
        case UserLayer():
            assert place.tenant_id is not None
            tenant = tenant_layers(settings).newest(place.tenant_id, None).layer
            return list(user_contradictions(layer, effective(_deployment(settings), tenant)))
        case _:
            return []


def _deployment(settings: Settings) -> Policy:
    current = shown(DEPLOYMENT)
    return first_policy(settings) if current is None else current.policy


def _field_error(problem: Any) -> FieldError:
    path = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not path:
        # A rule over several members names its path itself.
        path, _, message = message.partition(": ")
    return FieldError(path, message)
