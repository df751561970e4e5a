"""Messages with files over HTTP: what the provider is asked, what is refused, what lists show, what stays locked."""

import io
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from minichat.settings import Store
from tests.support.http.client import Stack, User
from tests.support.http.given_files import (
    ENDS_SECONDS,
    PDF,
    a_document,
    a_picture,
    announced,
    ended,
    posted,
    refused,
    uploaded,
)
from tests.support.providers.requests import Requests, a_stack_whose_requests_are_kept
from tests.support.storage.invariants import Tables, violations

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Requests]]:
    """A stack, and what its provider was asked; what its tables say in the end is sound."""
    with a_stack_whose_requests_are_kept(tmp_path_factory.mktemp("kept")) as (stack, requests):
        yield stack, requests
        assert violations(Tables.of(Store(endpoint=stack.about["engine_url"]))) == []


@pytest.fixture
def ann(kept: tuple[Stack, Requests]) -> Iterator[User]:
    with kept[0].user() as one:
        yield one


@pytest.fixture
def requests(kept: tuple[Stack, Requests]) -> Requests:
    return kept[1]


def a_pdf(user: User, chat_id: str) -> str:
    return str(ended(user, chat_id, uploaded(user, chat_id).json())["id"])


def an_image(user: User, chat_id: str) -> str:
    return str(ended(user, chat_id, uploaded(user, chat_id, a_picture(), "sea.png", "image/png").json())["id"])


def asked(requests: Requests, text: str) -> dict[str, Any]:
    """The one request whose last message has this text in it."""
    (body,) = requests.about(text)
    return body


def images_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for message in body["input"] for part in message["content"] if part["type"] == "input_image"]


@pytest.mark.parametrize("way", ["in the request", "by a form"])
def test_a_pdf_is_searched_for_the_answer_to_the_message_and_to_those_after(
    ann: User, requests: Requests, way: str
) -> None:
    chat_id, first, second = ann.new_chat(), uuid4().hex, uuid4().hex
    if way == "by a form":
        made = announced(ann, chat_id).json()
        assert posted(made["upload"], PDF) == 204
        attachment_id = ended(ann, chat_id, made)["id"]
    else:
        attachment_id = a_pdf(ann, chat_id)
    assert ann.send(chat_id, first, attachment_ids=[attachment_id]).names[-1] == "done"
    assert ann.send(chat_id, second).names[-1] == "done"
    for text in (first, second):
        body = asked(requests, text)
        (tool,) = body["tools"]
        (store,) = tool.pop("vector_store_ids")
        assert tool == {"type": "file_search", "max_num_results": 5}
        assert store.startswith("vs_")
        assert body["max_tool_calls"] == 2
        assert "documents" in body["instructions"]
    told = json.dumps(ann.messages(chat_id))
    assert not any(word in told for word in ("file-", "vs_"))


def test_an_answer_cites_the_document_by_its_own_name_and_id(ann: User) -> None:
    chat_id, request_id = ann.new_chat(), str(uuid4())
    attachment_id = a_pdf(ann, chat_id)
    said = {"request_id": request_id, "attachment_ids": [attachment_id]}
    answer = ann.send(chat_id, "[[tool:file_search]][[say:Far.]]", **said)
    again = ann.send(chat_id, "[[tool:file_search]][[say:Far.]]", **said)
    assert answer.names == ["stream_started", "tool", "tool", "delta", "citations", "done"]
    (cited,) = answer.events[-2].data["items"]
    assert (cited["source"], cited["title"], cited["attachment_id"]) == ("file", "moon.pdf", attachment_id)
    assert again.events[-2].data == answer.events[-2].data


@pytest.mark.holds("contract.tool-details")
def test_tools_tell_what_they_did_and_so_do_a_replay_and_a_resumed_stream(ann: User) -> None:
    chat_id, request_id = ann.new_chat(), str(uuid4())
    pdf = a_pdf(ann, chat_id)
    sheet = ended(ann, chat_id, uploaded(ann, chat_id, a_document(), "moons.xlsx", XLSX).json())["id"]
    content = "[[query:how far is  the moon]][[output:384,400\n]][[say:Far.]]"
    said = {"request_id": request_id, "attachment_ids": [pdf, sheet], "web_search": {"enabled": True}}
    answer = ann.send(chat_id, content, **said)
    done = {event.data["name"]: event.data["details"] for event in answer.events if event.data.get("phase") == "done"}
    assert done == {
        "file_search": {"files_searched": [{"attachment_id": pdf, "title": "moon.pdf"}]},
        "web_search": {"query": "how far is the moon"},
        "code_interpreter": {"output": "384,400\n"},
    }
    tools = [event for event in answer.events if event.name == "tool"]
    for again in (ann.send(chat_id, content, **said), ann.resume(chat_id, request_id, None)):
        assert [event for event in again.events if event.name == "tool"] == tools
    assert ann.resume(chat_id, request_id, 2).events == answer.events[2:]


