"""The base of all groups of settings: read once, immutable, no unknown keys."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class SettingsGroup(BaseModel):
    """Settings that belong together; a wrong key or value stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def several(given: Any) -> Any:
    """Splits a list in one line, as a template's parameter holds it."""
    return [one for one in map(str.strip, given.split(",")) if one] if isinstance(given, str) else given
