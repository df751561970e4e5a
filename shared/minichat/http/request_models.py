"""Bodies and queries of requests (contract 1). Unknown members are ignored; null for an optional one means absent."""

from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from minichat.domain.chat import TITLE_MAX_CHARACTERS
from minichat.domain.text import VISIBLE, well_formed


def _whole(number: object) -> object:
    """JSON does not tell 5 from 5.0."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


# What `str.strip` takes off.
_SPACE = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TRIMMED = rf"^[{_SPACE}]*[^{_SPACE}]([\s\S]{{0,{TITLE_MAX_CHARACTERS - 2}}}[^{_SPACE}])?[{_SPACE}]*$"

Text = Annotated[str, AfterValidator(well_formed)]
# The document says here what the domain refuses, in its own words.
UserText = Annotated[
    Text,
    Field(
        description="Unicode text, kept exactly as it comes; a reader sees at least one character of it.",
        json_schema_extra={"format": "visible-text", "pattern": VISIBLE},
    ),
]
Title = Annotated[
    Text,
    Field(
        description="1 to 255 characters after trimming, one of them visible.",
        json_schema_extra={"format": "visible-text", "allOf": [{"pattern": VISIBLE}, {"pattern": _TRIMMED}]},
    ),
]


class _Body(BaseModel):
    # Each route builds a validator, and a function serves only some of the routes.
    model_config = ConfigDict(defer_build=True)


class CreateChat(_Body):
    """A new chat; without a model it gets the catalog's default."""

    title: Title | None = None
    model: Text | None = None
    is_temporary: Annotated[
        StrictBool | None, Field(description="Deleted by itself once nobody has used it for a day; in no list.")
    ] = None


class RenameChat(_Body):
    """The new title."""

    title: Title


class WebSearch(_Body):
    """Whether the model may search the web for this message."""

    enabled: StrictBool


class SendMessageBody(_Body):
    """A message to be answered. `request_id` makes the send idempotent."""

    content: UserText
    request_id: UUID | None = None
    attachment_ids: Annotated[
        Annotated[list[UUID], Field(max_length=64, json_schema_extra={"uniqueItems": True})] | None,
        Field(description="Attachments of the chat that are `ready`, each once."),
    ] = None
    web_search: WebSearch | None = None


class AnnounceFile(_Body):
    """A file to be uploaded."""

    filename: Annotated[Text, Field(description="Its last part is kept, shortened to 255 characters.")]
    content_type: Annotated[Text, Field(max_length=255, description="Where it is none of ours, the name decides.")] = ""
    size_bytes: Annotated[
        int, Field(strict=True, ge=1, description="Exactly so many bytes will be taken."), BeforeValidator(_whole)
    ]


@dataclass(frozen=True, slots=True)
class ListChats:
    """The query of the list of chats."""

    limit: Annotated[int, Query(ge=1, le=100)] = 20
    cursor: Annotated[str | None, Query()] = None
    filter_: Annotated[
        str | None,
        Query(
            alias="$filter",
            description="`title` (eq ne in, contains startswith endswith), `updated_at` (eq ne gt ge lt le), "
            "`id` (eq ne in), joined by `and`, `or` and `not`. Texts are compared case by case.",
            json_schema_extra={"format": "filter-of-chats"},
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class ListMessages:
    """The query of the list of messages."""

    limit: Annotated[int, Query(ge=1, le=100)] = 20
    cursor: Annotated[str | None, Query()] = None
    select: Annotated[str | None, Query(alias="$select", description="Members, separated by commas.")] = None
    orderby: Annotated[
        str | None,
        Query(
            alias="$orderby",
            description="`created_at` or `id`, `asc` (default) or `desc`.",
            json_schema_extra={"pattern": r"^\s*((created_at|id)(\s+(asc|desc))?\s*)?$"},
        ),
    ] = None
    filter_: Annotated[
        str | None,
        Query(
            alias="$filter",
            description="`created_at` (eq ne gt ge lt le), `role` (eq ne in), `id` (eq ne in), "
            "joined by `and`, `or` and `not`.",
            json_schema_extra={"format": "filter-of-messages"},
        ),
    ] = None


class ListAttachments(_Body):
    """The query of the list of attachments."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class React(_Body):
    """What the caller thinks of an answer."""

    reaction: Literal["like", "dislike"]


class EditTurnBody(_Body):
    """The message that replaces that of the turn."""

    content: UserText
