"""What no engine shows and AWS does: conflicts, throttles, lost answers; and a count of the calls."""

import asyncio
import io
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import botocore
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.session import Session

from minichat.events import sqs
from minichat.storage import dynamodb
from minichat.storage.items import connection
from tests.support.patience import PATIENCE

Answer = tuple[AWSResponse, dict[str, Any]]


@contextmanager
def counted_calls() -> Iterator[list[str]]:
    """The operations that the storage layer sends to DynamoDB, in order."""
    calls: list[str] = []
    with hook("before-call", lambda model, **_: calls.append(model.name)):
        yield calls


@contextmanager
def answered_instead(operation: str, answers: list[Answer]) -> Iterator[None]:
    """The next calls of an operation get these answers; later ones reach the engine."""
    with hook(f"before-call.dynamodb.{operation}", lambda **_: answers.pop(0) if answers else None):
        yield


@contextmanager
def short_pages(at_most: int) -> Iterator[None]:
    """A page of the tables has so many items at most, as if a mebibyte were full; pages of the indexes, which hold keys
    alone, stay far below one."""

    def shorten(params: dict[str, Any], **_: Any) -> None:
        if "IndexName" not in params:
            params["Limit"] = min(params.get("Limit") or at_most, at_most)

    with (
        hook("before-parameter-build.dynamodb.Query", shorten),
        hook("before-parameter-build.dynamodb.Scan", shorten),
    ):
        yield


@contextmanager
def torn_batches(at_most: int) -> Iterator[None]:
    """A batch of reads gives so many of the items at most, in any order, and hands back the keys of the others."""
    chance = random.Random(7)

    def tear(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        for wanted in params["RequestItems"].values():
            chance.shuffle(wanted["Keys"])
        ((table, wanted),) = params["RequestItems"].items()
        wanted["Keys"], unread = wanted["Keys"][:at_most], wanted["Keys"][at_most:]
        context["unread"] = {table: {**wanted, "Keys": unread}} if unread else {}

    def hand_back(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        parsed["UnprocessedKeys"] = context["unread"]

    with (
        hook("before-parameter-build.dynamodb.BatchGetItem", tear),
        hook("after-call.dynamodb.BatchGetItem", hand_back),
    ):
        yield


@contextmanager
def lagging_index(index: str) -> Iterator[dict[str, Any]]:
    """The index answers each question as it did the first time, whatever was written since; answers by question."""
    seen: dict[str, Any] = {}

    def mark(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if params.get("IndexName") == index:
            context["asked"] = json.dumps(params["ExpressionAttributeValues"], sort_keys=True)

    def repeat(context: dict[str, Any], **_: Any) -> Any:
        if context.get("asked") not in seen:
            return None
        return AWSResponse("http://engine", 200, HTTPHeaders(), None), seen[context["asked"]]

    def remember(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if "asked" in context:
            seen[context["asked"]] = parsed

    with (
        hook("before-parameter-build.dynamodb.Query", mark),
        hook("before-call.dynamodb.Query", repeat),
        hook("after-call.dynamodb.Query", remember),
    ):
        yield seen


@contextmanager
def answers_lost(operation: str, times: int) -> Iterator[None]:
    """The next calls of an operation take effect, but their answers never arrive."""
    left = [None] * times

    def lose(**_: Any) -> None:
        if left:
            left.pop()
            raise ReadTimeoutError(endpoint_url="engine")

    with hook(f"after-call.dynamodb.{operation}", lose):
        yield


@contextmanager
def answers_with_events_lost(outbox_table: str) -> Iterator[None]:
    """Transactions that let an event out take effect, but no answer to any of them ever arrives."""

    def mark(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        written = [about["TableName"] for write in params["TransactItems"] for about in write.values()]
        context["has_event"] = outbox_table in written

    def lose(context: dict[str, Any], **_: Any) -> None:
        if context["has_event"]:
            raise ReadTimeoutError(endpoint_url="engine")

    with (
        hook("before-parameter-build.dynamodb.TransactWriteItems", mark),
        hook("after-call.dynamodb.TransactWriteItems", lose),
    ):
        yield


class Killed(Exception):
    """The process is gone."""


@contextmanager
def killed(moment: Literal["before", "after"], operation: str) -> Iterator[None]:
    """The process dies right before each call of an operation, or right after it took effect."""

    def die(**_: Any) -> None:
        raise Killed

    with hook(f"{moment}-call.dynamodb.{operation}", die):
        yield


@contextmanager
def side_by_side(operations: set[str], count: int) -> Iterator[None]:
    """Calls of these operations go on only once `count` of them are in flight together."""
    together = threading.Barrier(count, timeout=PATIENCE)

    def wait(model: Any, **_: Any) -> None:
        if model.name in operations:
            together.wait()

    with hook("before-call", wait):
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

    events, name = sqs.client().meta.events, f"before-call.sqs.{operation}"
    events.register_first(name, before)
    try:
        yield
    finally:
        events.unregister(name, before)


@contextmanager
def answers_on_the_wire(event: str, answers: list[tuple[int, dict[str, Any]]]) -> Iterator[None]:
    """The next requests of clients that are made meanwhile get these statuses and JSON bodies, below botocore's own
    repetitions; `event` is a service and an operation, `secretsmanager.GetSecretValue`."""

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if not answers:
            return None
        status, body = answers.pop(0)
        return AWSResponse(request.url, status, HTTPHeaders(), _Raw(json.dumps(body).encode()))

    def watch(session: Session) -> None:
        handler: Any = answer
        session.register(f"before-send.{event}", handler)

    botocore.register_initializer(watch)
    try:
        yield
    finally:
        botocore.unregister_initializer(watch)


class _Raw(io.BytesIO):
    """A body as urllib3 has it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


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
def hook(event: str, handler: Callable[..., Any]) -> Iterator[None]:
    """Has the handler called at an event of botocore's client, and at the same moment of a call on a loop."""
    client: Any = connection().client
    events = client.blocking.meta.events
    events.register_first(event, handler)
    _on_loops.append((event, handler))
    try:
        yield
    finally:
        events.unregister(event, handler)
        _on_loops.remove((event, handler))


_on_loops: list[tuple[str, Callable[..., Any]]] = []
_call = dynamodb.Connections.call


async def _hooked_call(self: dynamodb.Connections, operation: str, params: dict[str, Any]) -> dict[str, Any]:
    """A call with the moments that botocore's has, for the handlers of hooks; those may block, so they have threads."""
    about: dict[str, Any] = {"model": SimpleNamespace(name=operation), "context": {}}

    async def at(moment: str, **more: Any) -> Any:
        found = [one for event, one in reversed(_on_loops) if f"{moment}.dynamodb.{operation}".startswith(event)]
        said = [await asyncio.to_thread(one, **about, **more) for one in found]
        return next((one for one in said if one is not None), None)

    await at("before-parameter-build", params=params)
    instead = await at("before-call", params={"body": json.dumps(params, default=repr)})
    try:
        parsed = instead[1] if instead is not None else await _call(self, operation, params)
    except ClientError as error:
        parsed = dict(error.response)
    status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode", 200)
    http = AWSResponse("http://engine", status, HTTPHeaders(), None)
    await at("after-call", http_response=http, parsed=parsed)
    if status >= 300:
        raise ClientError(parsed, operation)  # type: ignore[arg-type]  # all that is read of it
    return parsed


dynamodb.Connections.call = _hooked_call  # type: ignore[method-assign,assignment]
