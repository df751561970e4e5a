"""The Python client, blocking and asynchronous, with the running stack."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from minichat_client import (
    AnswerFailed,
    AsyncMiniChat,
    AttachmentFailed,
    CitationsEvent,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    MiniChat,
    StreamStartedEvent,
    ToolEvent,
    problems,
)
from tests.support.http.client import Stack
from tests.support.http.given_files import PDF

T = TypeVar("T")


@pytest.fixture
def blocking(stack: Stack) -> Iterator[MiniChat]:
    """A user that no other test is."""
    with MiniChat(stack.base_url, stack.token("acme", uuid4().hex)) as client:
        yield client


def of_blocking(client: MiniChat) -> list[Any]:
    """What a conversation looks like."""
    chat = client.create_chat(title="Capitals")
    sent = client.send(chat, "[[say:Paris it is.]][[tool:web_search]] France?", web_search=True)
    kinds = [type(event) for event in sent if not isinstance(event, DeltaEvent)]
    retried = client.retry(chat, sent.request_id or "")
    edited_text = [retried.read()]
    edited = client.edit(chat, retried.request_id or "", "[[say:Rome.]] Italy?")
    edited_text.append(edited.read())
    resumed = client.resume(chat, edited.request_id or "", after=1).read()
    said = [message.content for message in client.messages(chat, page_size=1)]
    newest = next(client.messages(chat, newest_first=True))
    client.react(chat, newest, "like")
    reaction = (
        client.turn(chat, edited.request_id or "").state,
        next(client.messages(chat, newest_first=True)).my_reaction,
    )
    client.react(chat, newest, None)
    found = [one.title for one in client.chats(filter="title eq 'Capitals'", page_size=1)]
    renamed = client.rename_chat(chat, "Cities").title
    client.delete_turn(chat, edited.request_id or "")
    left = client.chat(chat).message_count
    client.delete_chat(chat)
    return [kinds, sent.text, edited_text, resumed, said, reaction, found, renamed, left]


async def of_asynchronous(client: AsyncMiniChat) -> list[Any]:
    """The same conversation."""
    chat = await client.create_chat(title="Capitals")
    sent = client.send(chat, "[[say:Paris it is.]][[tool:web_search]] France?", web_search=True)
    kinds = [type(event) async for event in sent if not isinstance(event, DeltaEvent)]
    retried = client.retry(chat, sent.request_id or "")
    edited_text = [await retried.read()]
    edited = client.edit(chat, retried.request_id or "", "[[say:Rome.]] Italy?")
    edited_text.append(await edited.read())
    resumed = await client.resume(chat, edited.request_id or "", after=1).read()
    said = [message.content async for message in client.messages(chat, page_size=1)]
    newest = await anext(client.messages(chat, newest_first=True))
    await client.react(chat, newest, "like")
    state = (await client.turn(chat, edited.request_id or "")).state
    reaction = state, (await anext(client.messages(chat, newest_first=True))).my_reaction
    await client.react(chat, newest, None)
    found = [one.title async for one in client.chats(filter="title eq 'Capitals'", page_size=1)]
    renamed = (await client.rename_chat(chat, "Cities")).title
    await client.delete_turn(chat, edited.request_id or "")
    left = (await client.chat(chat)).message_count
    await client.delete_chat(chat)
    return [kinds, sent.text, edited_text, resumed, said, reaction, found, renamed, left]


def test_a_conversation_is_the_same_with_either_client(stack: Stack, blocking: MiniChat) -> None:
    async def other() -> list[Any]:
        async with AsyncMiniChat(stack.base_url, stack.token("acme", uuid4().hex)) as client:
            return await of_asynchronous(client)

    held = of_blocking(blocking)
    assert held == asyncio.run(other())
    assert held == [
        [StreamStartedEvent, ToolEvent, ToolEvent, CitationsEvent, DoneEvent],
        "Paris it is.",
        ["Paris it is.", "Rome."],
        "Rome.",
        ["[[say:Rome.]] Italy?", "Rome."],
        ("done", "like"),
        ["Capitals"],
        "Cities",
        0,
    ]


def test_leaving_is_not_cancelling_and_cancelling_is(stack: Stack, blocking: MiniChat) -> None:
    chat, hold = blocking.create_chat(), uuid4().hex
    with blocking.send(chat, f"[[words:9]][[hold:{hold}]]") as answer:
        assert isinstance(next(answer), StreamStartedEvent)
    request_id = answer.request_id or ""
    assert blocking.turn(chat, request_id).state == "running"
    again = blocking.resume(chat, request_id, after=answer.number)
    stack.release(hold)
    assert again.read().endswith("word9")
    left = blocking.edit(chat, request_id, f"[[words:9]][[hold:{hold}-2]]")
    assert isinstance(next(left), StreamStartedEvent)
    left.close(cancel=True)
    ended = blocking.resume(chat, left.request_id or "")
    with pytest.raises(AnswerFailed) as failed:
        ended.read()
    assert failed.value.code == "cancelled"
    assert isinstance(ended.end, ErrorEvent)


def test_an_asynchronous_reader_that_is_cancelled_leaves_the_turn_alone(stack: Stack) -> None:
    async def held(client: AsyncMiniChat, hold: str) -> str:
        chat = await client.create_chat()
        answer = client.send(chat, f"[[words:9]][[hold:{hold}]]")
        begun = asyncio.Event()

        async def read() -> None:
            async with answer:
                async for _ in answer:
                    begun.set()

        reader = asyncio.create_task(read())
        await begun.wait()
        reader.cancel()
        await asyncio.wait([reader])
        stack.release(hold)
        return await client.resume(chat, answer.request_id or "").read()

    async def run() -> str:
        async with AsyncMiniChat(stack.base_url, stack.token("acme", uuid4().hex)) as client:
            return await held(client, uuid4().hex)

    assert asyncio.run(run()).endswith("word9")


def test_a_file_goes_along_and_one_that_cannot_be_taken_in_is_named(blocking: MiniChat, tmp_path: Path) -> None:
    chat = blocking.create_chat()
    (tmp_path / "moon.pdf").write_bytes(PDF)
    moon = blocking.attach(chat, tmp_path / "moon.pdf")
    assert (moon.status, moon.content_type) == ("ready", "application/pdf")
    sent = blocking.send(chat, "How far is the moon?", attachments=[moon])
    (cited,) = [event.items[0].title for event in sent if isinstance(event, CitationsEvent)]
    assert cited == "moon.pdf"
    with pytest.raises(problems.AttachmentLocked):
        blocking.delete_attachment(chat, moon)
    notes = blocking.attach(chat, b"Notes", filename="notes.txt")
    assert [one.filename for one in blocking.attachments(chat)] == ["notes.txt", "moon.pdf"]
    blocking.delete_attachment(chat, notes)
    with pytest.raises(problems.UnsupportedFileType):
        blocking.attach(chat, b"la", filename="song.mp3")
    with pytest.raises(AttachmentFailed, match=r"fake.png could not be taken in"):
        blocking.attach(chat, b"no picture", filename="fake.png")


def test_what_can_be_looked_at_has_its_type(blocking: MiniChat) -> None:
    models, today = blocking.models(), datetime.now(UTC).date()
    assert blocking.model(models[0].model_id) == models[0]
    assert {tier.tier for tier in blocking.quota().tiers} == {"total", "premium"}
    assert blocking.usage(today, today).items == []
    assert blocking.health().status == "ok"
    assert blocking.call("GET", "models")["items"][0]["model_id"] == models[0].model_id
    with pytest.raises(problems.ModelNotFound, match=r"\[model_not_found\]") as refused:
        blocking.model("none")
    assert (refused.value.status, bool(refused.value.trace_id)) == (404, True)
    with pytest.raises(problems.InvalidRequest, match="content: "):
        blocking.send(blocking.create_chat(), " ").read()
