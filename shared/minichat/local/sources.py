"""Lambda's event source mappings, for the local stack: the outbox's stream and the queues call their functions.

    python -m minichat.local.sources                    all mappings of template.yaml
    python -m minichat.local.sources UsageFunction …    those of these functions

The template says which function, how many records, what filter, how many attempts, where failures go. Events have the
shape that Lambda gives them (`lambda_events`). Lambda keeps its place in a stream outside the function; here it is in a
file, so a killed process resumes where it was, or a little before.
"""

import argparse
import random
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from minichat.events import sqs
from minichat.local import limits
from minichat.local.lambda_events import batches, queue_record
from minichat.local.mappings import Handler, Mapping, invoke, mapped
from minichat.local.schedules import imported
from minichat.local.stack import attached
from minichat.local.streams import Stream, follow, in_a_thread
from minichat.local.tables import load_template, project_root
from minichat.settings import current

LONG_POLL_SECONDS = 5
AT_ONCE = 5
"""Batches of a standard queue that are handled in parallel: as many as Lambda starts with."""
RECEIVED_AT_ONCE = 10
"""Messages of one ReceiveMessage (AWS limit)."""


def main() -> None:
    """Serves the mappings until the process is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("functions", nargs="*")
    parser.add_argument("--places", type=Path, default=Path(), help="the folder that remembers places in streams")
    parser.add_argument(
        "--fail-percent",
        type=int,
        default=0,
        help="so many invocations fail, half of them after their effect; as many happen twice",
    )
    parser.add_argument("--state", type=Path, help="of a local stack that runs with --no-events")
    options = parser.parse_args()
    limits.install()
    if options.state is not None:
        attached(options.state)
    sqs.connect(current())
    known = mapped(load_template(project_root() / "template.yaml"), options.state or options.places)
    there = [mapping for mapping in known if mapping.condition not in _left_out()]
    mappings = [mapping for mapping in there if not options.functions or mapping.function in options.functions]
    for mapping in mappings:
        handler = _failing(imported(mapping.handler), options.fail_percent)
        serve = _serve_stream if mapping.kind == "DynamoDB" else _serve_queue
        for _ in range(side_by_side(mapping)):
            in_a_thread(serve, mapping, handler)
    print("serving", *(mapping.function for mapping in mappings), flush=True)
    threading.Event().wait()


def _left_out() -> set[str]:
    """The template's conditions that are false with the settings of this process."""
    export = current().export
    holds = {"ExportsEvents": export.is_on, "CallsWebhooks": bool(export.webhooks)}
    return {name for name, is_true in holds.items() if not is_true}


def side_by_side(mapping: Mapping) -> int:
    """How many batches of a source are handled at once; one for an ordered source, whatever Lambda does."""
    if mapping.kind == "DynamoDB" or _url(mapping).endswith(".fifo"):
        return 1
    return min(AT_ONCE, int(mapping.properties.get("ScalingConfig", {}).get("MaximumConcurrency", AT_ONCE)))


def _failing(handler: Handler, percent: int) -> Handler:
    """The handler, made to fail or run twice at random: consumers must tolerate both."""

    def maybe(event: dict[str, Any], context: object) -> Any:
        fails = random.randrange(100) < percent  # noqa: S311  chance, not a secret
        if fails and random.random() < 0.5:  # noqa: S311  as above
            raise RuntimeError("failed on purpose, before the effect")
        if random.randrange(100) < percent:  # noqa: S311  as above
            handler(event, context)
        answer = handler(event, context)
        if fails:
            raise RuntimeError("failed on purpose, after the effect")
        return answer

    return maybe if percent else handler


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that a mapping polls."""

    client: Any
    url: str
    arn: str

    @classmethod
    def at(cls, url: str) -> "Queue":
        """The queue of this URL."""
        client = sqs.client()
        attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        return cls(client, url, attributes["QueueArn"])


def _serve_queue(mapping: Mapping, handler: Handler) -> None:
    queue = Queue.at(_url(mapping))
    while True:
        poll(queue, mapping, handler, wait_seconds=LONG_POLL_SECONDS)


def _url(mapping: Mapping) -> str:
    name = mapping.source.removeprefix("Queues.Outputs.").removesuffix("Arn")
    return next(
        url
        for url in current().queues.urls.values()
        if url.rpartition("/")[2].removesuffix(".fifo") == f"minichat-{name}"
    )


def poll(queue: Queue, mapping: Mapping, handler: Handler, *, wait_seconds: int = 0) -> int:
    """Receives a batch, invokes the function, and deletes what it does not name; returns the number received.

    Messages that it names, and all of a failed invocation, stay hidden until their visibility timeout is over.
    """
    answer = queue.client.receive_message(
        QueueUrl=queue.url,
        MaxNumberOfMessages=min(mapping.properties["BatchSize"], RECEIVED_AT_ONCE),
        WaitTimeSeconds=wait_seconds,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    )
    records = [queue_record(message, queue.arn) for message in answer.get("Messages", [])]
    for batch in batches(records, mapping.properties["BatchSize"]):
        known = [record["messageId"] for record in batch]
        failed = invoke(mapping, handler, batch, known)
        done = [record for record in batch if failed is not None and record["messageId"] not in failed]
        if done:
            queue.client.delete_message_batch(
                QueueUrl=queue.url,
                Entries=[{"Id": str(n), "ReceiptHandle": one["receiptHandle"]} for n, one in enumerate(done)],
            )
    return len(records)


def _serve_stream(mapping: Mapping, handler: Handler) -> None:
    store = current().store
    options: dict[str, Any] = {"region_name": store.region, "endpoint_url": store.endpoint}
    # Engines name shards more briefly than AWS does.
    client = boto3.client("dynamodbstreams", config=Config(parameter_validation=False), **options)
    table = boto3.client("dynamodb", **options).describe_table(TableName=store.outbox_table)["Table"]
    follow(Stream(client, table["LatestStreamArn"]), mapping, handler, threading.Event())


if __name__ == "__main__":
    main()
