"""Events of exports: of a chat, a user or a tenant, and their task."""

from typing import Literal

from minichat.events.base import Audited, Event


class ExportRequested(Audited):
    """Somebody had a chat, a user or the whole tenant exported; `exported_user_id` is absent of a tenant."""

    event_type: Literal["export_requested"] = "export_requested"
    actor_user_id: str
    export_id: str
    scope: Literal["chat", "user", "tenant"]
    exported_user_id: str | None = None
    chat_id: str | None = None


class ExportEnded(Audited):
    """An export can be fetched (`ready`), or nothing of it is kept (`gone`); `counts` is how much is in it, by kind."""

    event_type: Literal["export_ended"] = "export_ended"
    export_id: str
    scope: Literal["chat", "user", "tenant"]
    outcome: Literal["ready", "gone"]
    counts: dict[str, int]


class ExportTask(Event):
    """An export goes on until it has ended. It names nobody: who is exported is in the table."""

    queue = "chat-cleanup"
    event_type: Literal["export"] = "export"
    export_id: str
