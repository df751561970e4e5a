"""Queues of a test's own, and their messages as Lambda hands them to a consumer."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import boto3
import pytest

from minichat import moment
from minichat.events import audit_sink, sqs
from minichat.local import queues
from minichat.local.lambda_events import LambdaContext, queue_record, stream_record
from minichat.local.tables import project_root
from minichat.settings import Queues, Store, current
from minichat.storage import objects
from minichat.storage.items import connect

Record = dict[str, Any]
Handler = Callable[[Record, Any], Any]


def invocation() -> LambdaContext:
    """What a handler is told of an invocation that begins now."""
    return LambdaContext("a function", timeout=60)


def forget() -> None:
    """Has this process read its settings again, and make clients of buckets for what they say then."""
    for cached in (current, audit_sink._s3, objects._s3):
        cached.cache_clear()


@dataclass(frozen=True)
class QueueAccess:
    """Every queue of the template, made for one test, and a client that is not the product's."""

    environment: dict[str, str]
    settings: Queues
    client: Any

    @classmethod
    def made_at(cls, endpoint: str, region: str) -> "QueueAccess":
        """Makes them at an engine that has queues."""
        urls = queues.create(project_root(), endpoint, region, prefix=f"test-{uuid4().hex[:12]}")
        environment = queues.variables(project_root(), endpoint, urls)
        settings = Queues.model_validate(
            {
                "endpoint": endpoint,
                "urls": json.loads(environment["MINICHAT_QUEUES__URLS"]),
                "dead_letters": json.loads(environment["MINICHAT_QUEUES__DEAD_LETTERS"]),
            }
        )
        return cls(environment, settings, boto3.client("sqs", endpoint_url=endpoint, region_name=region))

    @classmethod
    @contextmanager
    def used_here(cls, store: Store, monkeypatch: pytest.MonkeyPatch, **environment: str) -> "Iterator[QueueAccess]":
        """Makes them where the tables are, and has this process use both, and what else of its environment is said."""
        made = cls.made_at(str(store.endpoint), store.region)
        for name, value in (made.environment | environment).items():
            monkeypatch.setenv(name, value)
        forget()
        sqs.connect(current())
        connect(store)
        yield made
        forget()

    def send(self, queue: str, body: str, *, group: str = "tenant", **attributes: str) -> None:
        """Puts a message there, as somebody else could."""
        url = self.settings.urls[queue]
        fifo = {"MessageDeduplicationId": uuid4().hex} if url.endswith(".fifo") else {}
        said = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=said, MessageGroupId=group, **fifo)

    def arn_of(self, url: str) -> str:
        """A queue's ARN; asking for it receives nothing."""
        said = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        return str(said["QueueArn"])

    def depth(self, queue: str) -> tuple[int, int]:
        """How many messages wait, and how many somebody has received and not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        said = self.client.get_queue_attributes(QueueUrl=self.settings.urls[queue], AttributeNames=names)["Attributes"]
        return int(said[names[0]]), int(said[names[1]])

    def receive(self, url: str, at_most: int = 10, **options: Any) -> list[Record]:
        """A batch of messages, as records of a Lambda event."""
        answer = self.client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=at_most,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
            **options,
        )
        return [queue_record(message, self.arn_of(url)) for message in answer.get("Messages", [])]

    def all_of(self, url: str) -> list[Record]:
        """Takes everything out of a queue."""
        found: list[Record] = []
        while batch := self.receive(url):
            found += batch
            for record in batch:
                self.client.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])
        return found

    def dead(self, queue: str) -> list[Record]:
        """Takes everything out of a dead-letter queue."""
        return self.all_of(self.settings.dead_letters[queue])

    def handled(self, queue: str, handler: Handler) -> list[str]:
        """Has a consumer handle one batch, as an event source mapping would; the ids of what has to come again."""
        url = self.settings.urls[queue]
        records = self.receive(url)
        failed = [one["itemIdentifier"] for one in handler({"Records": records}, invocation())["batchItemFailures"]]
        for record in records:
            if record["messageId"] not in failed:
                self.client.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])
        return failed


def reason(record: Record) -> str:
    """Why a message is in a dead-letter queue."""
    return str(record["messageAttributes"]["reason"]["stringValue"])


STREAM = "arn:aws:dynamodb:eu-central-1:123456789012:table/outbox/stream/2026-01-01T00:00:00.000"
FIRST_NUMBER = 4421584500000000017450439091
"""Sequence numbers are texts of up to forty digits."""


def a_change(name: str, number: int, image: Record | None, at: datetime | None = None, **more: Any) -> Record:
    """A record as Lambda hands it over of one that GetRecords answers."""
    keys = {name: value for name, value in (image or {"pk": {"S": "p"}}).items() if name in ("pk", "sk")}
    change = {
        "ApproximateCreationDateTime": at or moment.now(),
        "Keys": keys,
        "SequenceNumber": f"{FIRST_NUMBER + number}",
        "SizeBytes": 26,
        "StreamViewType": "NEW_IMAGE",
        **({} if image is None else {"NewImage": image}),
    }
    return stream_record({"eventID": uuid4().hex, "eventName": name, "dynamodb": change, **more}, STREAM)


def failed(*told: object) -> Record:
    """The answer of a function that wants these once more."""
    return {"batchItemFailures": [{"itemIdentifier": one} for one in told]}
