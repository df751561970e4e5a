"""SQS: events on their way to consumers, and to the dead-letter queues (events-and-workers 1).

A message's body is the event's JSON. Its attributes hold what a consumer needs before it parses the body:
`event_type`, `event_id`, `tenant_id` (as it is in keys: `domain.names`), `dedupe_key`, `schema_version`, and `trace_id`
when there is one.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.names import in_key
from minichat.settings import Settings

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

SCHEMA_VERSION = "1"
REDRIVEN = "redriven"
"""The attribute of a message that an operator sent again from a dead-letter queue; its value is when."""
BATCH_ENTRIES = 10
"""Messages per SendMessageBatch (AWS limit)."""
LONGEST_POLL_SECONDS = 20
GROUP_CHARACTERS = 128
"""Characters of a message's group (AWS limit); it takes those that keys are made of."""
BATCH_BYTES = 1_048_576
"""Bytes of one message, and of all messages of a batch together, attributes included (AWS limit)."""


_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that SQS refuses. Our bodies, being JSON, have none; a reason may quote one."""


def attributes_of(event_type: str, event_id: str, tenant_id: str, dedupe_key: str, **more: str) -> dict[str, str]:
    """The attributes of every event's message, and `more` for this one."""
    known = {"event_type": event_type, "event_id": event_id, "tenant_id": in_key(tenant_id), "dedupe_key": dedupe_key}
    return {**known, "schema_version": SCHEMA_VERSION, **more}


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """One message: its body, its attributes by name, and the group within which it waits its turn.

    It is delivered after `delay_seconds`; FIFO queues do not support that.
    """

    event_id: str
    group: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: int = 0

    @property
    def size(self) -> int:
        """Bytes, as SQS counts them."""
        named = sum(len(name) + len(value.encode()) + len("String") for name, value in self.attributes.items())
        return len(self.body.encode()) + named


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that SQS did not take; `permanent` when it never will."""

    message: SqsMessage
    reason: str
    permanent: bool


def client() -> "SQSClient":
    """The process's one SQS client; call `connect` first."""
    assert _connected
    return _connected[0]


def connect(settings: Settings) -> None:
    """Makes the client that everything here uses. Called once at process start; uses no network."""
    _connected[:] = [
        boto3.client(
            "sqs",
            region_name=settings.store.region,
            endpoint_url=settings.queues.endpoint,
            config=Config(
                connect_timeout=settings.store.connect_timeout_seconds,
                read_timeout=settings.store.read_timeout_seconds + LONGEST_POLL_SECONDS,
                max_pool_connections=32,
                retries={"mode": "standard", "max_attempts": 3},
            ),
        )
    ]


_connected: list["SQSClient"] = []


def send(url: str, messages: Sequence[SqsMessage], *, again: str = "") -> list[Unsent]:
    """Sends messages in their order, and returns those that were not taken, each with the reason.

    `again` makes a FIFO queue accept a message once more within its five minutes of deduplication.
    """
    fifo = url.endswith(".fifo")
    unsent: list[Unsent] = []
    for batch in _batches(messages, one_per_group=fifo):
        if any(not lost.permanent for lost in unsent):
            # Nothing overtakes a message that has to be sent again.
            unsent += [Unsent(message, "waits for one before it", permanent=False) for message in batch]
            continue
        entries: list[Any] = [_entry(str(number), message, fifo, again) for number, message in enumerate(batch)]
        try:
            answer = client().send_message_batch(QueueUrl=url, Entries=entries)
        except ClientError as error:
            reason = str(error.response["Error"]["Code"])
            # One bad message fails its whole batch: sent one by one, only that one fails.
            permanent = _is_callers_fault(error) and len(batch) == 1
            unsent += (
                [Unsent(message, reason, permanent) for message in batch]
                if permanent or not _is_callers_fault(error)
                else [lost for message in batch for lost in send(url, [message], again=again)]
            )
        except BotoCoreError as error:
            unsent += [Unsent(message, type(error).__name__, permanent=False) for message in batch]
        else:
            unsent += [
                Unsent(batch[int(failed["Id"])], failed["Code"], failed["SenderFault"])
                for failed in answer.get("Failed", [])
            ]
    return unsent


def send_one(url: str, message: SqsMessage, *, again: str = "") -> None:
    """Sends one message.

    Raises ServiceUnavailable when SQS does not take it.
    """
    if send(url, [message], again=again):
        raise ServiceUnavailable


def _entry(number: str, message: SqsMessage, fifo: bool, again: str) -> dict[str, Any]:
    attributes = {
        name: {"DataType": "String", "StringValue": _FORBIDDEN.sub("?", value)}
        for name, value in message.attributes.items()
        if value
    }
    entry: dict[str, Any] = {
        "Id": number,
        "MessageBody": message.body,
        "MessageAttributes": attributes,
        "MessageGroupId": _group(message.group),
    }
    if message.delay_seconds and not fifo:
        entry["DelaySeconds"] = message.delay_seconds
    return {**entry, "MessageDeduplicationId": f"{message.event_id}{again}"} if fifo else entry


def _group(name: str) -> str:
    """A group's name as SQS takes it: a long one by its digest."""
    return name if len(name) <= GROUP_CHARACTERS else hashlib.sha256(name.encode()).hexdigest()


def _batches(messages: Sequence[SqsMessage], *, one_per_group: bool) -> Iterator[list[SqsMessage]]:
    """Batches within the limits of SQS. `one_per_group` keeps order: within a batch, each message can fail alone."""
    batch: list[SqsMessage] = []
    size = 0
    for message in messages:
        full = len(batch) == BATCH_ENTRIES or size + message.size > BATCH_BYTES
        if batch and (full or (one_per_group and any(other.group == message.group for other in batch))):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message.size
    if batch:
        yield batch


def _is_callers_fault(error: ClientError) -> bool:
    status: int = error.response["ResponseMetadata"].get("HTTPStatusCode", 500)
    return status in {400, 413} and error.response["Error"]["Code"] not in _PASSING


_PASSING = frozenset(
    {"RequestThrottled", "ThrottlingException", "KmsThrottled", "AWS.SimpleQueueService.NonExistentQueue"}
)
