"""The largest page of every list, and the largest message, as Lambda gets them from the function."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain import doc_summary
from minichat.domain.attachment import Attachment
from minichat.domain.chat import TITLE_MAX_CHARACTERS, Chat
from minichat.domain.errors import InputTooLong
from minichat.domain.identity import AttachmentId, Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.message_size import MESSAGE_MAX_BYTES, TOLD_MAX_BYTES, told_bytes
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import DocSummaryTask
from minichat.http.listing import PAGE_MAX_BYTES
from minichat.local.issuer import as_uuid
from minichat.services import chats
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Store, Thumbnails
from minichat.storage import attachment_steps, outbox, policies
from tests.support.aws.emulator import SAM, Built, Emulator
from tests.support.domain.builders import a_call, a_model, a_policy, new_id, unhurried
from tests.support.http.gateway import proxy_event, wire
from tests.support.services.ready_files import announced, ready

LARGEST = 6_291_556
"""Bytes of an answer (Lambda quotas: 6 MB, and a little for what is around a payload)."""
TEXTS = {
    "quotes": '"' * ((TOLD_MAX_BYTES - 4) // 4),
    "control characters": "a" + "\x01" * ((TOLD_MAX_BYTES - 5) // 7),
    "ASCII": "a" * MESSAGE_MAX_BYTES,
    "emoji": "😀" * (MESSAGE_MAX_BYTES // 4),
}
"""The longest message of each kind of character."""
NAME = '"' * 251
NAMES = NAME, "😀" * 251
SUMMARY = "a" + "\x01" * (doc_summary.MAX_CHARACTERS - 1)
"""The longest of a document: a control character has seven bytes in an answer, and nothing has more."""
THUMBNAIL_BYTES = 250_000
"""Of each of four images: together what one page may have."""


@pytest.fixture
def rules(store: Store) -> Rules:
    """A policy in force as large as one may be, whose model takes everything."""
    model = {"context_window": 10**7, "max_input_tokens": 10**7, "preference": {"is_default": True}}
    model |= {"multimodal_capabilities": ["VISION_INPUT"]}
    empty = a_policy(a_model(**model)).model_dump_json(exclude_unset=True)
    policy = a_policy(a_model(**model, description='"' * ((policies.MAX_BYTES - len(empty) - 100) // 2)))
    policies.publish(policy, at=a_call().now, by="operator", token=new_id(a_call().now))
    providers = {"openai": {"base_url": "https://example.com"}}
    settings = {"providers": providers, "attachments": {"max_documents_per_chat": 64}}
    return Rules(unhurried(**settings), policy)


@pytest.fixture
def function(artifacts: Built, settings: dict[str, str], rules: Rules, tmp_path: Path) -> Iterator["Answers"]:
    """The function of the buffered operations."""
    with artifacts.emulator("ApiFunction", settings, log=tmp_path / "log") as emulator:
        yield Answers(emulator, settings["TOKEN"])


class Answers:
    """What the function answers to one user, and how many bytes that has."""

    def __init__(self, emulator: Emulator, token: str) -> None:
        self._emulator, self._token = emulator, token
        self.largest = 0

    def get(self, what: str, path: str, **query: str) -> dict[str, Any]:
        """The answer's body; it is printed how large the whole answer is."""
        answer = self._emulator.invoke(wire(proxy_event("GET", path, self._token, query=query)))
        print(f"{what:40} {len(answer):>10,} bytes")
        assert len(answer) <= LARGEST
        self.largest = max(self.largest, len(answer))
        document = json.loads(answer)
        assert document.get("statusCode") == 200, answer[:500]
        body: dict[str, Any] = json.loads(document["body"])
        return body


def _call() -> Call:
    return Call(Caller(TenantId(as_uuid("acme")), UserId(as_uuid("ann"))), a_call().now, new_id)


def _turn(chat_id: ChatId, rules: Rules, question: str, answer: str, *files: AttachmentId) -> str | None:
    """A turn of these two messages; why it failed, if it did."""
    call = _call()
    running = send(call, SendMessage(chat_id, question, RequestId(str(uuid4())), tuple(files)), rules)
    assert isinstance(running, RunningTurn)
    ended = finalize(call, running.turn, Ending(TurnState.COMPLETED, text=answer, usage=Usage(1, 1)), rules.settings)
    assert ended is not None
    return ended.ending.error_code


@pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")
@pytest.mark.holds("contract.page-6mb")
def test_the_largest_page_of_every_list_is_one_that_lambda_can_send(function: Answers, rules: Rules) -> None:
    for title in ("a" + "\x01" * (TITLE_MAX_CHARACTERS - 1), "😀" * TITLE_MAX_CHARACTERS):
        for _ in range(100):
            chats.create(_call(), chats.NewChat(title), rules)
        assert len(function.get("chats", "/chats", limit="100")["items"]) == 100
    assert function.get("models", "/models")["items"][0]["model_id"] == rules.policy.model_catalog[0].id
    function.get("one model", "/models/small")
    function.get("quota status", "/quota/status")
    for name, text in TEXTS.items():
        chat_id = chats.create(_call(), chats.NewChat(), rules).chat_id
        assert _turn(chat_id, rules, text, text) is None
        assert _turn(chat_id, rules, "short", "short") is None
        told = _travelled(function, f"messages of {name}", f"/chats/{chat_id}/messages")
        assert [one["content"] for one in told] == [text, text, "short", "short"]


@pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")
def test_the_longest_message_with_all_that_it_can_have_is_one_that_lambda_can_send(
    function: Answers, rules: Rules
) -> None:
    chat = chats.create(_call(), chats.NewChat(), rules)
    files = [ready(_call(), announced(_call(), chat, rules, "text/plain", f"{NAME}.txt")) for _ in range(60)]
    images = [announced(_call(), chat, rules, "image/png", f"{NAME}.png") for _ in range(4)]
    files += [ready(_call(), image, bytes(THUMBNAIL_BYTES)) for image in images]
    sent_with = [file.attachment_id for file in files]
    for text in (TEXTS["quotes"], "short", "short", "short", "short", "short"):
        assert _turn(chat.chat_id, rules, text, "short", *sent_with) is None
    told = _travelled(function, "messages with 64 attachments", f"/chats/{chat.chat_id}/messages")
    assert [len(one["attachments"]) for one in told] == [64, 0] * 6
    assert [one["content"] for one in told if one["role"] == "user"] == [TEXTS["quotes"], *["short"] * 5]
    thumbnails = [one for one in told[0]["attachments"] if "img_thumbnail" in one]
    assert len(thumbnails) == 4
    (*_, image) = images
    function.get("one attachment", f"/chats/{chat.chat_id}/attachments/{image.attachment_id}")


@pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")
def test_the_largest_page_of_attachments_is_one_that_lambda_can_send(function: Answers, rules: Rules) -> None:
    chat, largest = chats.create(_call(), chats.NewChat(), rules), Thumbnails(max_bytes=262_144).max_bytes
    documents = [_summarized(ready(_call(), _announced(chat, rules, "pdf", number))) for number in range(64)]
    images = [ready(_call(), _announced(chat, rules, "png", number), bytes(largest)) for number in range(36)]
    listed = _travelled(function, "attachments", f"/chats/{chat.chat_id}/attachments")
    made = [*documents, *images]
    assert [one["id"] for one in listed] == [one.attachment_id for one in reversed(made)]
    assert [one["filename"] for one in listed] == [one.filename for one in reversed(made)]
    assert {len(one["filename"]) for one in listed} == {255}
    assert [one.get("doc_summary") for one in listed] == [None] * 36 + [SUMMARY] * 64
    assert all(one["img_thumbnail"]["data_base64"] for one in listed[:36])


@pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")
def test_a_page_that_attachments_fill_to_the_brim_is_one_that_lambda_can_send(function: Answers, rules: Rules) -> None:
    chat = chats.create(_call(), chats.NewChat(), rules)
    # Of a hundred images and what is around them; base64 makes four bytes of three.
    picture = bytes((PAGE_MAX_BYTES // 100 - 1_500) * 3 // 4)
    made = [ready(_call(), _announced(chat, rules, "png", number), picture) for number in range(100)]
    listed = _travelled(function, "attachments to the brim", f"/chats/{chat.chat_id}/attachments")
    assert [one["id"] for one in listed] == [one.attachment_id for one in reversed(made)]
    assert function.largest > 0.99 * PAGE_MAX_BYTES


def _announced(chat: Chat, rules: Rules, extension: str, number: int) -> Attachment:
    kind = {"pdf": "application/pdf", "png": "image/png"}[extension]
    return announced(_call(), chat, rules, kind, f"{NAMES[number % len(NAMES)]}.{extension}")


def _summarized(document: Attachment) -> Attachment:
    """The document with the longest summary that a model can give it."""
    call, summary = _call(), doc_summary.extracted(f"<summary>{SUMMARY}</summary>")
    assert summary == SUMMARY
    task = DocSummaryTask(
        tenant_id=document.tenant_id,
        chat_id=document.chat_id,
        user_id=call.caller.user_id,
        system_request_id=str(uuid4()),
        system_task_type="doc_summary",
        attachment_id=document.attachment_id,
    )
    assert attachment_steps.summarized(call, document, summary, outbox.item(call, document.chat_id, task))
    return document


def _travelled(function: Answers, what: str, path: str) -> list[dict[str, Any]]:
    """All of a list, page by page, and back again."""
    told, cursor = list[dict[str, Any]](), dict[str, str]()
    pages = list[dict[str, Any]]()
    while not pages or pages[-1]["page_info"]["next_cursor"] is not None:
        pages.append(function.get(what, path, limit="100", **cursor))
        assert pages[-1]["items"]
        told += pages[-1]["items"]
        cursor = {"cursor": pages[-1]["page_info"]["next_cursor"] or ""}
    back: list[dict[str, Any]] = pages[-1]["items"]
    while (previous := pages[-1]["page_info"]["prev_cursor"]) is not None:
        pages.append(function.get(f"{what}, backwards", path, limit="100", cursor=previous))
        back = pages[-1]["items"] + back
    assert [one["id"] for one in back] == [one["id"] for one in told]
    return told


@pytest.mark.holds("contract.message-readable")
def test_a_message_that_could_not_be_read_again_is_refused(rules: Rules) -> None:
    chat_id = chats.create(_call(), chats.NewChat(), rules).chat_id
    for name, text in TEXTS.items():
        assert told_bytes(text) <= TOLD_MAX_BYTES
        with pytest.raises(InputTooLong):
            send(_call(), SendMessage(chat_id, text + text[-1] * 2, RequestId(str(uuid4()))), rules)
        assert name


@pytest.mark.holds("contract.answer-readable")
def test_an_answer_that_could_not_be_read_again_ends_as_a_failure(rules: Rules) -> None:
    chat_id = chats.create(_call(), chats.NewChat(), rules).chat_id
    for text in TEXTS.values():
        assert _turn(chat_id, rules, "go on", text + text[-1] * 2) == "message_persistence_failed"
