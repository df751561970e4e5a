"""What every consumer of a queue does around its effect (events-and-workers 1).

the effect happened, or had happened before      the message is deleted
it can never happen: PermanentFailure, schema    to the dead-letter queue at once, with the reason
anything else                                    the message is hidden for longer and longer, and redelivered;
                                                 SQS moves it to the dead-letter queue after too many deliveries

A dead-letter queue that refuses a message counts as "anything else": a message is only deleted once it is elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.parser import ValidationError, parse
from botocore.exceptions import BotoCoreError, ClientError

from minichat.domain.errors import ServiceUnavailable
from minichat.events.sqs import REDRIVEN, SqsMessage, client, send_one
from minichat.observability import begin, count, emit, logger, measured
from minichat.pauses import jittered
from minichat.settings import current

FIRST_PAUSE_SECONDS = 2
LONGEST_PAUSE_SECONDS = 900
_NAMES = ("tenant_id", "chat_id", "turn_id", "request_id")


class PermanentFailure(Exception):
    """An event whose effect can never happen; the message says why, in words that an operator can act on."""


class NotYet(Exception):
    """An effect that needs another go, later."""


@dataclass(frozen=True, slots=True)
class Received:
    """An event as delivered: the attributes of its message, its JSON, and the number of deliveries, with this one.

    `redriven`: an operator sent it again, after it had been given up.
    """

    event_id: str
    trace_id: str
    body: str
    attempt: int = 1
    redriven: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


Effect = Callable[[Any, Received], str]
"""Applies an event, once however often it is called, and returns the outcome in one word."""


def consume(event: dict[str, Any], queue: str, model: Any, effect: Effect) -> PartialItemFailureResponse:
    """Handles a batch of a queue's messages, and names those to redeliver.

    `model` is the type, or union of types, of the queue's events. In a FIFO queue a failure stops its group.
    """
    fifo = current().queues.urls[queue].endswith(".fifo")
    processor = SqsFifoPartialProcessor(skip_group_on_error=True) if fifo else BatchProcessor(event_type=EventType.SQS)
    processor.raise_on_entire_batch_failure = False
    untried = {record["messageId"]: SQSRecord(record) for record in event["Records"]}

    def handle(record: SQSRecord) -> None:
        # A standard queue may deliver a message twice, also in one batch.
        untried.pop(record.message_id, None)
        _handle(record, queue, model, effect)

    begin()
    try:
        answer = process_partial_response(event=event, record_handler=handle, processor=processor)
        for record in untried.values():
            # The failure before it in its group is not redelivered while this one stays in flight.
            _hide(record, queue, _attempt(record))
        return answer
    finally:
        emit(current().metrics_namespace)


def readable(event: dict[str, Any], model: Any) -> Iterator[tuple[str, Any]]:
    """The valid events of a batch, each with its id: for applying several at once."""
    for raw in event["Records"]:
        record = SQSRecord(raw)
        with suppress(PermanentFailure, RecursionError):
            yield _said(record).get("event_id", record.message_id), _parsed(record, model)


def _handle(record: SQSRecord, queue: str, model: Any, effect: Effect) -> None:
    said = _said(record)
    attempt = _attempt(record)
    received = Received(
        event_id=said.get("event_id", record.message_id),
        trace_id=said.get("trace_id", ""),
        body=record.body,
        attempt=attempt,
        redriven=REDRIVEN in said,
        attributes=said,
    )
    known: dict[str, object] = {
        "queue": queue,
        "event_id": received.event_id,
        "event_type": said.get("event_type"),
        "tenant_id": said.get("tenant_id"),
        "trace_id": received.trace_id,
        "attempt": attempt,
    }
    try:
        try:
            payload = _parsed(record, model)
            known |= {name: value for name in _NAMES if (value := getattr(payload, name, None)) is not None}
            with measured(queue, received.trace_id):
                result = effect(payload, received)
        except (PermanentFailure, RecursionError) as problem:
            # JSON nested too deep to parse or write fails every time.
            reason = str(problem)[:500]
            _bury(record, queue, said, reason)
            count("consumer_result_total", queue=queue, result="dead")
            logger.error("consumed", extra={**known, "result": "dead", "reason": reason})
            return
    except Exception as problem:
        _hide(record, queue, attempt)
        count("consumer_result_total", queue=queue, result="again")
        logger.warning("consumed", extra={**known, "result": "again", "reason": type(problem).__name__}, exc_info=True)
        raise
    else:
        count("consumer_result_total", queue=queue, result=result)
        logger.info("consumed", extra={**known, "result": result})


def _said(record: SQSRecord) -> dict[str, str]:
    return {
        name: str(attribute["stringValue"])
        for name, attribute in record["messageAttributes"].items()
        if attribute.get("stringValue")
    }


def _attempt(record: SQSRecord) -> int:
    return int(record.attributes.approximate_receive_count or 1)


def _bury(record: SQSRecord, queue: str, said: dict[str, str], reason: str) -> None:
    """Sends the message to the dead-letter queue as it came, with the reason.

    SQS refuses a message that has no room for the reason; it is redelivered until SQS itself moves it.
    Raises ServiceUnavailable.
    """
    group = record["attributes"].get("MessageGroupId", queue)
    buried = SqsMessage(record.message_id, group, record.body, {**said, "reason": reason})
    try:
        send_one(current().queues.dead_letters[queue], buried)
    except ServiceUnavailable:
        count("dead_letter_refused_total", queue=queue)
        logger.error("a dead-letter queue takes no message", extra={"queue": queue, "reason": reason})
        raise


def _parsed(record: SQSRecord, model: Any) -> object:
    try:
        return parse(event=record.json_body, model=model)
    except ValidationError as problem:
        where = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}"
            for error in problem.errors(include_url=False, include_input=False)[:5]
        )
        raise PermanentFailure(f"not as its schema says: {where}") from None
    except ValueError as problem:
        raise PermanentFailure(f"not JSON: {problem}") from None


def _hide(record: SQSRecord, queue: str, attempt: int) -> None:
    """Hides a message until its next delivery, twice as long each time, with jitter."""
    longest = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    seconds = max(round(jittered(longest)), 1)
    try:
        client().change_message_visibility(
            QueueUrl=current().queues.urls[queue], ReceiptHandle=record.receipt_handle, VisibilityTimeout=seconds
        )
    except (ClientError, BotoCoreError):
        # It then stays hidden for the queue's own timeout.
        logger.warning("a message keeps its visibility timeout", exc_info=True)