def test_a_model_is_told_what_the_documents_of_a_chat_are_about(ann: User, requests: Requests) -> None:
    chat_id, text = ann.new_chat(), uuid4().hex
    path = f"/chats/{chat_id}/attachments/{a_pdf(ann, chat_id)}"
    until = time.monotonic() + ENDS_SECONDS
    while "doc_summary" not in ann.http.get(path).json():
        assert time.monotonic() < until
        time.sleep(0.1)
    ann.send(chat_id, text)
    told = [part["text"] for part in asked(requests, text)["input"][-1]["content"]]
    assert told[-1] == text
    assert "<document>moon.pdf: A document called moon.pdf.</document>" in told[0]


def test_a_chat_without_documents_offers_no_tool(ann: User, requests: Requests) -> None:
    text = uuid4().hex
    ann.send(ann.new_chat(), text)
    body = asked(requests, text)
    assert "tools" not in body
    assert "max_tool_calls" not in body
    assert "documents" not in body["instructions"]


def test_an_image_is_shown_with_its_message_and_not_again(ann: User, requests: Requests) -> None:
    chat_id, first, second = ann.new_chat(), uuid4().hex, uuid4().hex
    images = [an_image(ann, chat_id) for _ in range(2)]
    ann.send(chat_id, first, attachment_ids=images)
    ann.send(chat_id, second)
    shown = images_in(asked(requests, first))
    assert [(one["type"], one["detail"], one["file_id"][:5]) for one in shown] == [("input_image", "auto", "file-")] * 2
    assert shown[0]["file_id"] != shown[1]["file_id"]
    assert images_in(asked(requests, second)) == []


def test_a_spreadsheet_is_computed_with(ann: User, requests: Requests) -> None:
    chat_id, text = ann.new_chat(), uuid4().hex
    sheet = ended(ann, chat_id, uploaded(ann, chat_id, a_document(), "moons.xlsx", XLSX).json())
    ann.send(chat_id, text, attachment_ids=[sheet["id"]])
    (tool,) = asked(requests, text)["tools"]
    (file_id,) = tool["container"].pop("file_ids")
    assert tool == {"type": "code_interpreter", "container": {"type": "auto"}}
    assert file_id.startswith("file-")


@pytest.mark.holds("contract.keeps-attachments")
def test_retry_and_edit_take_the_attachments_along(ann: User, requests: Requests) -> None:
    chat_id, first, second = ann.new_chat(), uuid4().hex, uuid4().hex
    ids = [an_image(ann, chat_id), a_pdf(ann, chat_id)]
    turn = ann.send(chat_id, first, attachment_ids=ids).request_id
    turn = ann.retry(chat_id, turn).request_id
    turn = ann.edit(chat_id, turn, second).request_id
    before, again = requests.about(first)
    edited = asked(requests, second)
    assert len(images_in(before)) == 1
    assert images_in(before) == images_in(again) == images_in(edited)
    assert before["tools"] == again["tools"] == edited["tools"]
    (question, _) = ann.messages(chat_id)
    assert [one["attachment_id"] for one in question["attachments"]] == ids
    for one in ids:
        refused(ann.http.delete(f"/chats/{chat_id}/attachments/{one}"), 409, "attachment_locked")
    assert ann.delete(chat_id, turn).status_code == 204
    for one in ids:
        assert ann.http.delete(f"/chats/{chat_id}/attachments/{one}").status_code == 204


def test_an_attachment_of_a_message_is_locked_and_another_is_not(ann: User) -> None:
    chat_id = ann.new_chat()
    sent, unsent = a_pdf(ann, chat_id), a_pdf(ann, chat_id)
    ann.send(chat_id, "What is this?", attachment_ids=[sent])
    refused(ann.http.delete(f"/chats/{chat_id}/attachments/{sent}"), 409, "attachment_locked")
    assert ann.http.delete(f"/chats/{chat_id}/attachments/{unsent}").status_code == 204
    refused(ann.http.get(f"/chats/{chat_id}/attachments/{unsent}"), 404, "attachment_not_found")


def test_a_deleted_chat_takes_along_what_its_messages_were_sent_with(ann: User, requests: Requests) -> None:
    chat_id = ann.new_chat()
    ann.send(chat_id, "What are these?", attachment_ids=[a_pdf(ann, chat_id), an_image(ann, chat_id)])
    assert len(requests.files_of(chat_id)) == 2
    assert ann.http.delete(f"/chats/{chat_id}").status_code == 204
    until = time.monotonic() + ENDS_SECONDS
    while requests.files_of(chat_id):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_lists_show_what_a_message_was_sent_with(ann: User) -> None:
    chat_id = ann.new_chat()
    image, document = an_image(ann, chat_id), a_pdf(ann, chat_id)
    ann.send(chat_id, "What is this?", attachment_ids=[document, image])
    question, answer = ann.messages(chat_id)
    assert answer["attachments"] == []
    first, second = question["attachments"]
    assert first == {"attachment_id": document, "kind": "document", "filename": "moon.pdf", "status": "ready"}
    assert second["img_thumbnail"]["content_type"] == "image/webp"
    assert (second["img_thumbnail"]["width"], second["img_thumbnail"]["height"]) == (128, 85)
    (selected,) = ann.messages(chat_id, **{"$select": "attachments", "$filter": "role eq 'user'"})
    assert selected == {"attachments": question["attachments"]}


