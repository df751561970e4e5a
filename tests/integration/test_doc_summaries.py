"""Summaries of documents: made once a document is ready, shown with it, told to models, gone with it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.identity import RequestId
from minichat.events.payloads import DocSummaryTask
from minichat.http.response_models import attachment_detail
from minichat.providers.chunks import Failed
from minichat.providers.openai_responses import body
from minichat.services import attachments as files
from minichat.services import chats, doc_summaries
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.system_tasks import TaskDeps, TaskFailed, TaskOutcome
from minichat.settings import Settings, Store
from tests.integration.test_thread_summary import TRACE, Model, means, tells_who_asks, usage_events, with_a_secret
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.services.ready_files import announced, ready, stored
from tests.support.storage.invariants import Tables, violations

CAN_SEARCH = {"tool_support": {"file_search": True}}
RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True}, general_config=CAN_SEARCH)))
TENANT = a_caller().tenant_id


def a_chat() -> Chat:
    return chats.create(a_call(), chats.NewChat(), RULES)


def a_document(chat: Chat, name: str = "moon.pdf") -> Attachment:
    return ready(a_call(), announced(a_call(), chat, RULES, "application/pdf", name))


def a_task(document: Attachment) -> DocSummaryTask:
    return DocSummaryTask(
        tenant_id=document.tenant_id,
        chat_id=document.chat_id,
        user_id=a_caller().user_id,
        system_request_id=str(uuid4()),
        system_task_type="doc_summary",
        attachment_id=document.attachment_id,
    )


def summarized(document: Attachment, model: Model | None = None, rules: Rules = RULES) -> TaskOutcome:
    made = model or Model("<summary>It is about the moon.</summary>")
    means = TaskDeps(rules, made, lambda: a_call().now, new_id, 20)  # type: ignore[arg-type]  # the test's provider
    return asyncio.run(doc_summaries.summarize(a_task(document), "", means))


def test_the_provider_is_told_for_whom_a_document_is_summarized(store: Store) -> None:
    model = Model("<summary>It is about the moon.</summary>")
    task = a_task(a_document(a_chat()))
    assert asyncio.run(doc_summaries.summarize(task, TRACE, means(model, with_a_secret(RULES)))) is TaskOutcome.DONE
    assert tells_who_asks(model, task)


def the_next_turn(chat: Chat, rules: Rules = RULES) -> RunningTurn:
    running = send(a_call(), SendMessage(chat.chat_id, "hello", RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    return running


def test_a_document_is_summarized_once_and_shows_it(store: Store) -> None:
    chat = a_chat()
    document, other = a_document(chat), a_document(chat, "sun.pdf")
    model = Model("<summary>It is about the moon.</summary>")
    assert [summarized(document, model) for _ in range(3)] == [TaskOutcome.DONE, TaskOutcome.LOST, TaskOutcome.LOST]
    (prompt,) = model.prompts
    (search,) = body(prompt)["tools"]
    assert search["filters"] == {"type": "eq", "key": "attachment_id", "value": document.attachment_id}
    assert search["vector_store_ids"] == [document.vector_store_id]
    shown = attachment_detail(files.get(a_call(), chat.chat_id, document.attachment_id)).model_dump(mode="json")
    assert shown["doc_summary"] == "It is about the moon."
    assert shown["summary_updated_at"] > shown["created_at"]
    untouched = attachment_detail(stored(other)).model_dump(mode="json")
    assert not {"doc_summary", "summary_updated_at"} & untouched.keys()
    ((dedupe, used),) = usage_events(store)
    assert dedupe.split("/")[1] == "doc_summary"
    assert (used.requester_type, used.user_id, used.committed_credits_micro) == ("system", None, 0)
    assert violations(Tables.of(store)) == []


def test_a_prompt_tells_of_the_documents_that_its_model_can_search(store: Store) -> None:
    chat = a_chat()
    before = the_next_turn(a_chat())
    document = a_document(chat)
    assert the_next_turn(a_chat()).admission.assembly.documents_note == ""
    assert summarized(document) is TaskOutcome.DONE
    assembly = the_next_turn(chat).admission.assembly
    assert "moon.pdf: It is about the moon." in assembly.documents_note
    assert assembly.estimated_tokens > before.admission.assembly.estimated_tokens


@pytest.mark.parametrize(
    "policy",
    [
        a_policy(a_model(preference={"is_default": True})),
        a_policy(
            a_model(preference={"is_default": True}, general_config=CAN_SEARCH),
            kill_switches={"disable_file_search": True},
        ),
    ],
)
def test_where_nothing_can_be_searched_nothing_is_asked_or_told(store: Store, policy: Any) -> None:
    chat, other = a_chat(), a_chat()
    document, known = a_document(chat), a_document(other)
    assert summarized(known) is TaskOutcome.DONE
    unable, model = Rules(RULES.settings, policy), Model()
    assert summarized(document, model, unable) is TaskOutcome.NOTHING
    assert model.prompts == []
    assert the_next_turn(other, unable).admission.assembly.documents_note == ""


def test_a_deployment_may_tell_models_nothing_of_documents(store: Store) -> None:
    chat = a_chat()
    assert summarized(a_document(chat)) is TaskOutcome.DONE
    silent = Rules(Settings.model_validate({"doc_summaries": {"note_max_bytes": 0}}), RULES.policy)
    assert the_next_turn(chat, silent).admission.assembly.documents_note == ""


def test_an_image_and_a_file_that_cannot_be_searched_are_not_summarized(store: Store) -> None:
    chat, model = a_chat(), Model()
    image = ready(a_call(), announced(a_call(), chat, RULES, "image/png", "sea.png"), b"small")
    waiting = announced(a_call(), chat, RULES, "application/pdf", "moon.pdf")
    assert [summarized(one, model) for one in (image, waiting)] == [TaskOutcome.NOTHING] * 2
    assert model.prompts == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_deleted_document_and_one_of_a_deleted_chat_get_none(store: Store, when: str) -> None:
    chat, gone = a_chat(), a_chat()
    document, of_gone = a_document(chat), a_document(gone)

    def delete_document() -> None:
        files.delete(a_call(), chat.chat_id, document.attachment_id)

    def delete_chat() -> None:
        chats.delete(a_call(), gone.chat_id)

    deeds: list[tuple[Attachment, Callable[[], None]]] = [(document, delete_document), (of_gone, delete_chat)]
    for one, deed in deeds:
        if when == "before":
            deed()
            assert summarized(one) is TaskOutcome.GONE
        else:
            assert summarized(one, Model("<summary>Late.</summary>", meanwhile=deed)) is TaskOutcome.LOST
        assert stored(one).summary is None
    assert usage_events(store) == []


def test_the_summary_of_a_deleted_document_is_gone_with_it(store: Store) -> None:
    chat = a_chat()
    document = a_document(chat)
    assert summarized(document) is TaskOutcome.DONE
    files.delete(a_call(), chat.chat_id, document.attachment_id)
    assert "about the moon" not in str(Tables.of(store).conversations)
    assert the_next_turn(chat).admission.assembly.documents_note == ""


def test_of_eight_deliveries_at_once_one_is_the_summary(store: Store) -> None:
    document = a_document(a_chat())
    with ThreadPoolExecutor(8) as pool:
        said = [Model(f"<summary>Number {number}.</summary>") for number in range(8)]
        outcomes = list(pool.map(lambda model: summarized(document, model), said))
    assert sorted(outcomes) == [*[TaskOutcome.LOST] * 7, TaskOutcome.DONE]
    assert len(usage_events(store)) == 1


def test_an_odd_answer_leaves_the_document_without_and_a_failure_is_tried_again(store: Store) -> None:
    document = a_document(a_chat())
    assert summarized(document, Model("I found nothing.")) is TaskOutcome.NOTHING
    with pytest.raises(TaskFailed, match="oops"):
        summarized(document, Model(Failed("provider_error", "oops")))
    assert summarized(document) is TaskOutcome.DONE
