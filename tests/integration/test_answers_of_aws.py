"""What SQS, S3 and Secrets Manager may answer, and what stands in for them never does."""

import base64
import hmac
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ReadTimeoutError

from minichat.domain.errors import ServiceUnavailable
from minichat.events import audit_sink, sqs
from minichat.events.sqs import SqsMessage, Unsent
from minichat.provider_entries import Secret
from minichat.providers.credentials import ProviderKeys
from minichat.settings import Store
from minichat.storage import objects
from tests.support.events.queue_access import QueueAccess
from tests.support.storage.faults import answers_on_the_wire, refused, sqs_hook

AT = datetime(2026, 11, 21, tzinfo=UTC)
FOUND = (200, {"SecretString": "key-1", "Name": "n"})
THROTTLED = (400, {"__type": "ThrottlingException", "message": "Rate exceeded"})
SECRET = Secret(source="secretsmanager", name="minichat/key")


@pytest.fixture
def access(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueAccess]:
    """Queues that this process uses, and a bucket for both that take files."""
    bucket = f"bucket-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=store.endpoint, region_name=store.region).create_bucket(Bucket=bucket)
    said = {
        "AUDIT__SINK": f"s3://{bucket}/trail",
        "ATTACHMENTS__BUCKET": bucket,
        "ATTACHMENTS__ENDPOINT": str(store.endpoint),
    }
    environment = {f"MINICHAT_{name}": value for name, value in said.items()}
    with QueueAccess.used_here(store, monkeypatch, **environment) as access:
        yield access


@contextmanager
def s3_answers(client: Any, operation: str, *answers: Any) -> Iterator[None]:
    """The next calls of an operation of S3 get these answers; None is S3's own, which then gets lost."""
    left = list(answers)

    def before(**_: Any) -> Any:
        return left.pop(0) if left and left[0] is not None else None

    def after(**_: Any) -> None:
        if left and left[0] is None:
            left.pop(0)
            raise ReadTimeoutError(endpoint_url="engine")

    events = client.meta.events
    events.register_first(f"before-call.s3.{operation}", before)
    events.register_first(f"after-call.s3.{operation}", after)
    try:
        yield
    finally:
        events.unregister(f"before-call.s3.{operation}", before)
        events.unregister(f"after-call.s3.{operation}", after)
    assert left == []


def bodies(access: QueueAccess, queue: str) -> list[str]:
    return [one["body"] for one in access.all_of(access.settings.urls[queue])]


def in_part(*numbers: str, sender_fault: bool = False) -> Any:
    """A batch is taken, but for these."""
    answer: AWSResponse
    answer, _ = refused("none", status=200)
    lost = [{"Id": number, "SenderFault": sender_fault, "Code": "InternalError"} for number in numbers]
    return answer, {"Successful": [], "Failed": lost, "ResponseMetadata": {"HTTPStatusCode": 200}}


def some(*names: str) -> list[SqsMessage]:
    """Messages by their names; the letter is the group."""
    return [SqsMessage(name, name[0], name) for name in names]


def test_a_batch_that_is_taken_in_part_tells_exactly_what_was_not(access: QueueAccess) -> None:
    messages = some("a1", "a2", "b1", "b2")
    with sqs_hook("SendMessageBatch", [in_part("1", "3")]):
        unsent = sqs.send(access.settings.urls["usage"], messages)
    assert unsent == [Unsent(one, "InternalError", permanent=False) for one in (messages[1], messages[3])]
    with sqs_hook("SendMessageBatch", [in_part("0", sender_fault=True)]):
        (one,) = sqs.send(access.settings.urls["usage"], messages[:1])
    assert one.permanent


def test_in_a_fifo_queue_nothing_overtakes_what_was_not_taken(access: QueueAccess) -> None:
    messages = some("a1", "b1", "a2", "a3", "b2")
    with sqs_hook("SendMessageBatch", [in_part("0")]):
        unsent = sqs.send(access.settings.urls["chat-cleanup"], messages)
    assert [one.message.event_id for one in unsent] == ["a1", "a2", "a3", "b2"]
    assert sqs.send(access.settings.urls["chat-cleanup"], [one.message for one in unsent]) == []
    arrived = bodies(access, "chat-cleanup")
    assert [body for body in arrived if body.startswith("a")] == ["a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RequestThrottled", 403),
        ("ThrottlingException", 400),
        ("KmsThrottled", 400),
        ("InternalError", 500),
        ("ServiceUnavailable", 503),
        ("AccessDenied", 403),
        ("ExpiredToken", 403),
        ("AWS.SimpleQueueService.NonExistentQueue", 400),
    ],
)
def test_a_refusal_that_is_not_the_messages_fault_is_tried_again(access: QueueAccess, code: str, status: int) -> None:
    messages = some("a1", "b1")
    with sqs_hook("SendMessageBatch", [refused(code, status=status)]):
        unsent = sqs.send(access.settings.urls["usage"], messages)
    assert unsent == [Unsent(one, code, permanent=False) for one in messages]
    assert sqs.send(access.settings.urls["usage"], messages) == []
    assert sorted(bodies(access, "usage")) == ["a1", "b1"]