def test_refused_messages_leave_no_trace(kept: tuple[Stack, Requests], ann: User, requests: Requests) -> None:
    chat_id, text = ann.new_chat(), uuid4().hex
    pending = announced(ann, chat_id).json()["id"]
    good = a_pdf(ann, chat_id)
    deleted = a_pdf(ann, chat_id)
    assert ann.http.delete(f"/chats/{chat_id}/attachments/{deleted}").status_code == 204
    elsewhere = a_pdf(ann, ann.new_chat())
    with kept[0].user() as stranger:
        theirs = a_pdf(stranger, stranger.new_chat())
    before, quota = ann.chat(chat_id), ann.http.get("/quota/status").json()
    path = f"/chats/{chat_id}/messages:stream"

    def is_refused(code: str, *ids: str) -> None:
        answer = ann.http.post(path, json={"content": text, "attachment_ids": list(ids)})
        refused(answer, 400, code, "attachment_ids")

    for wrong in (pending, deleted, elsewhere, theirs, str(uuid4())):
        is_refused("invalid_attachment", good, wrong)
    is_refused("invalid_request", good, good.upper())
    is_refused("invalid_request", *(str(uuid4()) for _ in range(65)))
    assert (ann.chat(chat_id), ann.http.get("/quota/status").json()) == (before, quota)
    assert ann.messages(chat_id) == []
    assert requests.about(text) == []


def test_more_images_than_a_message_may_have_are_refused(ann: User) -> None:
    chat_id = ann.new_chat()
    made = [uploaded(ann, chat_id, a_picture(), "sea.png", "image/png").json() for _ in range(5)]
    images = [ended(ann, chat_id, one)["id"] for one in made]
    path = f"/chats/{chat_id}/messages:stream"
    problem = refused(ann.http.post(path, json={"content": "?", "attachment_ids": images}), 400, "too_many_images")
    assert "4" in problem["detail"]
    assert ann.send(chat_id, "?", attachment_ids=images[:4]).names[-1] == "done"


def test_a_model_without_eyes_refuses_an_image_but_no_document(ann: User, requests: Requests) -> None:
    chat_id, text = ann.new_chat(model="gpt-4.1-nano"), uuid4().hex
    path = f"/chats/{chat_id}/messages:stream"
    image, document = an_image(ann, chat_id), a_pdf(ann, chat_id)
    refused(ann.http.post(path, json={"content": text, "attachment_ids": [image]}), 415, "unsupported_media")
    assert requests.about(text) == []
    # The model supports no search of files: the document is the message's all the same.
    assert ann.send(chat_id, text, attachment_ids=[document]).names[-1] == "done"
    assert "tools" not in asked(requests, text)


def test_a_completed_turn_is_replayed_only_with_the_same_attachments(ann: User) -> None:
    chat_id, request_id = ann.new_chat(), str(uuid4())
    one, other = a_pdf(ann, chat_id), a_pdf(ann, chat_id)
    said = {"request_id": request_id, "attachment_ids": [one]}
    first = ann.send(chat_id, "[[say:Yes.]]", **said)
    again = ann.send(chat_id, "[[say:Yes.]]", **said)
    assert (first.text, again.text, again.events[0].data["is_new_turn"]) == ("Yes.", "Yes.", False)
    reused = ann.send(chat_id, "[[say:Yes.]]", request_id=request_id, attachment_ids=[other])
    assert (reused.status, reused.problem["code"]) == (422, "request_id_reused")


def test_a_message_that_arrives_too_early_can_be_sent_again_once_its_file_is_ready(ann: User) -> None:
    chat_id, request_id = ann.new_chat(), str(uuid4())
    written = io.BytesIO()
    Image.new("RGB", (10, 10)).save(written, "GIF")
    content = written.getvalue()
    image = {"filename": "a.gif", "content_type": "image/gif", "size_bytes": len(content)}
    made = announced(ann, chat_id, **image).json()
    said = {"request_id": request_id, "attachment_ids": [made["id"]]}
    early = ann.send(chat_id, "?", **said)
    assert (early.status, early.problem["errors"][0]["code"]) == (400, "not_ready")
    assert posted(made["upload"], content) == 204
    ended(ann, chat_id, made)
    assert ann.send(chat_id, "?", **said).names[-1] == "done"
