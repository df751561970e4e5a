"""The erasure of a user or of a tenant: what it is, how far it is, and what is refused meanwhile. Pure.

accepted ──▶ passes over the table ──▶ a pass that finds nothing ──▶ complete
             each takes everything of theirs a step further
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from minichat.domain.api_key import SERVICE
from minichat.domain.errors import ChatError
from minichat.domain.identity import TenantId, UserId

ErasureScope = Literal["user", "tenant"]

PSEUDONYM = f"{SERVICE}~"
"""How those begin who stand for erased users in the ledger; no token and no API key can say such a subject."""
STOPPING = timedelta(seconds=60)
"""After this, nothing of a tenant that is being erased can begin any more: every process knows of it within seconds
(`policy_refresh_seconds`), and what has begun by then is committed or refused within twenty."""


class BeingErased(ChatError):
    """The user, or the whole tenant, is being erased: nothing new begins, and what there was disappears."""

    code = "being_erased"
    detail = "This account is being erased: it takes nothing new."


class ErasureRunning(ChatError):
    """The same user, or the tenant, is being erased already."""

    code = "erasure_running"
    detail = "This is being erased already."


class ErasureNotFound(ChatError):
    """The tenant has no erasure of that id."""

    code = "erasure_not_found"
    detail = "There is no such erasure."


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an erasure is: where the present pass over the table goes on (None: at its start), what it has met, how
    many chats were left in the pass before (None: there was none), how many passes are over, and what is waited for."""

    position: tuple[str, str] | None = None
    met: int = 0
    chats_met: int = 0
    chats_left: int | None = None
    passes: int = 0
    waits_for: str | None = None

    def at(self, position: tuple[str, str] | None, met: int, chats_met: int, waits_for: str | None) -> "Progress":
        """The progress when a page is done that had so much in it; `position` is where the next one begins."""
        met, chats_met = self.met + met, self.chats_met + chats_met
        # What the pass before had to wait for may have happened.
        waiting = waits_for or (self.waits_for if self.position is not None else None)
        if position is not None:
            return Progress(position, met, chats_met, self.chats_left, self.passes, waiting)
        return Progress(chats_left=chats_met, passes=self.passes + 1, waits_for=waiting)


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure. A complete one knows neither the user nor the pseudonym that stands for them in what is kept."""

    tenant_id: TenantId
    erasure_id: str
    scope: ErasureScope
    requested_at: datetime
    user_id: UserId | None = None
    pseudonym: UserId | None = None
    progress: Progress = field(default_factory=Progress)
    counts: Mapping[str, int] = field(default_factory=dict)
    completed_at: datetime | None = None
    manifest: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.completed_at is not None

    def told(self, counts: Mapping[str, int], completed_at: datetime) -> dict[str, Any]:
        """What the manifest says: whose data went when, and how much of each kind; never who it was."""
        return {
            "erasure_id": self.erasure_id,
            "tenant_id": self.tenant_id,
            "scope": self.scope,
            "requested_at": self.requested_at.isoformat(),
            "completed_at": completed_at.isoformat(),
            "counts": dict(sorted(counts.items())),
        }
