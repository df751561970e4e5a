"""Queues of a test's own, and their messages as Lambda hands them to a consumer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3

from minichat.local import queues
from minichat.local.sources import Context
from minichat.local.tables import project_root
from minichat.settings import Queues

Record = dict[str, Any]
Handler = Callable[[Record, Any], Any]


def invocation() -> Context:
    """What a handler is told of an invocation that begins now."""
    return Context("a function", timeout=60)


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

    def send(self, queue: str, body: str, *, group: str = "tenant", **attributes: str) -> None:
        """Puts a message there, as somebody else could."""
        url = self.settings.urls[queue]
        fifo = {"MessageDeduplicationId": uuid4().hex} if url.endswith(".fifo") else {}
        said = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=said, MessageGroupId=group, **fifo)

    def receive(self, url: str, at_most: int = 10, **options: Any) -> list[Record]:
        """A batch of messages, as records of a Lambda event."""
        answer = self.client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=at_most,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
            **options,
        )
        return [_record(message) for message in answer.get("Messages", [])]

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


def _record(message: Any) -> Record:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:queue",
        "awsRegion": "us-east-1",
    }
