"""What each function may call AWS for, as its role says, and what it has called AWS for, as its clients were asked."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minichat.local.tables import load_template
from minichat.settings import Store
from tests.conftest import ROOT
from tests.support.events.queue_access import QueueAccess

Permission = tuple[str, str]
"""An action, and the parameter of infra/identity.yaml that names what it is done to."""

_WRITES = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
BY_OTHERS = {
    "logs": "Lambda writes a function's log with its role",
    "sqs:ReceiveMessage": "Lambda's poller reads the queue with it",
    "sqs:DeleteMessage": "so does it delete what was done",
    "sqs:GetQueueAttributes": "and ask how much there is",
    "sqs:ChangeMessageVisibility": "and give back what failed, where the function does not do so itself",
    "dynamodb:DescribeStream": "Lambda's poller reads the stream with it",
    "dynamodb:GetRecords": "as above",
    "dynamodb:GetShardIterator": "as above",
    "dynamodb:ListStreams": "as above",
    "secretsmanager": "the key of a provider, where it has one; `tests/integration/test_provider_answers.py`",
}
"""What is done with a role by others than its function, or only with a provider that has a key."""

ELSEWHERE = {
    ("StreamFunction", "dynamodb:ConditionCheckItem", "ConversationTableArn"): "two that take the same messages back",
    ("AuditFunction", "s3:PutObject", "AuditBucketArn/*"): "the trail is a folder here",
    ("ChatCleanupFunction", "s3:DeleteObject", "UploadsBucketArn/*"): "erasures, minutes after the last upload",
    ("ApiFunction", "s3:GetObject", "UploadsBucketArn/*/exports/*"): "who has a link fetches a file of an export",
    ("AdminFunction", "s3:GetObject", "UploadsBucketArn/*/exports/*"): "as above",
    (
        "AttachmentIngestFunction",
        "s3:ListBucket",
        "UploadsBucketArn",
    ): "no call: S3 asks for it where there is no object",
}
"""What other tests show, and why it does not happen here."""


class Calls:
    """What each function has called AWS for."""

    def __init__(self, store: Store, access: QueueAccess, bucket: str) -> None:
        self.made: dict[str, set[Permission]] = defaultdict(set)
        self._function = ""
        self._names = {
            store.conversation_table: "ConversationTableArn",
            store.outbox_table: "OutboxTableArn",
            bucket: "UploadsBucketArn/*",
            **{url: f"{_camel(name)}QueueArn" for name, url in access.settings.urls.items()},
            **{url: f"{_camel(name)}DeadLetterQueueArn" for name, url in access.settings.dead_letters.items()},
        }

    @contextmanager
    def of(self, function: str) -> Iterator[None]:
        """Calls meanwhile are this function's."""
        self._function = function
        yield
        self._function = ""

    def note(self, service: str, operation: str, said: dict[str, Any]) -> None:
        """One call, as its client was asked for it."""
        if self._function:
            self.made[self._function] |= {
                (f"{service}:{action}", self._names.get(named, named) + below)
                for action, named, below in _actions(operation, said)
            }

    def amiss(self, function: str) -> dict[str, set[Permission]]:
        """What a function did and may not, may do and never did, and is excused from and did: nothing of any kind."""
        made, granted = self.made[function], allowed(function)
        excused = {(action, resource) for who, action, resource in ELSEWHERE if who == function}
        found = {
            "forbidden": made - granted,
            "unused": {one for one in granted - made - excused if not _by_others(one[0])},
            "no exception": excused & made | excused - granted,
        }
        return {kind: permissions for kind, permissions in found.items() if permissions}


def _actions(operation: str, said: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Action, table, queue or bucket, and what of it."""
    if operation == "TransactWriteItems":
        for item in said["TransactItems"]:
            ((kind, about),) = item.items()
            yield _WRITES[kind], about["TableName"], ""
    elif operation == "BatchGetItem":
        yield from ((operation, table, "") for table in said["RequestItems"])
    elif "TableName" in said:
        yield operation, said["TableName"], f"/index/{said['IndexName']}" if "IndexName" in said else ""
    elif operation == "ListObjectsV2":
        yield "ListBucket", "UploadsBucketArn", ""
    elif "QueueUrl" in said:
        yield operation.removesuffix("Batch"), said["QueueUrl"], ""
    else:
        yield operation, said["Bucket"], "/exports/*" if "/exports/" in said.get("Key", "") else ""


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def allowed(function: str) -> set[Permission]:
    """What the role of a function grants."""
    role = load_template(ROOT / "infra" / "identity.yaml")["Resources"][f"{function.removesuffix('Function')}Role"]
    (policy,) = role["Properties"]["Policies"]
    return {
        (action, resource.replace("${", "").replace("}", ""))
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _several(statement["Action"])
        for resource in _several(statement["Resource"])
    }


def _several(said: str | list[str]) -> list[str]:
    return [said] if isinstance(said, str) else said


def _by_others(action: str) -> bool:
    return action in BY_OTHERS or action.partition(":")[0] in BY_OTHERS
