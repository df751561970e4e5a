"""What a provider answers with a label, a status and words about waiting, as bytes: read, asked again, or given up."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from minichat.provider_entries import Timeouts
from minichat.providers.chunks import Completed, Failed, TextDelta
from tests.support.providers.calls import failure, from_bytes
from tests.support.providers.tongues import CASES, TONGUES, USED, Tongue, text_of

NOWHERE = "http://127.0.0.1:9"
HEAD = "HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n"


def _http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer of HTTP with these header lines."""
    return HEAD.format(status=status, headers="".join(f"{line}\r\n" for line in headers)).encode() + body


@pytest.mark.parametrize("tongue", TONGUES, ids=lambda tongue: tongue.kind)
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("content-type: text/plain",),
        ("content-type: application/json",),
        ("content-type: application/json, text/event-stream; charset=utf-8",),
        ("content-type: application/octet-stream",),
        ("content-type: ",),
    ],
)
def test_a_good_answer_is_read_whatever_its_label_says(tongue: Tongue, headers: tuple[str, ...]) -> None:
    streamed = tongue.text("one two") + tongue.end
    whole = json.dumps(tongue.whole("one two")).encode()
    for body in (streamed, whole):
        chunks, calls = asyncio.run(from_bytes([_http(body, *headers)], kind=tongue.kind, retries=2, **tongue.said))
        assert (chunks[:-1], calls) == ([TextDelta("one two")], 1)
        assert isinstance(chunks[-1], Completed)
        assert chunks[-1].usage == USED


@pytest.mark.parametrize("name", ["several-types-named.chat.http", "whole-instead-of-a-stream.chat.http"])
def test_the_prepared_answers_of_mislabelling_servers_are_read(name: str) -> None:
    chunks, _ = asyncio.run(from_bytes([(CASES / name).read_bytes()], kind="openai_chat"))
    assert text_of(chunks) in {"one two", "Whole answer."}
    assert isinstance(chunks[-1], Completed)
    assert chunks[-1].usage == USED


def test_a_whole_answer_that_says_its_end_is_one_also_when_nobody_closes_the_connection() -> None:
    tongue = TONGUES[1]
    raw = _http(json.dumps(tongue.whole("one")).encode(), "content-length: 9999")
    chunks, _ = asyncio.run(from_bytes([raw], kind=tongue.kind))
    assert [type(chunk) for chunk in chunks] == [TextDelta, Completed]
    cut = _http(json.dumps(tongue.whole("one")).encode()[:-3], "content-length: 9999")
    chunks, _ = asyncio.run(from_bytes([cut], kind=tongue.kind))
    assert [type(chunk) for chunk in chunks] == [Failed]


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("tongue", TONGUES, ids=lambda tongue: tongue.kind)
@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (lambda: ("retry-after-ms: 600", "retry-after: 0"), 0.6),
        (lambda: ("x-ms-retry-after-ms: 600",), 0.6),
        (lambda: ("retry-after: 0.6",), 0.6),
        # Of their clock, which may be days away from ours.
        (lambda: (f"retry-after: {_date(-86_399)}", f"date: {_date(-86_400)}"), 1),
    ],
)
def test_a_provider_is_asked_again_when_it_said_and_not_before(
    tongue: Tongue, words: Callable[[], tuple[str, ...]], seconds: float
) -> None:
    refused = _http(b"{}", *words(), status="429 Too Many Requests")
    answer = _http(tongue.text("at last") + tongue.end)
    times: list[float] = []
    chunks, _ = asyncio.run(from_bytes([refused, answer], times=times, kind=tongue.kind, retries=2, **tongue.said))
    assert text_of(chunks) == "at last"
    assert times[1] - times[0] >= seconds


def test_the_prepared_wish_for_patience_is_granted() -> None:
    answer = _http(TONGUES[0].text("at last") + TONGUES[0].end)
    replies: list[bytes | None] = [(CASES / "asked-to-wait.http").read_bytes(), answer]
    times: list[float] = []
    chunks, _ = asyncio.run(from_bytes(replies, times=times, retries=2))
    assert text_of(chunks) == "at last"
    assert times[1] - times[0] >= 1.5


@pytest.mark.parametrize("words", ["retry-after: 6", f"retry-after: {'9' * 400}", "retry-after-ms: 6000.5"])
def test_who_asks_for_more_patience_than_a_user_has_is_not_asked_again(words: str) -> None:
    chunks, calls = asyncio.run(from_bytes([_http(b"", words, status="429 X")], retries=2))
    assert isinstance(chunks[-1], Failed)
    assert (chunks[-1].code, calls) == ("rate_limited", 1)


