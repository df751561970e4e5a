"""What the OpenAPI document says of a stream's events is what is told."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from minichat.domain.answer_end import COMPLETE, REFUSED_BY_FILTER
from minichat.domain.chat import clean_title
from minichat.domain.citations import Citation
from minichat.domain.errors import InvalidRequest
from minichat.domain.failure_codes import ERROR_MESSAGES
from minichat.domain.quota_left import Remaining
from minichat.domain.stream import (
    NAMES,
    Citations,
    Delta,
    Done,
    Ping,
    Started,
    StreamEvent,
    Tool,
    error,
    told,
)
from minichat.domain.usage import Usage
from minichat.http.document import document
from tests.reference import openapi
from tests.support.domain.builders import FIRST_OF_NEXT_MONTH

# FastAPI hands a query's alias on to pydantic in a place where pydantic says that it does nothing there.
pytestmark = pytest.mark.filterwarnings("ignore:The 'alias' attribute with value")

ROOT = Path(__file__).parents[2]
FILES = ("openapi.json", "openapi-admin.json")
FORMATS = FormatChecker(["date", "uuid"])
_ID = "01a1fd42-d8d3-756c-b9cd-05918e7930d0"
_LEFT = Remaining("total", "monthly", 100, 90, FIRST_OF_NEXT_MONTH, warning=True, percentage=10)
EVENTS: list[StreamEvent] = [
    Started(_ID, _ID, True),
    Started(_ID, _ID, False, summary_tokens=7),
    Delta("Paris"),
    Tool("start", "web_search"),
    Tool("done", "file_search", {"files_searched": [{"attachment_id": _ID, "title": "moon.pdf"}]}),
    Tool("done", "code_interpreter", {"output": "42", "query": "moon"}),
    Citations((Citation("web", "https://moon.example", "Moon", "far", (0, 3)), Citation("file", _ID, "moon.pdf"))),
    Done(COMPLETE, Usage(), "m", "m", "allow"),
    Done(REFUSED_BY_FILTER, Usage(1, 2, 3, 4, 5), "m", "n", "downgrade", "model_disabled", (_LEFT,)),
    *(error(code) for code in ERROR_MESSAGES),
    Ping(),
]
"""Each event with all that it can say, and with as little as it can."""


def _data_of(event: StreamEvent) -> dict[str, Any]:
    """What the document says of the event's `data`: closed, so that what it forgets does not pass."""
    schemas = document("/mini-chat")["components"]["schemas"]
    ref = schemas["StreamEvent"]["discriminator"]["mapping"][NAMES[type(event)]]
    described = schemas[ref.rpartition("/")[2]]["properties"]
    assert described["event"]["const"] == NAMES[type(event)]
    closed = {
        name: schema | {"additionalProperties": False} if "properties" in schema or name == "PingData" else schema
        for name, schema in schemas.items()
    }
    return {**described["data"], "components": {"schemas": closed}}


@pytest.mark.parametrize("name", FILES)
def test_the_committed_document_is_as_the_code_has_it(name: str) -> None:
    assert (ROOT / openapi.FOLDER / name).read_text("utf-8") == openapi.documents()[name], "stale: run `make docs`"


def test_an_operation_is_called_what_it_does() -> None:
    chats, operators = ({one["operationId"] for _, _, one in _operations(name)} for name in FILES)
    assert {"listChats", "sendMessage", "resumeTurn", "retryTurn", "editTurn", "cancelTurn", "deleteTurn"} <= chats
    assert {"getPolicy", "getTenantPolicy", "getUserPolicy", "listApiKeys", "redriveDeadLetters"} <= operators
    for name in FILES:
        ids = [one["operationId"] for _, _, one in _operations(name)]
        assert len(ids) == len(set(ids))
        assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)+", one) for one in ids)


