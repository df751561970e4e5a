"""The streaming runtime where one environment is given several invocations (Lambda Managed Instances)."""

import asyncio
import base64
import json
import time
from pathlib import Path

import pytest

from tests.support.aws.deliveries import Drops, Refuses
from tests.support.aws.runtime_api import RuntimeApi, Streamed
from tests.support.aws.streaming import Comers, Running, a_gate, an_event, running, told
from tests.support.patience import PATIENCE

SEVERAL = 4


async def _asked(api: RuntimeApi, times: int) -> None:
    """Returns once exactly so many requests for an invocation wait for one."""
    async with asyncio.timeout(PATIENCE):
        while api.asking != times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _sent_after(streamed: Streamed, number: int) -> None:
    assert await streamed.chunk() == b"data: %d\n\n" % number


async def test_as_many_as_lambda_says_are_served_at_once_and_no_more_is_asked_for(tmp_path: Path) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path), a_gate() as (port, comers):
        await _asked(api, SEVERAL)
        streams = [await api.invoke(an_event("/gated", x_gate=port)) for _ in range(SEVERAL)]
        gates = [(await comers.get())[1] for _ in range(SEVERAL)]
        waits = asyncio.create_task(api.invoke(an_event("/empty")))
        # All of them have begun, and none has ended: whoever comes now has to wait.
        for number in range(3):
            for streamed in streams:
                await _sent_after(streamed, number)
            assert (api.running, api.asking, waits.done()) == (SEVERAL, 0, False)
            for gate in gates:
                gate.write(b"\n")
        assert [await streamed.rest() for streamed in streams] == [b""] * SEVERAL
        assert await (await waits).rest() == b"\n"
        await _asked(api, SEVERAL)
        assert (api.refused, api.lost, api.running) == ([], 0, 0)


async def test_one_that_is_slow_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with RuntimeApi(2) as api, running(api, tmp_path), a_gate() as (port, comers):
        slow = await api.invoke(an_event("/gated", x_gate=port))
        await _sent_after(slow, 0)
        for _ in range(20):
            assert await (await api.invoke(an_event("/empty"))).rest() == b"\n"
        _, gate = await comers.get()
        gate.write(b"\n\n\n")
        assert await slow.rest() == b"data: 1\n\ndata: 2\n\n"


async def test_each_is_told_of_itself_and_the_environment_of_none(tmp_path: Path) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path):
        before = time.time()
        answers = await asyncio.gather(
            *(
                told(
                    api,
                    an_event("/told"),
                    seconds=100 + number,
                    headers={"Lambda-Runtime-Trace-Id": f"Root={number}", "Lambda-Runtime-Invocation-Id": f"i{number}"},
                )
                for number in range(50)
            )
        )
        after = time.time()
        for number, answer in enumerate(answers):
            state, own = answer["state"], answer["of several"]
            assert state["trace_header"] == own["lambda-runtime-trace-id"] == f"Root={number}"
            assert own["lambda-runtime-invocation-id"] == f"i{number}"
            assert state["aws_request_id"] == own["lambda-runtime-aws-request-id"]
            assert before + 100 + number - 1 <= state["deadline_ms"] / 1000 <= after + 100 + number
            # Neither the process nor the context remembers one that was served before.
            assert (answer["trace"], answer["kept"]) == (None, None)
        assert len({answer["state"]["aws_request_id"] for answer in answers}) == 50
        assert "trace_header" not in (await told(api, an_event("/told")))["state"]


@pytest.mark.parametrize("path", ["/early", "/silent", "/cancelled", "/bodiless", "/malformed", "/exit"])
async def test_one_that_fails_is_a_problem_and_the_others_go_on(tmp_path: Path, path: str) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path) as runtime, a_gate() as (port, comers):
        bystander = await api.invoke(an_event("/gated", x_gate=port))
        failed = await asyncio.gather(*(api.invoke(an_event(path)) for _ in range(10)))
        for one in failed:
            assert one.head["statusCode"] == 500
            assert json.loads(await one.rest())["code"] == "internal_error"
        await _others_go_on(api, bystander, comers)
        # Only one that raised has a traceback: each in one piece, and with its invocation's id.
        logged = [json.loads(line) for line in runtime.log.splitlines()]
        assert all(line["message"].startswith("Traceback ") for line in logged)
        assert len({line["aws_request_id"] for line in logged}) == (0 if path == "/silent" else 10)


async def test_one_that_fails_after_its_start_tells_it_in_its_own_trailers(tmp_path: Path) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path), a_gate() as (port, comers):
        bystander = await api.invoke(an_event("/gated", x_gate=port))
        late, twice, none = await asyncio.gather(
            api.invoke(an_event("/late")), api.invoke(an_event("/twice")), api.invoke(b"no event")
        )
        assert (await late.rest(), await twice.rest()) == (b"data: 0\n\n", b"")
        kinds = [one.trailers["lambda-runtime-function-error-type"] for one in (late, twice)]
        assert kinds == ["ValueError", "RuntimeError"]
        error = json.loads(base64.b64decode(late.trailers["lambda-runtime-function-error-body"]))
        assert error["errorMessage"] == "after the start"
        assert none.error is not None
        assert none.headers["lambda-runtime-function-error-type"] == "Runtime.NotARequest"
        await _others_go_on(api, bystander, comers)


