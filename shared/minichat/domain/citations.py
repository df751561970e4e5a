"""Where an answer has what it says from (context-attachments-providers 5)."""

from dataclasses import dataclass

from minichat.domain.identity import AttachmentId


@dataclass(frozen=True, slots=True)
class CitedFile:
    """A file of the chat, as a citation names it: the provider's id of it never leaves the backend."""

    attachment_id: AttachmentId
    filename: str
