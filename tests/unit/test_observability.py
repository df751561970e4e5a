"""Metrics: lines that CloudWatch takes, written once, and by nothing that has many values."""

import asyncio
import io
import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from minichat.domain.errors import (
    ChatError,
    ChatNotFound,
    FeatureNotLicensed,
    Forbidden,
    GenerationInProgress,
    InvalidTurnState,
    NotLatestTurn,
)
from minichat.http.edge import Edge
from minichat.http.refusal_notes import RefusedRequest
from minichat.observability import Measurement, begin, count, emit, observe
from minichat.services.turn_metrics import counted_turn
from minichat.settings import SettingsError, load
from tests.support.events.metric_names import emitted

ROOT = Path(__file__).parents[2]
DIMENSIONS = {
    "op",
    "result",
    "provider",
    "model",
    "error_code",
    "decision",
    "tier",
    "period",
    "actor",
    "code",
    "queue",
    "what",
}
DIMENSIONS |= {"outcome", "kind", "reason", "place", "scope", "whose", "tool"}
"""What metrics may be split by: each has few values. Tenant, user, chat and turn are never among them."""


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The metric lines written since the last look; every line is whole JSON."""
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in written if "_aws" in line]


def test_a_line_has_the_shape_that_cloudwatch_takes(capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    count("turn_mutation_total", op="send", result="ok")
    emit("MiniChat/dev")
    (line,) = lines(capsys)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive == {
        "Namespace": "MiniChat/dev",
        "Dimensions": [[], ["op", "result"]],
        "Metrics": [{"Name": "turn_mutation_total", "Unit": "Count"}],
    }
    assert line["_aws"]["Timestamp"] > 1_700_000_000_000
    assert {name: value for name, value in line.items() if name != "_aws"} == {
        "op": "send",
        "result": "ok",
        "turn_mutation_total": [1.0],
    }


def test_metrics_of_the_same_dimensions_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    count("a_total", op="send")
    observe("a_ms", 1.5, "Milliseconds", op="send")
    observe("a_ms", 2.5, "Milliseconds", op="send")
    count("a_total", op="edit")
    count("b_total")
    emit("MiniChat")
    assert [(line.get("op"), line.get("a_total"), line.get("a_ms"), line.get("b_total")) for line in lines(capsys)] == [
        ("send", [1.0], [1.5, 2.5], None),
        ("edit", [1.0], None, None),
        (None, None, None, [1.0]),
    ]


def test_no_line_has_more_values_than_the_format_takes(capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    for number in range(250):
        observe("a_ms", number, "Milliseconds")
    emit("MiniChat")
    values = [line["a_ms"] for line in lines(capsys)]
    assert [len(part) for part in values] == [99, 99, 52]
    assert [value for part in values for value in part] == list(range(250))


def test_nothing_is_written_twice_or_without_a_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    count("a_total")
    emit("")
    emit("MiniChat")
    count("b_total")
    emit("MiniChat")
    emit("MiniChat")
    assert [set(line) - {"_aws"} for line in lines(capsys)] == [{"b_total"}]


def test_the_namespace_may_be_empty_and_has_no_characters_that_cloudwatch_refuses() -> None:
    assert load({}).metrics_namespace == "MiniChat"
    assert load({"MINICHAT_METRICS_NAMESPACE": ""}).metrics_namespace == ""
    with pytest.raises(SettingsError, match="MINICHAT_METRICS_NAMESPACE"):
        load({"MINICHAT_METRICS_NAMESPACE": "Mini Chat?"})


def test_a_variable_of_powertools_adds_no_dimension(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "else")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Else")
    begin()
    count("a_total")
    emit("MiniChat")
    (line,) = lines(capsys)
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "MiniChat"
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[]]


async def test_what_requests_at_once_record_stays_apart(capsys: pytest.CaptureFixture[str]) -> None:
    everybody = asyncio.Barrier(20)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        def work() -> None:
            for _ in range(50):
                count("worked_total", op=scope["path"])

        await everybody.wait()
        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
        await everybody.wait()

    edge = Edge(serve, "MiniChat")
    scopes = [{"type": "http", "method": "GET", "path": f"/{number}", "headers": []} for number in range(20)]
    await asyncio.gather(*(edge(scope, None, None) for scope in scopes))  # type: ignore[arg-type]  # the app asks nothing
    found: dict[str, int] = {}
    for line in lines(capsys):
        found[line["op"]] = found.get(line["op"], 0) + len(line["worked_total"])
    assert found == {f"/{number}": 200 for number in range(20)}


def test_the_metrics_of_an_event_are_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []

    class Recorder(io.StringIO):
        def write(self, text: str, /) -> int:
            pieces.append(text)
            return len(text)

    begin()
    count("a_total", op="send")
    count("a_total", op="edit")
    monkeypatch.setattr(sys, "stdout", Recorder())
    emit("MiniChat")
    (piece,) = pieces
    assert [json.loads(line)["op"] for line in piece.splitlines()] == ["send", "edit"]
    assert piece.endswith("\n")


async def test_what_outlives_its_request_writes_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    left: list[asyncio.Task[None]] = []
    is_over = asyncio.Event()

    async def background() -> None:
        await is_over.wait()
        count("late_total")
        emit("MiniChat")

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        count("early_total")
        left.append(asyncio.create_task(background()))

    await Edge(serve, "MiniChat")({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]
    assert [set(line) - {"_aws"} for line in lines(capsys)] == [{"early_total"}]
    is_over.set()
    await left[0]
    assert [set(line) - {"_aws"} for line in lines(capsys)] == [{"late_total"}]


@pytest.mark.parametrize(
    ("refusal", "result"),
    [
        (None, "ok"),
        (NotLatestTurn(), "not_latest"),
        (InvalidTurnState(), "invalid_state"),
        (Forbidden(), "forbidden"),
        (GenerationInProgress(), "generation_in_progress"),
        (ChatNotFound(), "error"),
        (RuntimeError(), "error"),
    ],
)
def test_an_operation_is_counted_by_how_it_ended(refusal: Exception | None, result: str) -> None:
    event = begin()
    with nullcontext() if refusal is None else pytest.raises(type(refusal)), counted_turn("retry"):
        if refusal is not None:
            raise refusal
    total, latency = event.measurements
    assert total == Measurement("turn_mutation_total", 1, "Count", (("op", "retry"), ("result", result)))
    assert (latency.name, latency.dimensions) == ("turn_mutation_latency_ms", (("op", "retry"),))


@pytest.mark.parametrize(
    ("refusal", "counts"),
    [
        (Forbidden(), [(("code", "forbidden"),)]),
        (FeatureNotLicensed(), [(("code", "feature_not_licensed"),)]),
        (ChatNotFound(), []),
    ],
)
async def test_a_denial_is_counted(refusal: ChatError, counts: list[object]) -> None:
    event = begin()
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""})
    await RefusedRequest().note(request, refusal)
    assert [one.dimensions for one in event.measurements if one.name == "authz_denied_total"] == counts


def test_metrics_are_split_only_by_what_has_few_values() -> None:
    assert len(emitted()) > 15
    assert {name: by for name, by in emitted().items() if by - DIMENSIONS} == {}


def test_the_operators_guide_lists_the_metrics_with_their_dimensions() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = {
        name: set(filter(None, dimensions.split(", ")))
        for name, dimensions in re.findall(r"^\| `(\w+)(?:\{([\w, ]+)\})?` \|", guide, re.MULTILINE)
    }
    assert listed == emitted()
