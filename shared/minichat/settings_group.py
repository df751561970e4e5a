"""What every group of settings is: read once, never changed, and without a key that nobody knows."""

from pydantic import BaseModel, ConfigDict


class SettingsGroup(BaseModel):
    """Settings that belong together; a wrong key or value stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")
