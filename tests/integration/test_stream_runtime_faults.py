"""The streaming runtime at a Runtime API that frames as HTTP/1.1 allows, is slow, refuses, and breaks off."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws.deliveries import Delivery, Drops, Fault, Refuses, in_chunks, until_close, with_length
from tests.support.aws.runtime_api import RuntimeApi
from tests.support.aws.streaming import a_gate, an_event, running, told
from tests.support.http.gateway import sized, wire

DELIVERIES = {
    "as AWS": Delivery(),
    "with a length": Delivery(with_length),
    "in chunks of a byte": Delivery(in_chunks(1)),
    "in chunks with extensions and trailers": Delivery(
        in_chunks(1000, extension=b'; a=b; c="d"', trailers=b"Checksum: 5\r\nMore: \r\n")
    ),
    "until it closes": Delivery(until_close, closes=True),
    "after interim answers": Delivery(
        interim=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
    ),
    "with folded and repeated headers": Delivery(more_headers=b"X-A: one\r\n two\r\n\tthree\r\nX-A:four\r\nX-B:\r\n"),
    "with many headers": Delivery(more_headers=b"".join(b"X-%d: %s\r\n" % (n, b"x" * 900) for n in range(500))),
    "byte by byte": Delivery(piece_bytes=1),
    "slowly": Delivery(piece_bytes=900, pause_seconds=0.02),
    "and then closes": Delivery(closes=True),
}


@pytest.mark.parametrize("delivery", DELIVERIES.values(), ids=DELIVERIES)
async def test_an_event_is_read_however_it_comes(tmp_path: Path, delivery: Delivery) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        api.delivery = delivery
        for size in (10, 3000, 10):
            answer = await told(api, an_event("/told", {"text": "x" * size}), seconds=60)
            assert answer["bytes"] == len('{"text": ""}') + size
            assert answer["state"].keys() == {"aws_request_id", "deadline_ms", "gateway_path"}
        assert (api.refused, api.lost) == ([], 0)


@pytest.mark.parametrize("names", [str.lower, str.upper])
async def test_names_of_headers_have_no_case(tmp_path: Path, names: Any) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        answer = await told(
            api, an_event("/told"), seconds=None, headers={names("Lambda-Runtime-Deadline-Ms"): "1795618386459"}
        )
        assert answer["state"]["deadline_ms"] == 1795618386459


@pytest.mark.parametrize("size", [2048, 2049, 10_000, 100_000, 1_000_000, 6_291_556])
async def test_events_of_every_size_reach_the_app(tmp_path: Path, size: int) -> None:
    slim = {name: value for name, value in an_event("/told").items() if name not in ("requestContext", "headers")}
    event = sized(slim, size)
    async with RuntimeApi() as api, running(api, tmp_path):
        for _ in range(2):
            assert (await told(api, event))["bytes"] == len(json.loads(event)["body"])


def _with_body(body: object) -> bytes:
    return wire(an_event("/told") | {"body": body, "isBase64Encoded": True})


NO_REQUESTS = {
    "nothing": b"",
    "a byte": b"1",
    "no JSON": b"{secret",
    "cut off": wire(an_event("/told"))[:-1],
    "not UTF-8": b'{"a": "\xff"}',
    "too deep": b"[" * 100_000,
    "a list": b"[]",
    "a scheduled event": b'{"time": "2026-11-21T12:00:00Z", "source": "aws.scheduler"}',
    "an HTTP API's": b'{"version": "2.0", "rawPath": "/", "requestContext": {"http": {"method": "GET"}}}',
    "no path": wire(an_event("/told") | {"path": None}),
    "headers in a list": wire(an_event("/told") | {"multiValueHeaders": ["secret"]}),
    "base64 with strange letters": _with_body("c2Vj!cmV0"),
    "base64 that is cut off": _with_body("c2Vjc"),
    "base64 of no ASCII": _with_body("ü"),
    "a body that is no text": _with_body({"a": 1}),
}


@pytest.mark.parametrize("event", NO_REQUESTS.values(), ids=NO_REQUESTS)
async def test_what_is_no_request_is_told_as_an_error_and_the_next_invocation_works(
    tmp_path: Path, event: bytes
) -> None:
    async with RuntimeApi() as api, running(api, tmp_path) as runtime:
        refused = await api.invoke(event)
        assert refused.error is not None
        assert refused.error["errorMessage"]
        assert refused.headers["lambda-runtime-function-error-type"] == f"Runtime.{refused.error['errorType']}"
        assert (await told(api, an_event("/told")))["bytes"] == len('{"a": "\\u00fc"}')
        assert "an invocation was no request: " in runtime.log
        assert "secret" not in runtime.log


SURVIVED: dict[str, list[Fault]] = {
    "refused": [Refuses(403), Refuses(400), Refuses(429), Refuses(503)],
    "closed": [Drops(), Drops(), Drops()],
    "broken off in the head": [Drops(20)],
    "broken off in the body": [Drops(4000), Drops(5000)],
}


@pytest.mark.parametrize("faults", SURVIVED.values(), ids=SURVIVED)
async def test_an_invocation_that_was_not_given_is_asked_for_again(tmp_path: Path, faults: list[Fault]) -> None:
    async with RuntimeApi() as api:
        api.at_next.extend(faults)
        async with running(api, tmp_path) as runtime:
            for _ in range(2):
                assert (await told(api, an_event("/told", {"text": "x" * 3000})))["bytes"] == 3012
            assert runtime.log.count("the runtime API gave no invocation") == len(faults)
            for fault in faults:
                assert not isinstance(fault, Refuses) or f'{fault.status} {{"errorMessage": "It is' in runtime.log


@pytest.mark.parametrize("faults", [[Refuses(500)], [Refuses(403)] * 6, [Drops()] * 6], ids=["500", "403", "closed"])
async def test_a_process_that_is_given_nothing_more_ends_and_says_why(tmp_path: Path, faults: list[Fault]) -> None:
    async with RuntimeApi() as api:
        api.at_next.extend([None, *faults])
        async with running(api, tmp_path) as runtime:
            assert (await told(api, an_event("/told")))["bytes"]
            assert await runtime.ended() == 1
            assert not api.at_next
            over = "is over: 500" if len(faults) == 1 else "gives no invocations: "
            assert runtime.log.splitlines()[-1].startswith(f"the runtime API {over}")


async def test_a_process_whose_runtime_api_is_not_there_ends(tmp_path: Path) -> None:
    async with RuntimeApi() as api:
        pass
    async with running(api, tmp_path) as runtime:
        assert await runtime.ended() == 1
    async with running(api, tmp_path, "the_app.missing") as runtime:
        assert await runtime.ended() == 1
        assert "the runtime API did not take an init error" in runtime.log


@pytest.mark.parametrize("status", [400, 403, 413])
async def test_a_response_that_is_refused_is_logged_and_the_next_invocation_works(tmp_path: Path, status: int) -> None:
    async with RuntimeApi() as api, running(api, tmp_path) as runtime:
        over = asyncio.Event()
        # While it is being sent, by one who reads no more, or reads on; after its head; before it.
        refusals = [
            Refuses(status, 5, False, over),
            Refuses(status, 5, False),
            *(Refuses(status, n) for n in (5, 1, 0)),
        ]
        for refusal in refusals:
            async with a_gate() as (port, comers):
                api.at_response.append(refusal)
                await (await api.invoke(an_event("/long", x_gate=port, x_chunks="95"))).rest()
                reader, _ = await comers.get()
                # The app has gone on to its end.
                assert (await reader.read()).endswith(b"over\n")
        assert (await told(api, an_event("/told")))["bytes"]
        assert runtime.log.count(f'the runtime API refused a response: {status} {{"errorMessage"') == len(refusals)
        over.set()


async def test_a_response_that_is_too_large_is_refused_and_the_next_invocation_works(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path) as runtime, a_gate() as (port, _):
        assert len(await (await api.invoke(an_event("/long", x_gate=port, x_chunks="200"))).rest()) < 6_291_556
        assert (await told(api, an_event("/told")))["bytes"]
        assert 'the runtime API refused a response: 413 {"errorMessage"' in runtime.log


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_an_app_goes_on_when_its_response_is_lost_and_the_process_ends_when_it_is_given_no_more(
    tmp_path: Path, after: int
) -> None:
    async with RuntimeApi() as api, running(api, tmp_path) as runtime, a_gate() as (port, comers):
        api.at_response.append(Drops(after))
        streamed = await api.invoke(an_event("/long", x_gate=port, x_chunks="60"))
        assert len(await streamed.rest()) == max(after - 1, 0) * 65_536
        reader, _ = await comers.get()
        assert (await reader.read()).endswith(b"over\n")
        # So it is at AWS: neither an error nor another invocation, so it is Lambda that has to start anew.
        assert await runtime.ended() == 1
        assert api.refused == ["403 InvalidStateTransition"] * 7
        assert "a response was lost: " in runtime.log
        assert "the runtime API refused an error: 403" in runtime.log


@pytest.mark.parametrize("event", [an_event("/empty"), b"no event"], ids=["response", "error"])
async def test_a_runtime_api_that_is_over_when_it_is_answered_ends_the_process(
    tmp_path: Path, event: dict[str, Any] | bytes
) -> None:
    async with RuntimeApi() as api, running(api, tmp_path) as runtime:
        api.at_response.append(Refuses(500))
        api.at_error.append(Refuses(500))
        await api.invoke(event)
        assert await runtime.ended() == 1
        assert 'the runtime API is over: 500 {"errorMessage"' in runtime.log


async def test_an_error_that_is_refused_is_logged_and_the_next_invocation_works(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path) as runtime:
        api.at_error.append(Refuses(403))
        await api.invoke(b"no event")
        assert (await told(api, an_event("/told")))["bytes"]
        assert 'the runtime API refused an error: 403 {"errorMessage"' in runtime.log


async def test_headers_of_any_script_and_number_reach_the_app(tmp_path: Path) -> None:
    headers = {f"x-{number}": "Grüße, 世界 " * 100 for number in range(500)}
    async with RuntimeApi() as api, running(api, tmp_path):
        answer = await told(api, an_event("/told", **headers))
        assert dict(answer["headers"]).items() >= headers.items()
