"""One message of a chat, and the fingerprint that tells whether a repeated send is the same send."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from minichat.domain.answer_end import COMPLETE, CompletionSignal
from minichat.domain.citations import Citation
from minichat.domain.errors import FieldError, InputTooLong, InvalidRequest
from minichat.domain.identity import AttachmentId, MessageId, RequestId
from minichat.domain.message_size import MESSAGE_MAX_BYTES, TOLD_MAX_BYTES, can_be_told, told_bytes
from minichat.domain.text import is_blank
from minichat.domain.turn import ToolCalls

Role = Literal["user", "assistant", "system"]
Reaction = Literal["like", "dislike"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is stored. User and assistant message of a turn share `request_id`.

    `reaction` is the owner's, to an assistant message. An answer that is not whole says how it is `cut`, one by another
    model than the chat's says which was selected, and why it was not used.
    """

    message_id: MessageId
    request_id: RequestId
    role: Role
    content: str
    created_at: datetime
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    attachment_ids: tuple[AttachmentId, ...] = ()
    citations: tuple[Citation, ...] = ()
    reaction: Reaction | None = None
    cut: CompletionSignal | None = None
    tool_calls: ToolCalls = field(default_factory=ToolCalls)
    selected_model: str | None = None
    downgrade_reason: str | None = None

    @property
    def completion_signal(self) -> CompletionSignal | None:
        """Whether an answer is whole; None for any other message."""
        return (self.cut or COMPLETE) if self.role == "assistant" else None


@dataclass(frozen=True, slots=True)
class Aside:
    """What comes with a message and is not kept: instructions, the conversation before it, oldest first, and the most
    tokens of its answer. A conversation that must be sent `whole` is refused where it does not fit."""

    instructions: str = ""
    history: tuple[Message, ...] = ()
    max_output_tokens: int | None = None
    whole: bool = False


NOTHING_ASIDE = Aside()


def checked_content(content: str) -> str:
    """The content, untouched, when it says something and fits one message.

    Raises InvalidRequest naming `content` when it is blank, InputTooLong when it could not be stored or read again.
    """
    if is_blank(content):
        raise InvalidRequest(FieldError("content", "The content must not be blank.", "blank"))
    size = len(content.encode())
    if size > MESSAGE_MAX_BYTES:
        raise InputTooLong(f"The message has {size} bytes; at most {MESSAGE_MAX_BYTES} fit one message.")
    if not can_be_told(content):
        raise InputTooLong(
            f"The message has {told_bytes(content)} bytes once quotes, backslashes and control characters are escaped, "
            f"for Lambda twice; at most {TOLD_MAX_BYTES} fit one answer."
        )
    return content


def fingerprint(content: str, attachment_ids: Sequence[str], aside: Aside = NOTHING_ASIDE) -> str:
    """128 bits that differ when content, attachments or what comes with them do; stored with the turn for
    `request_id_reused`."""
    digest = hashlib.sha256(content.encode())
    for attachment_id in sorted(attachment_ids):
        digest.update(b"\0" + attachment_id.encode())
    if aside != NOTHING_ASIDE:
        said = [(message.role, message.content) for message in aside.history]
        digest.update(b"\1" + repr((aside.instructions, aside.max_output_tokens, said)).encode())
    return digest.hexdigest()[:32]
