"""How much of a body is read before a refusal ends, and who is not asked for one."""

import anyio
import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from minichat.http.request_body import PASSED_OVER_BYTES, RequestBody

CHUNK = PASSED_OVER_BYTES // 4


def chunks_read(chunks: int, headers: dict[str, str], status: int = 401, *, begun: bool = False) -> int:
    """How many chunks of a body are read until the answer ends."""
    read, sent = 0, list[Message]()

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * (1 if begun else CHUNK), "more_body": read < chunks}

    async def send(message: Message) -> None:
        sent.append(message)

    async def answered() -> None:
        body = RequestBody(Headers(headers), receive)
        if begun:
            await body.receive()
        await body.read_before_the_end({"type": "http.response.body", "body": b"no"}, status, send)

    anyio.run(answered)
    assert b"".join(message["body"] for message in sent) == b"no"
    assert not sent[-1].get("more_body", False)
    return read


ANNOUNCED = {"content-length": "9"}


@pytest.mark.parametrize("headers", [ANNOUNCED, {"transfer-encoding": "chunked"}])
def test_a_refusal_ends_when_the_body_does(headers: dict[str, str]) -> None:
    assert chunks_read(3, headers) == 3
    assert chunks_read(3, headers, begun=True) == 3


def test_a_body_without_end_is_read_to_a_bound() -> None:
    assert chunks_read(1000, ANNOUNCED) == 4


def test_nothing_is_read_where_nothing_was_announced_and_for_an_answer_that_is_none() -> None:
    assert chunks_read(3, {}) == 0
    assert chunks_read(3, {"content-length": "0"}) == 0
    assert chunks_read(3, ANNOUNCED, 200) == 0


def test_who_waits_for_leave_to_send_is_not_given_it_by_a_refusal() -> None:
    assert chunks_read(3, ANNOUNCED | {"expect": "100-Continue"}) == 0
    assert chunks_read(3, ANNOUNCED | {"expect": "100-continue"}, begun=True) == 3
