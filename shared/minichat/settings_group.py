"""The base of all groups of settings: read once, immutable, no unknown keys."""

from pydantic import BaseModel, ConfigDict


class SettingsGroup(BaseModel):
    """Settings that belong together; a wrong key or value stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")