def test_a_record_that_somebody_else_writes_at_the_same_moment_comes_again(access: QueueAccess) -> None:
    body, event_id = json.dumps({"tenant_id": "t", "event_type": "x"}), str(uuid4())
    with (
        s3_answers(audit_sink._s3(), "PutObject", refused("ConditionalRequestConflict", status=409)),
        pytest.raises(ClientError, match="ConditionalRequestConflict"),
    ):
        audit_sink.write(body, event_id, AT)
    assert audit_sink.write(body, event_id, AT)
    assert not audit_sink.write(body, event_id, AT)


def test_a_record_whose_answer_was_lost_is_there_once(access: QueueAccess) -> None:
    body, event_id = json.dumps({"tenant_id": "t", "event_type": "x"}), str(uuid4())
    with s3_answers(audit_sink._s3(), "PutObject", None), pytest.raises(ReadTimeoutError):
        audit_sink.write(body, event_id, AT)
    assert not audit_sink.write(body, event_id, AT)


def test_a_bucket_that_does_not_answer_is_no_file_that_is_gone(access: QueueAccess) -> None:
    objects.put("t/c/a", b"12345", "text/plain")
    client = objects._s3()
    calls: dict[str, Callable[[], object]] = {
        "GetObject": lambda: objects.read("t/c/a", at_most=5),
        "PutObject": lambda: objects.put("t/c/a", b"54321", "text/plain"),
        "DeleteObject": lambda: objects.delete("t/c/a"),
    }
    for operation, call in calls.items():
        for code, status in (("SlowDown", 503), ("AccessDenied", 403), ("InternalError", 500)):
            answer = refused(code, status=status)
            with s3_answers(client, operation, answer), pytest.raises(ServiceUnavailable):
                call()
    assert objects.read("t/c/a", at_most=5) == b"12345"
    assert objects.read("t/c/b", at_most=5) is None


def test_a_form_is_signed_as_s3_verifies_it(access: QueueAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    objects._s3.cache_clear()
    with monkeypatch.context() as fresh:
        fresh.setattr(boto3, "DEFAULT_SESSION", None)
        fields = objects.form("t/c/a", "text/plain", 5, seconds=60).fields
    _, day, region, service, end = fields["x-amz-credential"].split("/")
    key = b"AWS4wJalrXUtnFEMI"
    for part in (day, region, service, end):
        key = hmac.digest(key, part.encode(), "sha256")
    assert hmac.new(key, fields["policy"].encode(), "sha256").hexdigest() == fields["x-amz-signature"]
    policy = json.loads(base64.b64decode(fields["policy"]))
    assert ["content-length-range", 5, 5] in policy["conditions"]
    assert {"key": "t/c/a"} in policy["conditions"]
    assert {"Content-Type": "text/plain"} in policy["conditions"]
    assert set(fields) == {"key", "Content-Type", "policy", *(name for name in fields if name.startswith("x-amz-"))}


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where secrets are."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.usefixtures("region")
def test_a_throttled_secret_is_read_again_at_once_and_then_with_the_next_call() -> None:
    keys = ProviderKeys()
    with answers_on_the_wire("secretsmanager.GetSecretValue", [THROTTLED, FOUND]):
        assert keys.get(SECRET) == "key-1"
    keys = ProviderKeys()
    with answers_on_the_wire("secretsmanager.GetSecretValue", [THROTTLED, THROTTLED, FOUND]):
        assert keys.get(SECRET) is None
        assert keys.get(SECRET) == "key-1"


@pytest.mark.usefixtures("region")
def test_a_secret_that_is_rotated_is_read_again_once_its_key_is_refused() -> None:
    keys = ProviderKeys()
    rotated = (200, {"SecretString": "key-2\n", "Name": "n"})
    with answers_on_the_wire("secretsmanager.GetSecretValue", [FOUND, rotated]):
        assert keys.get(SECRET) == "key-1"
        keys.refused(SECRET, "key-1")
        assert keys.get(SECRET) == "key-2"
        keys.refused(SECRET, "key-1")  # of a call that began before
        assert keys.known(SECRET) == "key-2"


@pytest.mark.usefixtures("region")
@pytest.mark.parametrize(
    "answer",
    [
        (200, {"SecretBinary": "AAAA", "Name": "n"}),
        (400, {"__type": "ResourceNotFoundException", "message": "no"}),
        (400, {"__type": "AccessDeniedException", "message": "no"}),
        (400, {"__type": "DecryptionFailure", "message": "no"}),
        (400, {"__type": "InvalidRequestException", "message": "scheduled for deletion"}),
    ],
)
def test_a_secret_that_cannot_be_read_is_no_key(answer: tuple[int, dict[str, Any]]) -> None:
    with answers_on_the_wire("secretsmanager.GetSecretValue", [answer]):
        assert ProviderKeys().get(SECRET) is None
