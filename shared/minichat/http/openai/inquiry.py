"""What a request of this door asks for, in the product's words; and the conversation that it may bring along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from minichat.domain.identity import AttachmentId, MessageId, RequestId
from minichat.domain.message import Aside, Message
from minichat.domain.text import is_blank
from minichat.http.openai.parameters import refuse, text

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_ROLES: dict[Any, Literal["user", "assistant", "system"]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A message to be answered, and how.

    `continues` is the id of a response or of a conversation. `keeps` says whether the chat stays: None where the
    request does not say.
    """

    content: str
    aside: Aside
    model: str | None = None
    web_search: bool = False
    attachment_ids: tuple[AttachmentId, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False
    background: bool = False
    keeps: bool | None = None
    previous: str | None = None
    conversation: str | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether a new chat for it is kept in no list: what it brings along is not stored, so it cannot go on."""
        return self.keeps is False or bool(self.aside.history)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message of a conversation as a request brings it; `where` names it in refusals."""

    where: str
    role: Literal["user", "assistant", "system"]
    content: str


def role_of(where: str, given: Any) -> Literal["user", "assistant", "system"]:
    """One of three roles. Raises InvalidRequest for results of tools, and for what is no role."""
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        refuse(f"{where}.role", f"There are no messages of {given!r} here.", "unsupported_value")
    return role


def content_of(where: str, given: Any, texts: Mapping[str, str]) -> str:
    """The text of a message: itself, or its parts, one line end between two.

    `texts` are the types of parts with text, and the member that has it. Raises InvalidRequest for any other part.
    """
    if isinstance(given, str):
        return text(where, given)
    if not isinstance(given, list):
        refuse(where, "A text or a list of parts is expected.", "invalid_type")
    parts = []
    for number, part in enumerate(given):
        here = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in texts:
            refuse(here, f"Parts of type {kind!r} are not taken here.", "unsupported_value")
        parts.append(text(here, part.get(texts[kind])))
    return "\n".join(parts)


def split(param: str, said: Sequence[Spoken], instructions: str) -> tuple[str, str, tuple[Message, ...]]:
    """The message to be answered, all instructions, and the conversation before it.

    Raises InvalidRequest when the last message is not the user's, or is blank.
    """
    told = [instructions, *(one.content for one in said if one.role == "system")]
    talk = [one for one in said if one.role != "system"]
    if not talk or talk[-1].role != "user":
        refuse(param, "The last message must be the user's.", "invalid_value")
    if is_blank(talk[-1].content):
        refuse(talk[-1].where, "The message must not be blank.", "invalid_value")
    history = tuple(
        Message(MessageId(f"{number:06}"), RequestId(""), one.role, one.content, _NEVER)
        for number, one in enumerate(talk[:-1])
        if not is_blank(one.content)
    )
    return talk[-1].content, "\n\n".join(one for one in told if one), history