@pytest.mark.parametrize(
    "words", ["retry-after: soon", "retry-after: -5", "retry-after: nan", "retry-after: inf", "retry-after: \xb2"]
)
def test_words_about_waiting_that_nobody_understands_are_passed_over(words: str) -> None:
    refused = HEAD.format(status="429 X", headers=words + "\r\n").encode("latin-1")
    chunks, calls = asyncio.run(from_bytes([refused, _http(TONGUES[0].end)], retries=1))
    assert (type(chunks[-1]), calls) == (Completed, 2)


@pytest.mark.parametrize(
    ("status", "said", "calls"), [("503 X", "false", 1), ("429 X", "FALSE", 1), ("409 X", "true", 3), ("400 X", "", 1)]
)
def test_a_provider_that_says_whether_to_try_again_is_believed(status: str, said: str, calls: int) -> None:
    refused = _http(b"", f"x-should-retry: {said}", status=status)
    assert asyncio.run(from_bytes([refused], retries=2))[1] == calls


@pytest.mark.parametrize("tongue", TONGUES, ids=lambda tongue: tongue.kind)
@pytest.mark.parametrize(
    "problem",
    [
        {"error": {"code": "insufficient_quota", "type": "insufficient_quota"}},
        {"error": {"code": None, "type": "billing_hard_limit_reached"}},
        {"error": {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}}},
        {"code": "insufficient_quota", "message": "Pay first."},
    ],
)
def test_patience_does_not_help_an_account_without_money(tongue: Tongue, problem: dict[str, Any]) -> None:
    refused = _http(json.dumps(problem).encode(), "content-type: application/json", status="429 Too Many Requests")
    chunks, calls = asyncio.run(from_bytes([refused], kind=tongue.kind, retries=2, **tongue.said))
    assert isinstance(chunks[-1], Failed)
    assert (chunks[-1].code, chunks[-1].refused, calls) == ("provider_error", True, 1)
    if tongue.kind != "bedrock_converse":
        said = problem if "error" in problem else {"error": problem}
        streamed = _http(f"data: {json.dumps(said)}\n\n".encode())
        chunks, calls = asyncio.run(from_bytes([streamed], kind=tongue.kind, retries=2))
        assert isinstance(chunks[-1], Failed)
        assert (chunks[-1].code, calls) == ("provider_error", 1)


def test_the_prepared_account_without_money_is_asked_once() -> None:
    chunks, calls = asyncio.run(from_bytes([(CASES / "out-of-credit.http").read_bytes()], retries=2))
    assert isinstance(chunks[-1], Failed)
    assert (chunks[-1].code, calls) == ("provider_error", 1)


@pytest.mark.parametrize(
    "status", [201, 202, 307, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 524, 529]
)
def test_a_status_is_a_refusal_unless_somebody_may_be_at_work(status: int) -> None:
    chunks, _ = asyncio.run(from_bytes([_http(b"", status=f"{status} X")]))
    assert isinstance(chunks[-1], Failed)
    assert (chunks[-1].reached, chunks[-1].refused) == (True, status not in {201, 202})


def test_a_request_that_got_no_answer_was_not_refused() -> None:
    silent, _ = asyncio.run(from_bytes([None], timeouts=Timeouts(first_byte_seconds=0.3)))
    broken, _ = asyncio.run(from_bytes([b""]))
    # What was refused first and is silent now may be at work.
    later, calls = asyncio.run(
        from_bytes([_http(b"", status="503 X"), None], retries=1, timeouts=Timeouts(first_byte_seconds=1))
    )
    assert calls == 2
    for chunks in (silent, broken, later):
        assert isinstance(chunks[-1], Failed)
        assert (chunks[-1].reached, chunks[-1].refused) == (True, False)


def test_one_attempt_that_may_be_at_work_is_enough() -> None:
    refused = _http(b"", status="503 X")
    # Nothing comes after what broke off: it is not asked again.
    for replies, all_refused in (([refused, b""], False), ([refused, refused], True)):
        chunks, calls = asyncio.run(from_bytes([*replies], retries=1))
        assert isinstance(chunks[-1], Failed)
        assert (calls, chunks[-1].reached, chunks[-1].refused) == (2, True, all_refused)


def test_nothing_was_refused_where_nothing_was_sent() -> None:
    failed = failure(NOWHERE, "hi")
    assert (failed.reached, failed.refused) == (False, False)
