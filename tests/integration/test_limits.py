"""What AWS refuses is refused here too, by the engine or before it; what is just within a limit is taken."""

from base64 import b64encode
from collections.abc import Callable
from functools import reduce
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from minichat.local import limits
from tests.conftest import fresh_tables
from tests.support.events.queue_access import QueueAccess

Request = tuple[str, dict[str, Any]]
TEXT: dict[str, Any] = {"S": "x"}
OVERHEAD = len("pk") + len("p") + len("sk") + len("s") + len("v")
"""Of an item whose one attribute is called v."""


def an_item(sk: str = "s", **attributes: Any) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": sk}, **attributes}


def of_size(size: int, sk: str = "s") -> dict[str, Any]:
    """An item of so many bytes, names and keys included."""
    return an_item(sk, v={"S": "x" * (size - OVERHEAD - len(sk) + 1)})


def put(item: dict[str, Any], **more: Any) -> Request:
    return "PutItem", {"Item": item, **more}


def update(expression: str, sk: str = "u", **more: Any) -> Request:
    return "UpdateItem", {"Key": an_item(sk), "UpdateExpression": expression, **more}


def transaction(*actions: Request, **more: Any) -> Request:
    named = {"PutItem": "Put", "UpdateItem": "Update", "ConditionCheck": "ConditionCheck"}
    return "TransactWriteItems", {"TransactItems": [{named[name]: said} for name, said in actions], **more}


def condition(text: str, **values: Any) -> dict[str, Any]:
    return {"ConditionExpression": text, "ExpressionAttributeValues": {f":{name}": one for name, one in values.items()}}


X: dict[str, Any] = {"ExpressionAttributeValues": {":x": TEXT}}
EXISTS: Request = ("ConditionCheck", {"Key": an_item(), "ConditionExpression": "attribute_not_exists(pk)"})
MANY = {f"v{number}": TEXT for number in range(101)}

REFUSED: dict[str, Request] = {
    "an item of 400 KB and a byte": put(of_size(limits.ITEM_BYTES + 1)),
    "an update that makes an item larger": update("SET v = :x", **condition("v <> :x", x={"S": "x" * 409_600})),
    "a hundred and one actions": transaction(*(put(an_item(str(number))) for number in range(101))),
    "a transaction of more than 4 MB": transaction(*(put(of_size(400_000, str(number))) for number in range(11))),
    "two actions on one item": transaction(put(an_item()), update("SET v = :x", "s", **X)),
    "a check and a write of one item": transaction(EXISTS, put(an_item())),
    "a token of 37 characters": transaction(put(an_item()), ClientRequestToken="x" * 37),
    "an empty key": put(an_item("")),
    "an empty key of an index": put(an_item(owner={"S": ""}, listed_at=TEXT)),
    "a key of an index that is a number": put(an_item(owner={"N": "1"}, listed_at=TEXT)),
    "a hash key of 2049 bytes": put({"pk": {"S": "p" * 2049}, "sk": TEXT}),
    "a range key of 1025 bytes": put(an_item("s" * 1025)),
    "a hash key of an index of 2049 bytes": put(an_item(owner={"S": "x" * 2049}, listed_at=TEXT)),
    "a range key of an index of 1025 bytes": put(an_item(owner=TEXT, listed_at={"S": "x" * 1025})),
    "a reserved word in an update": update("SET state = :x", **X),
    "a reserved word in a condition": put(an_item(), **condition("name = :x", x=TEXT)),
    "a value that no expression names": update("SET v = :x", ExpressionAttributeValues={":x": TEXT, ":y": TEXT}),
    "a name that no expression has": update("SET v = :x", ExpressionAttributeNames={"#n": "v"}, **X),
    "an expression of more than 4 KB": update("SET " + ", ".join(f"a{n:04} = :x" for n in range(500)), **X),
    "301 operators": put(an_item(), **condition(" OR ".join(["v = :x"] * 151), x=TEXT)),
    "101 operands of IN": put(an_item(), **condition(f"v IN ({', '.join(f':{name}' for name in MANY)})", **MANY)),
    "values of more than 2 MB": put(an_item(), **condition("v <> :x", x={"S": "x" * 2_100_000})),
    "one path changed twice": update("SET v = :x, v = :x", **X),
    "one path changed twice by two clauses": update("SET #n = :x ADD #n :x", ExpressionAttributeNames={"#n": "v"}, **X),
    "a path and one inside it": update("SET v = :x, v.w = :x", **X),
    "an update of a key": update("SET sk = :x", **X),
    "a number of 39 digits": put(an_item(n={"N": "1" * 39})),
    "a number above 9.9E+125": put(an_item(n={"N": "1E126"})),
    "a number that is none": put(an_item(n={"N": "NaN"})),
    "an empty set": put(an_item(n={"SS": []})),
    "a set with one value twice": put(an_item(n={"SS": ["a", "a"]})),
    "33 levels": put(an_item(n=reduce(lambda inner, _: {"L": [inner]}, range(33), TEXT))),
    "an addition to a text": update("ADD owner :x", "text", ExpressionAttributeValues={":x": {"N": "1"}}),
    "a sum with what is not there": update("SET n = n + :x", "none", ExpressionAttributeValues={":x": {"N": "1"}}),
    "the name of an attribute of 64 KB": put({**an_item(), "a" * 65_536: TEXT}),
    "101 keys at once": ("BatchGetItem", {"Keys": [an_item(str(number)) for number in range(101)]}),
    "one key twice": ("BatchGetItem", {"Keys": [an_item(), an_item()]}),
    "a consistent read of an index": (
        "Query",
        {
            "IndexName": "ByOwner",
            "ConsistentRead": True,
            "KeyConditionExpression": "#o = :x",
            "ExpressionAttributeNames": {"#o": "owner"},
            **X,
        },
    ),
    "a page of no items": ("Query", {"KeyConditionExpression": "pk = :x", "Limit": 0, **X}),
    "a range that ends before it starts": (
        "Query",
        {
            "KeyConditionExpression": "pk = :x AND sk BETWEEN :b AND :a",
            "ExpressionAttributeValues": {":x": TEXT, ":a": {"S": "a"}, ":b": {"S": "b"}},
        },
    ),
}

