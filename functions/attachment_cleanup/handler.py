"""Removes what deleted attachments left at providers."""

from typing import Any

from minichat.domain.cleanup import CleanupOutcome
from minichat.events import sqs
from minichat.events.consume import NotYet, PermanentFailure, Received, consume
from minichat.events.payloads import AttachmentCleanup
from minichat.moment import now
from minichat.providers.files import Files
from minichat.services import provider_cleanup
from minichat.services.providers_in_force import ProvidersInForce
from minichat.settings import current
from minichat.storage.items import connect

connect(current().store)
sqs.connect(current())
_means = provider_cleanup.CleanupDeps(Files(ProvidersInForce(current()).entries_of), current().cleanup, now)


def handler(event: dict[str, Any], context: object) -> object:
    """The messages to redeliver, as a partial batch response."""
    del context
    return consume(event, "attachment-cleanup", AttachmentCleanup, _clean)


def _clean(event: AttachmentCleanup, received: Received) -> str:
    try:
        outcome = provider_cleanup.clean_attachment(event, _means, redriven=received.redriven)
    except provider_cleanup.AttachmentNotDeleted:
        raise PermanentFailure("the attachment is not deleted") from None
    if outcome is CleanupOutcome.PENDING:
        raise NotYet
    if outcome is CleanupOutcome.FAILED:
        raise PermanentFailure("its attempts are used up: last_cleanup_error of the attachment says why")
    return outcome
