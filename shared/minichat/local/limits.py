"""AWS limits that local engines lack: what AWS would refuse is refused before it reaches them.

`install` makes every client of this process check what it sends to DynamoDB and SQS. Only what some engine lets pass is
here; tests/integration/test_local_engine.py shows what each engine refuses by itself. Limits are those of the Amazon
DynamoDB Developer Guide ("Service, account, and table quotas in Amazon DynamoDB", "Constraints in Amazon DynamoDB") and
of the Amazon SQS API Reference (`SendMessage`, `SendMessageBatch`, `ReceiveMessage`, `ChangeMessageVisibility`).
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import botocore
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from botocore.session import Session

from minichat.local.tables import described, project_root
from minichat.observability import logger
from minichat.storage.dynamodb import Connections, body_of

REFUSED = "AWS refuses this request"
"""The log message for a request that no engine would have refused."""

ITEM_BYTES = 400 * 1024
TRANSACTION_BYTES = 4 * 1024 * 1024
OPERATORS = 300
OPERANDS_OF_IN = 100
VALUES_BYTES = 2 * 1024 * 1024
ATTRIBUTE_NAME_BYTES = 65_535
KEY_BYTES = {"HASH": 2048, "RANGE": 1024}

MESSAGE_BYTES = 1024 * 1024
MESSAGE_ATTRIBUTES = 10
LONGEST_DELAY_SECONDS = 900
LONGEST_HIDDEN_SECONDS = 43_200
LONGEST_POLL_SECONDS = 20

broken: list[str] = []
"""Refusals since this list was cleared; tests read it."""

_OPERATOR = re.compile(r"<>|<=|>=|[=<>+]|\s-\s|\b(?:AND|OR|NOT|BETWEEN|IN)\b|[a-z_]+\(")
_OPERANDS = re.compile(r"\bIN\s*\(([^)]*)\)")
_CLAUSE = re.compile(r"\b(SET|REMOVE|ADD|DELETE)\s")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GROUP = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")
_ATTRIBUTE = re.compile(r"(?!(?i:aws|amazon)\.)(?!\.)(?!.*\.\.)(?!.*\.$)[A-Za-z0-9_.-]{1,256}")
_DATA_TYPE = re.compile(r"(?:String|Number|Binary)(?:\..+)?")

Said = Mapping[str, Any]
Check = Callable[[str, Said], Iterator[str]]


def install() -> None:
    """Makes every client that this process creates from now on, and its calls on loops, refuse what AWS would."""
    index_keys = dict(_index_keys())

    def of_dynamodb(operation: str, said: Said) -> Iterator[str]:
        return dynamodb(operation, said, index_keys)

    def watch(session: Session) -> None:
        session.register("before-call.dynamodb", _refusing("ValidationException", of_dynamodb))
        session.register("before-call.sqs", _refusing("InvalidParameterValue", sqs))

    botocore.register_initializer(watch)
    call = Connections.call

    async def checked(self: Connections, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        said = json.loads(body_of(params))
        if (why := next(of_dynamodb(operation, said), None)) is not None:
            raise ClientError(_refused(operation, "ValidationException", why), operation)
        return await call(self, operation, params)

    Connections.call = checked  # type: ignore[method-assign]


def _refusing(code: str, check: Check) -> Callable[..., Any]:
    def before_call(model: Any, params: dict[str, Any], **_: Any) -> Any:
        why = next(check(model.name, json.loads(params["body"])), None)
        if why is None:
            return None
        return AWSResponse("", 400, HTTPHeaders(), None), _refused(model.name, code, why)

    return before_call


def _refused(operation: str, code: str, why: str) -> Any:
    """The error that AWS would answer with; it is noted, because no caller should get one."""
    broken.append(f"{operation}: {why}")
    logger.error(REFUSED, extra={"operation": operation, "reason": why})
    return {
        "Error": {"Code": code, "Message": why},
        "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}},
    }


def _index_keys() -> Iterator[tuple[str, int]]:
    """Key attributes of indexes, each with its limit in bytes."""
    for table in described(project_root()).values():
        for index in table.get("GlobalSecondaryIndexes", []):
            for key in index["KeySchema"]:
                yield key["AttributeName"], KEY_BYTES[key["KeyType"]]


def dynamodb(operation: str, said: Said, index_keys: Mapping[str, int]) -> Iterator[str]:
    """Why DynamoDB would refuse a call, given as the members of its JSON."""
    actions = [said]
    if operation == "TransactWriteItems":
        actions = [action for one in said["TransactItems"] for action in one.values()]
        size = sum(_written_bytes(action) for action in actions)
        if size > TRANSACTION_BYTES:
            yield f"a transaction of {size} bytes"
    for action in actions:
        yield from _of_item(action.get("Item", {}), index_keys)
        yield from _of_expressions(action)


def _of_item(item: Said, index_keys: Mapping[str, int]) -> Iterator[str]:
    if (size := item_bytes(item)) > ITEM_BYTES:
        yield f"an item of {size} bytes"
    for name, value in item.items():
        if len(name.encode()) > ATTRIBUTE_NAME_BYTES:
            yield f"an attribute's name of {len(name.encode())} bytes"
        text = str(value.get("S", ""))  # allowed: this checks requests in the form in which they are sent
        if name in index_keys and len(text.encode()) > index_keys[name]:
            yield f"the index key {name} has more than {index_keys[name]} bytes"


def _of_expressions(action: Said) -> Iterator[str]:
    for name, text in action.items():
        if not name.endswith("Expression"):
            continue
        if len(_OPERATOR.findall(text)) > OPERATORS:
            yield f"more than {OPERATORS} operators in a {name}"
        if any(operands.count(",") >= OPERANDS_OF_IN for operands in _OPERANDS.findall(text)):
            yield f"more than {OPERANDS_OF_IN} operands of IN in a {name}"
    if (size := item_bytes(action.get("ExpressionAttributeValues", {}))) > VALUES_BYTES:
        yield f"values of {size} bytes in expressions"
    names = action.get("ExpressionAttributeNames", {})
    paths = [names.get(path, path) for path in _targets(action.get("UpdateExpression", ""))]
    for number, path in enumerate(paths):
        if any(path == other or path.startswith((f"{other}.", f"{other}[")) for other in paths[:number]):
            yield f"{path} is changed twice by one UpdateExpression"


def _targets(update: str) -> Iterator[str]:
    """The paths that an UpdateExpression changes."""
    parts = _CLAUSE.split(update)[1:]
    for clause, text in zip(parts[::2], parts[1::2], strict=True):
        for action in re.split(r",(?![^(]*\))", text):
            yield action.partition("=")[0].strip() if clause == "SET" else action.split()[0]


def _written_bytes(action: Said) -> int:
    """The size of one action of a transaction, as far as known: an update does not say how large its item is."""
    return item_bytes(action.get("Item") or {**action.get("Key", {}), **action.get("ExpressionAttributeValues", {})})


def item_bytes(item: Said) -> int:
    """The size of an item, as DynamoDB counts it (Developer Guide, "DynamoDB item sizes and formats")."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Said) -> int:
    ((kind, content),) = value.items()
    size = 1  # a truth value, or null
    match kind:
        case "S":
            size = len(content.encode("utf-8", "surrogatepass"))
        case "N":
            digits = re.sub(r"[eE].*|[-+.]", "", content).strip("0")
            size = (len(digits) + 1) // 2 + 1 + content.startswith("-")
        case "B":
            size = len(base64.b64decode(content))
        case "SS" | "NS" | "BS":
            size = sum(_value_bytes({kind[0]: one}) for one in content)
        case "L":
            size = 3 + sum(1 + _value_bytes(one) for one in content)
        case "M":
            size = 3 + sum(1 + len(name.encode()) + _value_bytes(one) for name, one in content.items())
    return size


