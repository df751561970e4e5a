"""The export of a chat, a user or a tenant: what it is, how far it is, and what its manifest says. Pure.

running ──▶ files, one after the other, each noted ──▶ ready      its manifest is there, until it is over
   └──────▶ gone: its chat was deleted, or it was stopped; nothing of it is kept
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from minichat.domain.errors import ChatError
from minichat.domain.identity import ChatId, TenantId, UserId

ExportScope = Literal["chat", "user", "tenant"]
ExportState = Literal["running", "ready", "gone"]

OUTLIVES_ITS_FILES = timedelta(days=18)
"""How much longer than the export its item is kept: what is written at its last moment the bucket removes 15 to 17 days
later (template.yaml). Until then an erasure finds it by its item."""
LOCKED = timedelta(days=1)
"""An export of one's own that has not ended by then does not hold up the next one."""

_ATTACHMENTS = (
    "Attachments are here with what Mini Chat keeps of them: name, type, size, state, summary and thumbnail. The files "
    "themselves are given to the model's provider and not kept, so they are not here."
)
_NOT_HERE = "Chats that were deleted before their turn came are not here."


class ExportNotFound(ChatError):
    """There is no such export, or not for this caller, or its time is over."""

    code = "export_not_found"
    detail = "There is no such export, or it is over."


class ExportRunning(ChatError):
    """The caller's last export is still being made."""

    code = "export_running"
    detail = "Your last export is still being made."


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export, by its name in the export's folder, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is: the key of the last item that is in a file (None: there is none), the files, and how many
    lines of each kind are in them."""

    position: tuple[str, str] | None = None
    files: tuple[ExportedFile, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataExport:
    """An export. `user_id` is whose data it has, `chat_id` the one chat; `busy_until` is how long somebody may still be
    writing a file of it."""

    tenant_id: TenantId
    export_id: str
    scope: ExportScope
    requested_by: UserId
    requested_at: datetime
    over_at: datetime
    user_id: UserId | None = None
    chat_id: ChatId | None = None
    state: ExportState = "running"
    progress: ExportProgress = field(default_factory=ExportProgress)
    busy_until: datetime | None = None
    ended_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether nobody is given its files any more."""
        return now >= self.over_at

    def is_own(self, user_id: UserId) -> bool:
        """Whether it has the user's own data, and they asked for it themselves."""
        return self.requested_by == user_id == self.user_id

    def holds_up(self, now: datetime) -> bool:
        """Whether its user has to wait for it before they may ask for another."""
        return self.state == "running" and now < self.requested_at + LOCKED

    def told(self, ended_at: datetime) -> dict[str, Any]:
        """What the manifest says."""
        return {
            "format": "minichat-export/1",
            "export_id": self.export_id,
            "tenant_id": self.tenant_id,
            "scope": self.scope,
            "user_id": self.user_id,
            "chat_id": self.chat_id,
            "requested_at": self.requested_at.isoformat(),
            "completed_at": ended_at.isoformat(),
            "files": [{"name": one.name, "size_bytes": one.size} for one in self.progress.files],
            "counts": dict(sorted(self.progress.counts.items())),
            "notes": [_ATTACHMENTS, _NOT_HERE],
        }


def merged(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Both counts together."""
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in sorted({*one, *other})}
