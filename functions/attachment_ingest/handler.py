"""Takes in files that arrived in the bucket, and gives up those that never arrived."""

import time
from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from minichat.domain.identity import AttachmentId, ChatId, TenantId
from minichat.events import sqs
from minichat.events.bucket import Arrived, Tested
from minichat.events.consume import NotYet, Received, consume
from minichat.events.payloads import AttachmentExpected
from minichat.moment import new_id, now
from minichat.providers.files import Files
from minichat.services.ingest import IngestDeps, Ingested, ingest
from minichat.services.providers_in_force import ProvidersInForce
from minichat.settings import current
from minichat.storage import store_time
from minichat.storage.items import connect

TO_END = timedelta(seconds=45)
"""Kept for a provider call that is under way when time is up, and for storing its outcome."""

connect(current().store)
sqs.connect(current())
_summarizes = current().doc_summaries.enabled
_means = IngestDeps(
    Files(ProvidersInForce(current()).entries_of), current().attachments, now, new_id, time.sleep, _summarizes
)


def handler(event: dict[str, Any], context: LambdaContext) -> object:
    """The messages to redeliver, as a partial batch response."""
    store_time.ask()
    ends_at = now() + timedelta(milliseconds=context.get_remaining_time_in_millis()) - TO_END
    told = AttachmentExpected | Arrived | Tested
    return consume(event, "attachment-ingest", told, lambda said, received: _taken_in(said, received, ends_at))


def _taken_in(said: AttachmentExpected | Arrived | Tested, received: Received, ends_at: datetime) -> str:
    del received
    outcomes = set()
    match said:
        case AttachmentExpected():
            where = TenantId(said.tenant_id), ChatId(said.chat_id), AttachmentId(said.attachment_id)
            outcomes.add(ingest(*where, _means, ends_at=ends_at))
            if Ingested.WAITING in outcomes:
                raise NotYet
        case Arrived():
            outcomes |= {ingest(*where, _means, ends_at=ends_at) for where in said.attachments()}
    if Ingested.AGAIN in outcomes:
        raise NotYet
    return max(outcomes, default=Ingested.NOTHING)
