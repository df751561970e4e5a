"""Settings of rates: how fast users and tenants may go."""

from typing import Annotated

from pydantic import Field

from minichat.domain.rates import Rates
from minichat.settings_group import SettingsGroup

_DEFAULT = Rates()


class RateSettings(SettingsGroup):
    """How fast users and tenants may go; 0 is no limit."""

    turns_in_flight: Annotated[int, Field(ge=0, description="of one user")] = _DEFAULT.turns_in_flight
    sends_per_minute: Annotated[int, Field(ge=0, le=60_000, description="of one user")] = _DEFAULT.sends_per_minute
    followers: Annotated[int, Field(ge=0, le=200, description="of one user's running turns")] = _DEFAULT.followers
    uploads_per_hour: Annotated[int, Field(ge=0, description="of one user")] = _DEFAULT.uploads_per_hour
    chats_per_hour: Annotated[int, Field(ge=0, description="that one user makes")] = _DEFAULT.chats_per_hour
    tenant_turns_in_flight: Annotated[int, Field(ge=0, description="of a tenant's users together")] = 0
    tenant_sends_per_minute: Annotated[int, Field(ge=0, description="of a tenant's users together")] = 0

    @property
    def limits(self) -> Rates:
        """The same, as the domain knows it."""
        return Rates(
            turns_in_flight=self.turns_in_flight,
            sends_per_minute=self.sends_per_minute,
            followers=self.followers,
            uploads_per_hour=self.uploads_per_hour,
            chats_per_hour=self.chats_per_hour,
            tenant_turns_in_flight=self.tenant_turns_in_flight,
            tenant_sends_per_minute=self.tenant_sends_per_minute,
        )