TAKEN: dict[str, Request] = {
    "an item of 400 KB": put(of_size(limits.ITEM_BYTES)),
    "an item of 400 KB of every type": put(
        an_item(
            v={"S": "é" * 100_000},
            b={"B": b"\0" * 200_000},
            n={"N": "-123.45"},
            t={"BOOL": True},
            z={"NULL": True},
            l={"L": [{"S": "ab"}, {"N": "10"}]},
            m={"M": {"k": {"B": b"xyz"}}},
            s={"SS": ["a", "bc"]},
        )
    ),
    "a hundred actions": transaction(*(put(an_item(str(number))) for number in range(100))),
    "a transaction of 4 MB": transaction(*(put(of_size(400 * 1024, str(number))) for number in range(10))),
    "the longest keys": put({"pk": {"S": "p" * 2048}, "sk": {"S": "s" * 1024}, "owner": {"S": "x" * 2048}}),
    "300 operators": update("SET w = :x", **condition(" OR ".join(["v <> :x"] * 150), x=TEXT)),
    "100 operands of IN": update(
        "SET w = :v0",
        **condition(
            f"v IN ({', '.join(f':v{number}' for number in range(100))}) OR attribute_not_exists(v)",
            **{f"v{number}": TEXT for number in range(100)},
        ),
    ),
    "a number of 38 digits": put(an_item(n={"N": "1" * 38})),
    "an empty text": put(an_item(n={"S": ""})),
    "several paths": update(
        "SET v = :x, w = list_append(if_not_exists(w, :l), :l) REMOVE y ADD z :n",
        "two",
        ExpressionAttributeValues={":x": TEXT, ":l": {"L": [TEXT]}, ":n": {"N": "1"}},
    ),
}


@pytest.fixture(scope="module")
def asked(any_engine: str) -> Callable[[Request], Any]:
    """Sends a request about the conversation table to an engine, as it is."""
    store = fresh_tables(any_engine)
    client: Any = boto3.client(
        "dynamodb",
        endpoint_url=store.endpoint,
        region_name=store.region,
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}, read_timeout=30),
    )

    def ask(request: Request) -> Any:
        operation, said = request
        table = {"TableName": store.conversation_table}
        if operation == "TransactWriteItems":
            actions = [{name: {**one, **table}} for action in said["TransactItems"] for name, one in action.items()]
            said = {**said, "TransactItems": actions}
        elif operation == "BatchGetItem":
            said = {"RequestItems": {store.conversation_table: said}}
        else:
            said = {**said, **table}
        return client._make_api_call(operation, said)

    ask(put(an_item("text", owner=TEXT)))
    return ask