async def test_a_refusal_of_one_is_nothing_to_the_others(tmp_path: Path) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path) as runtime, a_gate() as (port, comers):
        bystander = await api.invoke(an_event("/gated", x_gate=port))
        await _sent_after(bystander, 0)
        api.at_response.extend([Refuses(403), Refuses(413, 1)])
        for _ in range(2):
            await (await api.invoke(an_event("/late"))).rest()
        api.at_next.extend([Refuses(429), Drops()])
        await (await api.invoke(an_event("/empty"))).rest()
        await _others_go_on(api, bystander, comers, at=1)
        assert runtime.log.count("the runtime API refused a response") == 2


async def _others_go_on(api: RuntimeApi, bystander: Streamed, comers: Comers, at: int = 0) -> None:
    _, gate = await comers.get()
    gate.write(b"\n\n\n")
    for number in range(at, 3):
        await _sent_after(bystander, number)
    assert (await bystander.rest(), bystander.trailers) == (b"", {})
    await _asked(api, SEVERAL)


async def test_nobody_asks_for_more_while_the_loop_is_late(tmp_path: Path) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path), a_gate() as (port, comers):
        await _asked(api, SEVERAL)
        busy = await api.invoke(an_event("/busy", x_gate=port))
        _, gate = await comers.get()
        for _ in range(SEVERAL - 1):
            # Those who had asked before are given one; having served it they do not ask again.
            assert await (await api.invoke(an_event("/empty"))).rest() == b"\n"
        left = asyncio.create_task(api.invoke(an_event("/empty")))
        await asyncio.sleep(1)
        assert (api.asking, api.running, left.done()) == (0, 1, False)
        gate.write(b"\n")
        assert await busy.rest() == b"\n"
        assert await (await left).rest() == b"\n"
        await _asked(api, SEVERAL)


async def test_at_sigterm_nobody_asks_and_what_runs_ends_by_itself(tmp_path: Path) -> None:
    async with (
        RuntimeApi(SEVERAL) as api,
        running(api, tmp_path, STREAM_DRAIN_SECONDS="60") as runtime,
        a_gate() as (port, comers),
    ):
        streams = [await api.invoke(an_event("/gated", x_gate=port)) for _ in range(2)]
        gates = [(await comers.get())[1] for _ in range(2)]
        runtime.terminate()
        await _asked(api, 0)
        refused = asyncio.create_task(api.invoke(an_event("/empty")))
        for gate in gates:
            gate.write(b"\n\n\n")
        for streamed in streams:
            assert await streamed.rest() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
            assert streamed.trailers == {}
        assert await runtime.ended() == 0
        assert (runtime.log, refused.done(), api.running, api.lost) == ("the app has stopped\n", False, 0, 0)
        refused.cancel()


async def test_at_sigterm_what_does_not_end_is_left_behind_in_time(tmp_path: Path) -> None:
    async with (
        RuntimeApi(SEVERAL) as api,
        running(api, tmp_path, STREAM_DRAIN_SECONDS="0.7") as runtime,
        a_gate() as (port, comers),
    ):
        streamed = await api.invoke(an_event("/gated", x_gate=port))
        await comers.get()
        began = time.monotonic()
        runtime.terminate()
        assert await runtime.ended() == 0
        assert 0.7 <= time.monotonic() - began < 10
        assert await streamed.rest() == b"data: 0\n\n"
        assert "the app has stopped\n" in runtime.log


async def _ends_with(runtime: Running, words: str) -> None:
    assert await runtime.ended() == 1
    assert words in runtime.log


async def test_where_the_runtime_api_fails_what_runs_ends_before_the_process(tmp_path: Path) -> None:
    async with RuntimeApi(SEVERAL) as api, running(api, tmp_path) as runtime, a_gate() as (port, comers):
        await _asked(api, SEVERAL)
        streamed = await api.invoke(an_event("/gated", x_gate=port))
        _, gate = await comers.get()
        api.at_next.append(Refuses(500))
        await (await api.invoke(an_event("/empty"))).rest()
        await _asked(api, 0)
        gate.write(b"\n\n\n")
        assert await streamed.rest() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        await _ends_with(runtime, "the runtime API is over: 500")


@pytest.mark.parametrize("said", ["1", "", "many"])
async def test_without_a_number_above_one_there_is_one_at_a_time(tmp_path: Path, said: str) -> None:
    async with RuntimeApi() as api, running(api, tmp_path, AWS_LAMBDA_MAX_CONCURRENCY=said):
        answer = await told(api, an_event("/told"), headers={"Lambda-Runtime-Trace-Id": "Root=1"})
        assert (answer["trace"], answer["of several"]) == ("Root=1", None)
        assert "trace_header" not in answer["state"]
