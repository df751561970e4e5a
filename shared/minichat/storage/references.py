"""References of messages to attachments: each attachment counts the visible messages that were sent with it.

    send             counts it: only while it is ready and nobody deleted it
    retry, edit      write nothing: the new message takes over the old one's references
    delete a turn    uncounts it

An attachment is deleted only while its count is zero. So an attachment of a visible message exists and stays ready,
and a user can take back a message, then delete its file.
"""

from collections.abc import Iterable

from pynamodb.expressions.update import Action

from minichat.domain.attachment import Attachment, AttachmentStatus
from minichat.domain.errors import FieldError
from minichat.domain.identity import AttachmentId, Call, ChatId, TenantId
from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.attachment_items import AttachmentItem
from minichat.storage.conditions import all_of
from minichat.storage.transact import Refused, Update


def added(call: Call, referred_to: Iterable[Attachment]) -> list[Update]:
    """The writes that count one more message for each attachment, only while it is ready and the caller's.

    From then on it cannot be deleted.
    """
    is_there = AttachmentItem.pk.exists()
    is_ready = AttachmentItem.status == AttachmentStatus.READY.value
    is_shown = AttachmentItem.deleted_at.does_not_exist()
    # The cleanup of a deleted chat begins without deleting its attachments one by one.
    is_kept = AttachmentItem.cleanup_status.does_not_exist()
    is_theirs = AttachmentItem.uploaded_by == call.caller.user_id
    usable = all_of(is_there, is_ready, is_shown, is_kept, is_theirs)
    return [
        Update(_name(one.attachment_id), _item(one.tenant_id, one.chat_id, one.attachment_id), _counted(1), usable)
        for one in referred_to
    ]


def released(turn: Turn) -> list[Update]:
    """The writes that count one message less for each attachment of a deleted turn."""
    return [
        Update(_name(one), _item(turn.tenant_id, turn.chat_id, one), _counted(-1), AttachmentItem.pk.exists())
        for one in turn.attachment_ids
    ]


def lost(refused: Refused, referred_to: Iterable[Attachment]) -> list[FieldError]:
    """Why a message could not be sent with these: the attachments that somebody deleted meanwhile."""
    return [
        FieldError("attachment_ids", f"The attachment {one.attachment_id} was deleted.", "not_found")
        for one in referred_to
        if _name(one.attachment_id) in refused.old
    ]


def _counted(messages: int) -> list[Action]:
    return [AttachmentItem.references.add(messages)]


def _name(attachment_id: AttachmentId) -> str:
    return f"attachment {attachment_id}"


def _item(tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId) -> AttachmentItem:
    return AttachmentItem(*keys.attachment(tenant_id, chat_id, attachment_id))
