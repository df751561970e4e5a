"""The settings of what leaves for consumers of others: an export queue, an event bus, webhooks."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from minichat.provider_entries import Secret
from minichat.settings_group import SettingsGroup

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class EventFilter(SettingsGroup):
    """Which events somebody gets: those of some types, of some tenants; empty means any."""

    event_types: tuple[Word, ...] = ()
    tenants: tuple[str, ...] = ()

    def wants(self, event_type: str, tenant_id: str) -> bool:
        """Whether an event is among them."""
        of_type = not self.event_types or event_type in self.event_types
        return of_type and (not self.tenants or tenant_id in self.tenants)


class Webhook(EventFilter):
    """An endpoint that gets events, signed as Standard Webhooks says."""

    name: Word
    url: Annotated[str, Field(pattern=r"^https?://")]
    secret: Annotated[Secret, Field(description="of the signature: base64, with or without `whsec_` before it")]
    allow_insecure: Annotated[bool, Field(description="http, and private addresses: for tests")] = False


class Export(EventFilter):
    """Copies of audit and usage events for others; nothing leaves where no place is named."""

    queue_url: Annotated[str | None, BeforeValidator(lambda given: given or None)] = None
    bus: Annotated[
        str | None, BeforeValidator(lambda given: given or None), Field(description="name of an EventBridge bus")
    ] = None
    webhooks: tuple[Webhook, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether anybody gets copies."""
        return bool(self.queue_url or self.bus or self.webhooks)
