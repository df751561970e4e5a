"""Dead-letter queues for operators: what waits there, and why (events-and-workers 1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from minichat.events.sqs import BATCH_ENTRIES, client
from minichat.observability import logger

LOOKING_SECONDS = 600
"""How long a message is hidden from others while an operator looks at it, unless released earlier."""
UNKNOWN_REASON = "came too often"
"""The reason given for a message that SQS itself moved."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that nobody could handle."""

    receipt: str
    group: str
    body: str
    attributes: dict[str, str]
    sent_at: datetime
    received: int

    @property
    def reason(self) -> str:
        """Why nobody could handle it."""
        return self.attributes.get("reason", UNKNOWN_REASON)


def depth(url: str) -> tuple[int, int]:
    """How many messages wait, and how many are received but not yet deleted; both are SQS's estimates."""
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    said: Any = client().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(said[names[0]]), int(said[names[1]])


def waiting(url: str) -> Iterator[DeadLetter]:
    """Every message of a queue, hidden from others meanwhile; the caller must `release` or `delete` each one."""
    while (
        messages := client()
        .receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=BATCH_ENTRIES,
            VisibilityTimeout=LOOKING_SECONDS,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        .get("Messages", [])
    ):
        letters = [_letter(message) for message in messages]
        try:
            while letters:
                yield letters.pop(0)
        finally:
            # A caller that stops early has never seen the rest of its batch.
            for letter in letters:
                release(url, letter)


def _letter(message: Any) -> DeadLetter:
    system: Any = message.get("Attributes", {})
    return DeadLetter(
        receipt=message["ReceiptHandle"],
        group=system.get("MessageGroupId", "redriven"),
        body=message["Body"],
        attributes={
            name: value["StringValue"]
            for name, value in message.get("MessageAttributes", {}).items()
            if "StringValue" in value
        },
        sent_at=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
        received=int(system.get("ApproximateReceiveCount", 1)),
    )


def release(url: str, letter: DeadLetter) -> None:
    """Makes the message visible again: at once, or after `LOOKING_SECONDS` when SQS does not answer."""
    with _harmless("a dead letter stays hidden", letter):
        client().change_message_visibility(QueueUrl=url, ReceiptHandle=letter.receipt, VisibilityTimeout=0)


def delete(url: str, letter: DeadLetter) -> None:
    """Removes the message. It stays when SQS does not answer, and may be sent once more."""
    with _harmless("a dead letter stays", letter):
        client().delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)


@contextmanager
def _harmless(what: str, letter: DeadLetter) -> Iterator[None]:
    """Logs a failure of SQS for one message, so that work on the others goes on."""
    try:
        yield
    except (ClientError, BotoCoreError):
        logger.warning(what, extra={"event_id": letter.attributes.get("event_id")}, exc_info=True)