def _operations(name: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The path, method and operation of each operation of a committed document."""
    paths = json.loads((ROOT / openapi.FOLDER / name).read_text("utf-8"))["paths"]
    return [(path, method, one) for path, methods in paths.items() for method, one in methods.items()]


@pytest.mark.parametrize("name", FILES)
def test_every_operation_shows_an_example_of_each_body_answer_and_refusal_that_fits_its_schema(name: str) -> None:
    components = json.loads((ROOT / openapi.FOLDER / name).read_text("utf-8"))["components"]

    def fits(content: dict[str, Any], example: Any) -> None:
        Draft202012Validator(content["schema"] | {"components": components}, format_checker=FORMATS).validate(example)

    for _, _, operation in _operations(name):
        bodies = list(operation.get("requestBody", {}).get("content", {}).values())
        answers = [one for answer in operation["responses"].values() for one in answer.get("content", {}).items()]
        for content in (*bodies, *(one for kind, one in answers if kind != "application/problem+json")):
            fits(content, content["example"])
        problems = [one for kind, one in answers if kind == "application/problem+json"]
        assert problems
        for content in problems:
            for code, shown in content["examples"].items():
                assert shown == {"$ref": f"#/components/examples/{code}"}
                fits(content, components["examples"][code]["value"])
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                fits(parameter, parameter["example"])
            assert parameter["in"] != "path" or "example" in parameter


def test_every_event_that_can_be_told_is_described() -> None:
    kinds = set(get_args(StreamEvent))
    schemas = document("/mini-chat")["components"]["schemas"]
    told = schemas["StreamEvent"]
    assert list(told["discriminator"]["mapping"]) == list(NAMES.values())
    assert [one["$ref"] for one in told["oneOf"]] == list(told["discriminator"]["mapping"].values())
    assert len(schemas["StreamData"]["anyOf"]) == len(NAMES)
    assert set(NAMES) == kinds == {type(event) for event in EVENTS}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: NAMES[type(event)])
def test_an_event_is_told_as_the_document_says_and_tells_nothing_else(event: StreamEvent) -> None:
    Draft202012Validator(_data_of(event), format_checker=Draft202012Validator.FORMAT_CHECKER).validate(told(event).data)


def test_what_can_be_left_out_is_never_null() -> None:
    schemas = document("/mini-chat")["components"]["schemas"]
    nullable = {
        f"{name}.{member}"
        for name, schema in schemas.items()
        if name.endswith(("Data", "Details")) or name in ("CitationView", "CompletionView", "UsageView", "QuotaWarning")
        for member, said in schema.get("properties", {}).items()
        if {"type": "null"} in said.get("anyOf", ())
    }
    assert nullable == {"DoneData.usage"}


def test_every_event_has_a_number_but_a_ping() -> None:
    schemas = document("/mini-chat")["components"]["schemas"]
    frames = [schemas[ref.rpartition("/")[2]] for ref in schemas["StreamEvent"]["discriminator"]["mapping"].values()]
    unnumbered = {frame["properties"]["event"]["const"] for frame in frames if "id" not in frame["properties"]}
    assert unnumbered == {NAMES[Ping]}


@pytest.mark.parametrize("title", ["a", "x" * 255, "x" * 256, " " + "x" * 255 + "\n", "a b", "", " ", "\u3000"])
def test_the_document_takes_the_titles_that_the_domain_takes(title: str) -> None:
    described = document("/mini-chat")["components"]["schemas"]["CreateChat"]["properties"]["title"]
    try:
        clean_title(title)
    except InvalidRequest:
        assert not Draft202012Validator(described).is_valid(title)
    else:
        assert Draft202012Validator(described).is_valid(title)


def test_a_stream_is_what_200_brings() -> None:
    answers = [
        (status, answer.get("content", {}))
        for path in document("/mini-chat")["paths"].values()
        for operation in path.values()
        for status, answer in operation["responses"].items()
    ]
    assert {status for status, content in answers if "text/event-stream" in content} == {"200"}
