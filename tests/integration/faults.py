"""What no engine shows and AWS does: conflicts, throttles, lost answers; and a count of the calls."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ReadTimeoutError

from minichat.events import queues
from minichat.storage.items import connection

Answer = tuple[AWSResponse, dict[str, Any]]


@contextmanager
def counted_calls() -> Iterator[list[str]]:
    """The operations that the storage layer sends to DynamoDB, in order."""
    calls: list[str] = []
    with _hook("before-call", lambda model, **_: calls.append(model.name)):
        yield calls


@contextmanager
def answered_instead(operation: str, answers: list[Answer]) -> Iterator[None]:
    """The next calls of an operation get these answers; later ones reach the engine."""
    with _hook(f"before-call.dynamodb.{operation}", lambda **_: answers.pop(0) if answers else None):
        yield


@contextmanager
def answers_lost(operation: str, times: int) -> Iterator[None]:
    """The next calls of an operation take effect, but their answers never arrive."""
    left = [None] * times

    def lose(**_: Any) -> None:
        if left:
            left.pop()
            raise ReadTimeoutError(endpoint_url="engine")

    with _hook(f"after-call.dynamodb.{operation}", lose):
        yield


class Killed(Exception):
    """The process is gone."""


@contextmanager
def killed(moment: Literal["before", "after"], operation: str) -> Iterator[None]:
    """The process dies right before each call of an operation, or right after it took effect."""

    def die(**_: Any) -> None:
        raise Killed

    with _hook(f"{moment}-call.dynamodb.{operation}", die):
        yield


@contextmanager
def side_by_side(operations: set[str], count: int) -> Iterator[None]:
    """Calls of these operations go on only once `count` of them are in flight together."""
    together = threading.Barrier(count, timeout=60)

    def wait(model: Any, **_: Any) -> None:
        if model.name in operations:
            together.wait()

    with _hook("before-call", wait):
        yield


@contextmanager
def sqs_hook(
    operation: str, answers: Sequence[Answer | None] = (), seen: Callable[[dict[str, Any]], object] | None = None
) -> Iterator[None]:
    """The next calls of SQS get these answers, None being its own; what is asked for is `seen` first."""
    left = list(answers)

    def before(params: dict[str, Any], **_: Any) -> Any:
        if seen is not None:
            seen(json.loads(params["body"]))
        return left.pop(0) if left else None

    events, name = queues.client().meta.events, f"before-call.sqs.{operation}"
    events.register_first(name, before)
    try:
        yield
    finally:
        events.unregister(name, before)


def refused(code: str, *, reasons: list[dict[str, Any]] | None = None, status: int = 400) -> Answer:
    """An error as DynamoDB sends it."""
    parsed: dict[str, Any] = {
        "Error": {"Code": code, "Message": "injected"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    if reasons is not None:
        parsed["CancellationReasons"] = reasons
    return AWSResponse("http://engine", status, HTTPHeaders(), None), parsed


@contextmanager
def _hook(event: str, handler: Callable[..., Any]) -> Iterator[None]:
    events = connection().client.meta.events
    events.register_first(event, handler)
    try:
        yield
    finally:
        events.unregister(event, handler)
