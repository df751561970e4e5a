"""Events of what leaves: the erasure of a user or a tenant, and its task."""

from typing import Literal

from minichat.events.base import Audited, Event


class ErasureRequested(Audited):
    """An administrator had a user, or the whole tenant, erased; `erased_user_id` is absent of a tenant."""

    event_type: Literal["erasure_requested"] = "erasure_requested"
    actor_user_id: str
    erasure_id: str
    scope: Literal["user", "tenant"]
    erased_user_id: str | None = None


class ErasureCompleted(Audited):
    """Nothing is left of what was erased; `counts` is how much there was of each kind."""

    event_type: Literal["erasure_completed"] = "erasure_completed"
    erasure_id: str
    scope: Literal["user", "tenant"]
    counts: dict[str, int]


class EraseTask(Event):
    """An erasure goes on until it is complete. It names nobody: who is erased is in the table until then."""

    queue = "chat-cleanup"
    event_type: Literal["erase"] = "erase"
    erasure_id: str
