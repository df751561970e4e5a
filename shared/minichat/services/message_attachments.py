"""The attachments of a message: which are allowed, and what a model gets of them (context-attachments-providers 3)."""

from collections.abc import Mapping, Sequence

from minichat.domain.attachment import Attachment, AttachmentStatus
from minichat.domain.citations import CitedFile
from minichat.domain.errors import FieldError, InvalidAttachment, TooManyImages
from minichat.domain.identity import AttachmentId, Caller
from minichat.domain.tools import Document
from minichat.domain.turn import Turn
from minichat.services.policy_in_force import Rules
from minichat.storage import attachments

FIELD = "attachment_ids"


def named(
    caller: Caller, wanted: Sequence[AttachmentId], found: Sequence[Attachment], rules: Rules
) -> tuple[Attachment, ...]:
    """The attachments that a message names, in its order, of those that were found in its chat.

    Raises InvalidAttachment for one that is unknown, another's, deleted or not ready; TooManyImages.
    """
    known = {one.attachment_id: one for one in found if _is_the_callers(one, caller)}
    wrong = [_refusal(one, known.get(one)) for one in wanted]
    if refusals := [refusal for refusal in wrong if refusal is not None]:
        raise InvalidAttachment(*refusals)
    return _counted(tuple(known[one] for one in wanted), rules)


def kept(caller: Caller, turn: Turn, rules: Rules) -> tuple[Attachment, ...]:
    """The attachments of a turn's message that can still be used; its successor is sent with them.

    Raises TooManyImages when fewer are allowed by now.
    """
    if not turn.attachment_ids:
        return ()
    found = attachments.of_ids(turn.tenant_id, turn.chat_id, turn.attachment_ids)
    return _counted(tuple(one for one in found if _is_the_callers(one, caller) and _is_ready(one)), rules)


def images(sent_with: Sequence[Attachment]) -> tuple[Attachment, ...]:
    """Those of the attachments that a model looks at."""
    return tuple(one for one in sent_with if one.kind == "image")


def citable(documents: Sequence[Document]) -> Mapping[str, CitedFile]:
    """The files that an answer may cite, by the provider's id of each."""
    return {one.file_id: CitedFile(one.attachment_id, one.filename) for one in documents}


def _is_the_callers(attachment: Attachment, caller: Caller) -> bool:
    return attachment.deleted_at is None and attachment.uploaded_by == caller.user_id


def _is_ready(attachment: Attachment) -> bool:
    return attachment.status is AttachmentStatus.READY and attachment.provider_file_id is not None


def _refusal(attachment_id: AttachmentId, found: Attachment | None) -> FieldError | None:
    if found is None:
        return FieldError(FIELD, f"There is no attachment {attachment_id} in this chat.", "not_found")
    if not _is_ready(found):
        return FieldError(FIELD, f"The attachment {attachment_id} is {found.status.value}, not ready.", "not_ready")
    return None


def _counted(sent_with: tuple[Attachment, ...], rules: Rules) -> tuple[Attachment, ...]:
    most = rules.settings.attachments.max_images_per_message
    if (count := len(images(sent_with))) > most:
        raise TooManyImages(f"The message has {count} images; at most {most} are allowed.")
    return sent_with