def sqs(operation: str, said: Said) -> Iterator[str]:
    """Why SQS would refuse a call, given as the members of its JSON."""
    entries = said.get("Entries", [said]) if operation.startswith("SendMessage") else []
    for entry in entries:
        yield from _of_message(entry)
    if (size := sum(map(_message_bytes, entries))) > MESSAGE_BYTES:
        yield f"messages of {size} bytes together"
    for member, most in (("VisibilityTimeout", LONGEST_HIDDEN_SECONDS), ("WaitTimeSeconds", LONGEST_POLL_SECONDS)):
        yield from (f"{member} above {most}" for one in said.get("Entries", [said]) if one.get(member, 0) > most)


def _of_message(entry: Said) -> Iterator[str]:
    attributes: Said = entry.get("MessageAttributes") or {}
    if len(attributes) > MESSAGE_ATTRIBUTES:
        yield f"more than {MESSAGE_ATTRIBUTES} attributes"
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name):
            yield f"an attribute that is called {name!r}"
        if not _DATA_TYPE.fullmatch(value["DataType"]):
            yield f"an attribute of type {value['DataType']!r}"
        if not value.get("StringValue") and not value.get("BinaryValue"):
            yield f"an attribute {name} without a value"
        if _FORBIDDEN.search(value.get("StringValue", "")):
            yield f"a character that is not allowed in the attribute {name}"
    for member in ("MessageGroupId", "MessageDeduplicationId"):
        if member in entry and not _GROUP.fullmatch(entry[member]):
            yield f"{member} {entry[member][:140]!r}"
    if entry.get("DelaySeconds", 0) > LONGEST_DELAY_SECONDS:
        yield f"a delay of more than {LONGEST_DELAY_SECONDS} seconds"


def _message_bytes(entry: Said) -> int:
    attributes: Said = entry.get("MessageAttributes") or {}
    named = sum(
        len(name.encode())
        + len(value["DataType"].encode())
        + len(value.get("StringValue", "").encode())
        + len(base64.b64decode(value.get("BinaryValue", "")))
        for name, value in attributes.items()
    )
    return len(entry.get("MessageBody", "").encode()) + named
