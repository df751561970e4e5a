"""A chat: who owns it, which turn is its latest, and whether one runs."""

from dataclasses import dataclass
from datetime import datetime

from minichat.domain.errors import FieldError, InvalidRequest
from minichat.domain.identity import MICROSECOND, ChatId, MessageId, RequestId, TenantId, UserId
from minichat.domain.text import is_blank

TITLE_MAX_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Chat:
    """The head of one chat. `last_message_at` is the newest `created_at` of its messages, including those taken back.

    `summarized_up_to` is the frontier of the summary, None without one that may be used. A temporary chat has
    `ends_at`: its time is not checked before that.
    """

    tenant_id: TenantId
    chat_id: ChatId
    user_id: UserId
    model: str
    message_count: int
    created_at: datetime
    updated_at: datetime
    title: str | None = None
    latest_request_id: RequestId | None = None
    running_request_id: RequestId | None = None
    last_message_at: datetime | None = None
    summarized_up_to: MessageId | None = None
    deleted_at: datetime | None = None
    ends_at: datetime | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether it is deleted automatically once nobody uses it."""
        return self.ends_at is not None

    def covers(self, message_id: MessageId) -> bool:
        """Whether the summary stands for this message, too."""
        return self.summarized_up_to is not None and message_id <= self.summarized_up_to


def next_instant(chat: Chat, now: datetime) -> datetime:
    """When the chat's next message happens: now, but never at or before a message it already has.

    Instances' clocks differ; without this a message of a later turn could sort before an earlier one.
    """
    if chat.last_message_at is None:
        return now
    return max(now, chat.last_message_at + MICROSECOND)


def clean_title(title: str) -> str:
    """The title without surrounding white space, 1 to 255 characters.

    Raises InvalidRequest naming the field `title` (contract 1).
    """
    trimmed = title.strip()
    if is_blank(trimmed):
        raise InvalidRequest(FieldError("title", "The title must not be blank.", "blank"))
    if len(trimmed) > TITLE_MAX_CHARACTERS:
        raise InvalidRequest(
            FieldError("title", f"The title must have at most {TITLE_MAX_CHARACTERS} characters.", "too_long")
        )
    return trimmed
