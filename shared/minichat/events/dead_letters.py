"""Dead-letter queues, as an operator looks at them: what waits there and why (events-and-workers 1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from minichat.events.sqs import BATCH_ENTRIES, client
from minichat.observability import logger

LOOKING_SECONDS = 600
"""How long a message that is looked at is hidden from everybody else, unless it is let go before."""
UNKNOWN_REASON = "came too often"
"""What is known of a message that SQS itself moved."""


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
        """Why it is here."""
        return self.attributes.get("reason", UNKNOWN_REASON)


def depth(url: str) -> tuple[int, int]:
    """How many messages wait, and how many somebody has received and not deleted yet; both are SQS's estimates."""
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    said: Any = client().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(said[names[0]]), int(said[names[1]])


def waiting(url: str) -> Iterator[DeadLetter]:
    """Every message of a queue, hidden from others while it is looked at: `release` or `delete` each that was given."""
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
            # Whoever stops looking has received these with the last one.
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
    """Lets others see the message again: at once, or, when SQS does not answer, after the time it was hidden for."""
    with _harmless("a dead letter stays hidden", letter):
        client().change_message_visibility(QueueUrl=url, ReceiptHandle=letter.receipt, VisibilityTimeout=0)


def delete(url: str, letter: DeadLetter) -> None:
    """Removes the message. When SQS does not answer it stays, and may be sent once more."""
    with _harmless("a dead letter stays", letter):
        client().delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)


@contextmanager
def _harmless(what: str, letter: DeadLetter) -> Iterator[None]:
    """A failure of SQS for one message does not stop work on the others."""
    try:
        yield
    except (ClientError, BotoCoreError):
        logger.warning(what, extra={"event_id": letter.attributes.get("event_id")}, exc_info=True)
