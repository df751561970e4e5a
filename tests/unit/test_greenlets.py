"""Plain functions on the event loop: they stand aside where they wait, keep their context, and end even when nobody
waits for them any more."""

import asyncio
import threading
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from minichat import greenlets
from minichat.storage import objects
from tests.support.patience import PATIENCE

who: ContextVar[str] = ContextVar("who", default="nobody")


async def later(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def test_what_a_function_waits_for_is_what_it_gets() -> None:
    def function(first: str, *, second: str) -> str:
        return greenlets.wait(later(first)) + greenlets.wait(later(second))

    assert await greenlets.run(function, "a", second="b") == "ab"


async def test_a_failure_is_raised_where_it_is_waited_for() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    def function() -> str:
        try:
            greenlets.wait(fails())
        except LookupError as error:
            return str(error)
        return ""

    assert await greenlets.run(function) == "gone"
    with pytest.raises(LookupError):
        await greenlets.run(lambda: greenlets.wait(fails()))


async def test_functions_that_wait_share_the_time_and_no_context() -> None:
    meeting = asyncio.Barrier(50)

    def function(name: str) -> tuple[str, int]:
        who.set(name)
        greenlets.wait(meeting.wait())
        return who.get(), threading.get_ident()

    names = [str(number) for number in range(50)]
    found = await asyncio.gather(*(greenlets.run(function, name) for name in names))
    assert [name for name, _ in found] == names
    assert {thread for _, thread in found} == {threading.get_ident()}, "none has a thread"
    assert who.get() == "nobody"


async def test_who_is_called_sees_its_callers_context() -> None:
    who.set("me")
    assert await greenlets.run(who.get) == "me"

    def both() -> tuple[str, str]:
        who.set("inner")
        return greenlets.together(who.get, who.get)

    assert await greenlets.run(both) == ("inner", "inner")


async def test_two_side_by_side_wait_together() -> None:
    meeting = asyncio.Barrier(2)
    first, second = await greenlets.run(
        greenlets.together, lambda: greenlets.wait(meeting.wait()), lambda: greenlets.wait(meeting.wait())
    )
    assert {first, second} == {0, 1}


async def test_a_failure_of_the_first_is_told_while_the_other_goes_on() -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    def fails() -> None:
        raise LookupError

    def waits() -> None:
        greenlets.wait(go_on.wait())
        ended.set()

    with pytest.raises(LookupError):
        await greenlets.run(greenlets.together, fails, waits)
    go_on.set()
    await ended.wait()


async def test_a_function_runs_to_its_end_when_its_caller_is_cancelled() -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def function() -> None:
        begun.set()
        greenlets.wait(go_on.wait())
        ended.set()

    caller = asyncio.create_task(greenlets.run(function))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await ended.wait()


def test_outside_of_a_loop_the_same_functions_have_threads() -> None:
    meeting = threading.Barrier(2, timeout=60)
    assert not greenlets.may_wait()
    assert {*greenlets.together(meeting.wait, meeting.wait)} == {0, 1}


async def test_what_blocks_its_thread_holds_nobody_else_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that goes to its bucket: whoever serves streams beside it goes on."""
    begun, go_on, threads = threading.Event(), threading.Event(), list[int]()

    def put_object(**_: object) -> None:
        threads.append(threading.get_ident())
        begun.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(objects, "_s3", lambda: SimpleNamespace(put_object=put_object))
    putting = asyncio.create_task(greenlets.run(objects.put, "key", b"content", "text/plain"))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    assert not putting.done()
    go_on.set()
    await putting
    assert threads != [threading.get_ident()]