@pytest.mark.parametrize("case", REFUSED)
def test_what_dynamodb_refuses_is_refused_on_every_engine(
    asked: Callable[[Request], Any], case: str, refused_by_aws: list[str]
) -> None:
    with pytest.raises(ClientError) as caught:
        asked(REFUSED[case])
    refused_by_aws.clear()  # that it is refused is what this is about
    assert caught.value.response["Error"]["Code"] in {"ValidationException", "TransactionCanceledException"}


@pytest.mark.parametrize("case", TAKEN)
def test_what_dynamodb_just_takes_is_taken_on_every_engine(asked: Callable[[Request], Any], case: str) -> None:
    asked(TAKEN[case])


def test_sizes_are_counted_as_the_engines_count_them(
    asked: Callable[[Request], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = TAKEN["an item of 400 KB of every type"][1]["Item"]
    as_json = {**item, "b": {"B": b64encode(item["b"]["B"]).decode()}, "m": {"M": {"k": {"B": "eHl6"}}}}
    left = limits.ITEM_BYTES - limits.item_bytes(as_json) - len("f")
    asked(put({**item, "f": {"S": "x" * left}}))
    monkeypatch.setattr(limits, "ITEM_BYTES", 2 * limits.ITEM_BYTES)
    with pytest.raises(ClientError, match="Item size"):
        asked(put({**item, "f": {"S": "x" * (left + 1)}}))


def test_a_repeated_transaction_is_one_and_another_under_its_token_is_refused(asked: Callable[[Request], Any]) -> None:
    token, sk = str(uuid4()), str(uuid4())
    once = update("ADD n :n", sk, ExpressionAttributeValues={":n": {"N": "1"}})
    for _ in range(2):
        asked(transaction(once, ClientRequestToken=token))
    assert asked(("GetItem", {"Key": an_item(sk)}))["Item"]["n"] == {"N": "1"}
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        asked(transaction(put(an_item()), ClientRequestToken=token))


def test_a_page_ends_at_a_mebibyte_and_numbers_are_texts(asked: Callable[[Request], Any]) -> None:
    for number in range(5):
        asked(put({"pk": TEXT, "sk": {"S": str(number)}, "v": {"S": "x" * 300_000}, "n": {"N": "01.50"}}))
    answer = asked(("Query", {"KeyConditionExpression": "pk = :x", **X}))
    assert answer["Count"] in {3, 4}  # engines differ in whether the item that crosses it comes along
    assert answer["LastEvaluatedKey"]["sk"] == answer["Items"][-1]["sk"]
    assert answer["Items"][0]["n"] == {"N": "1.5"}


@pytest.fixture(scope="module")
def queue(engine: str) -> Callable[..., Any]:
    """Calls SQS about a standard queue, and a FIFO one, of these tests' own."""
    access = QueueAccess.made_at(engine, "us-east-1")
    client: Any = boto3.client(
        "sqs",
        endpoint_url=engine,
        region_name="us-east-1",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )

    def call(operation: str, queue: str = "audit", **said: Any) -> Any:
        return client._make_api_call(operation, {"QueueUrl": access.settings.urls[queue], **said})

    return call


def attribute(value: str = "x", data_type: str = "String") -> dict[str, Any]:
    return {"DataType": data_type, "StringValue": value}


def batch(*bodies: str, **more: Any) -> dict[str, Any]:
    return {"Entries": [{"Id": str(number), "MessageBody": body, **more} for number, body in enumerate(bodies)]}


MEBIBYTE = 1024 * 1024
FIFO = {"queue": "chat-cleanup", "MessageGroupId": "g", "MessageDeduplicationId": "d"}


def message(body: str = "a", **said: Any) -> tuple[str, dict[str, Any]]:
    return "SendMessage", {"MessageBody": body, **said}


def with_attributes(attributes: dict[str, Any], body: str = "a") -> tuple[str, dict[str, Any]]:
    return message(body, MessageAttributes=attributes)


def half_a_mebibyte_twice(**more: Any) -> tuple[str, dict[str, Any]]:
    return "SendMessageBatch", batch(*["x" * (MEBIBYTE // 2)] * 2, **more)


REFUSED_BY_SQS: dict[str, tuple[str, dict[str, Any]]] = {
    "no body": message(""),
    "a character that XML has not": message("a\x0bb"),
    "a character that is none": message("a\uffffb"),
    "such a character in an attribute": with_attributes({"a": attribute("\0")}),
    "an attribute without a value": with_attributes({"a": attribute("")}),
    "eleven attributes": with_attributes({f"a{number}": attribute() for number in range(11)}),
    "an attribute with a name of AWS": with_attributes({"AWS.x": attribute()}),
    "an attribute of an unknown type": with_attributes({"a": attribute("x", "Text")}),
    "a message of a mebibyte and a byte": message("x" * (MEBIBYTE + 1)),
    "a message of a mebibyte and attributes": with_attributes({"a": attribute()}, "x" * MEBIBYTE),
    "a batch of more than a mebibyte": ("SendMessageBatch", batch(*["x" * 200_000] * 6)),
    "a batch that attributes make too large": half_a_mebibyte_twice(MessageAttributes={"a": attribute()}),
    "eleven messages": ("SendMessageBatch", batch(*["x"] * 11)),
    "no messages": ("SendMessageBatch", batch()),
    "one id twice": ("SendMessageBatch", {"Entries": [{"Id": "1", "MessageBody": "x"}] * 2}),
    "an id with a space": ("SendMessageBatch", {"Entries": [{"Id": "a b", "MessageBody": "x"}]}),
    "a delay of 901 seconds": message(DelaySeconds=901),
    "a delay in a FIFO queue": message(DelaySeconds=1, **FIFO),
    "a group of 129 characters": message(MessageGroupId="g" * 129),
    "a group with a space": message(MessageGroupId="g h"),
    "a group that is not ASCII": message(MessageGroupId="é"),
    "a deduplication id of 129 characters": message(**{**FIFO, "MessageDeduplicationId": "d" * 129}),
    "no group in a FIFO queue": message(queue="chat-cleanup", MessageDeduplicationId="d"),
    "no deduplication id in a FIFO queue": message(queue="chat-cleanup", MessageGroupId="g"),
    "eleven at once": ("ReceiveMessage", {"MaxNumberOfMessages": 11}),
    "a wait of 21 seconds": ("ReceiveMessage", {"WaitTimeSeconds": 21}),
    "hidden for twelve hours and a second": ("ReceiveMessage", {"VisibilityTimeout": 43_201}),
    "a receipt that is none": ("ChangeMessageVisibility", {"ReceiptHandle": "nonsense", "VisibilityTimeout": 1}),
    "eleven deletions": ("DeleteMessageBatch", {"Entries": [{"Id": str(n), "ReceiptHandle": "x"} for n in range(11)]}),
}


@pytest.mark.parametrize("case", REFUSED_BY_SQS)
def test_what_sqs_refuses_is_refused(queue: Callable[..., Any], case: str, refused_by_aws: list[str]) -> None:
    operation, said = REFUSED_BY_SQS[case]
    with pytest.raises(ClientError):
        queue(operation, **said)
    refused_by_aws.clear()


def test_what_sqs_just_takes_is_taken(queue: Callable[..., Any]) -> None:
    ten = {f"a.{number}-_": attribute(data_type="String.x") for number in range(10)}
    queue("SendMessage", MessageBody="\t\n\r\ud7ff\ue000\ufffd\U0010ffff", MessageAttributes=ten, DelaySeconds=900)
    queue("SendMessage", MessageBody="x" * (MEBIBYTE - 8), MessageAttributes={"a": attribute()})
    queue("SendMessageBatch", **batch(*["x" * (MEBIBYTE // 10)] * 10))
    every = "".join(map(chr, range(33, 127)))
    queue("SendMessage", **{**FIFO, "MessageBody": "a", "MessageGroupId": every, "MessageDeduplicationId": "d" * 128})
    assert queue("ReceiveMessage", VisibilityTimeout=43_200, WaitTimeSeconds=20)["Messages"]
