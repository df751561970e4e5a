"""Cleanup against the engine and the scripted provider: it may fail, stop anywhere, run twice, and nothing is left."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Literal

import pytest

from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.cleanup import Cleanup, CleanupOutcome, CleanupStatus
from minichat.domain.identity import AttachmentId, ChatId
from minichat.events.payloads import AttachmentCleanup
from minichat.providers.files import Files
from minichat.services import chats
from minichat.services.chat_purge import ChatNotDeleted
from minichat.services.policy_in_force import Rules
from minichat.services.provider_cleanup import AttachmentNotDeleted, CleanupDeps, clean_attachment, clean_chat_resources
from minichat.settings import CleanupSettings, Store
from minichat.storage import attachments, keys, vector_stores
from minichat.storage.attachment_items import AttachmentItem
from minichat.storage.transact import commit, update_one
from minichat.storage.vector_stores import VectorStoreItem
from tests.support.domain.builders import NOW, a_call, a_caller, a_policy, new_id, unhurried
from tests.support.patience import PATIENCE
from tests.support.providers.calls import an_entry
from tests.support.providers.files import (
    a_file,
    a_scripted_provider,
    a_vector_store,
    deletions,
    exists,
    files_at,
    files_of,
    is_in,
)
from tests.support.storage.faults import Killed, answers_lost, counted_calls, killed, side_by_side
from tests.support.storage.invariants import Tables

RULES = Rules(unhurried(), a_policy())
FOREVER = NOW + timedelta(days=365)
PENDING = Cleanup(CleanupStatus.PENDING)


@pytest.fixture(scope="module")
def scripted_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as url:
        yield url


@pytest.fixture
def files(scripted_provider: str) -> Iterator[Files]:
    with files_at(scripted_provider) as client:
        yield client


def means(files: Files, max_attempts: int = 5) -> CleanupDeps:
    """The means with a clock that never says the same twice."""
    return CleanupDeps(files, CleanupSettings(max_attempts=max_attempts), lambda: a_call().now)


def a_stored(chat_id: ChatId, file_id: str | None, **said: Any) -> Attachment:
    """An attachment that its user deleted."""
    values: dict[str, Any] = {
        "tenant_id": a_caller().tenant_id,
        "chat_id": chat_id,
        "attachment_id": AttachmentId(new_id(NOW)),
        "kind": "document",
        "storage_backend": "it",
        "provider_file_id": file_id,
        "deleted_at": NOW,
        "cleanup": PENDING,
    }
    attachment = Attachment(**(values | said))
    commit([attachments.put(attachment)], token=new_id(NOW))
    return attachment


def a_living(chat_id: ChatId, file_id: str | None, **said: Any) -> Attachment:
    """An attachment that nobody deleted."""
    return a_stored(chat_id, file_id, deleted_at=None, cleanup=Cleanup(), **said)


def a_stored_vector_store(chat_id: ChatId, store_id: str | None, provider: str = "it") -> VectorStore:
    store = VectorStore(a_caller().tenant_id, chat_id, provider, store_id)
    commit([vector_stores.put(store)], token=new_id(NOW))
    return store


def event(attachment: Attachment, **said: Any) -> AttachmentCleanup:
    values: dict[str, Any] = {
        "tenant_id": attachment.tenant_id,
        "chat_id": attachment.chat_id,
        "attachment_id": attachment.attachment_id,
        "provider_file_id": attachment.provider_file_id,
        "vector_store_id": attachment.vector_store_id,
        "storage_backend": attachment.storage_backend,
        "attachment_kind": attachment.kind,
        "deleted_at": NOW,
    }
    return AttachmentCleanup(**(values | said))


def stored(attachment: Attachment) -> Attachment:
    found = attachments.read(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    assert found is not None
    return found


def state(attachment: Attachment) -> tuple[CleanupStatus | None, int, str | None]:
    cleanup = stored(attachment).cleanup
    return cleanup.status, cleanup.attempts, cleanup.last_error


def a_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def a_deleted_chat(chat_id: ChatId) -> ChatId:
    chats.delete(a_call(), chat_id)
    return chat_id


def clean(chat_id: ChatId, means: CleanupDeps, *, ends_at: datetime = FOREVER) -> CleanupOutcome:
    return clean_chat_resources(a_caller().tenant_id, chat_id, means, ends_at=ends_at)


def test_a_deleted_document_leaves_its_vector_store_first_and_then_goes(
    store: Store, scripted_provider: str, files: Files
) -> None:
    file, other = a_file(scripted_provider), a_file(scripted_provider)
    vs = a_vector_store(scripted_provider, file, other)
    attachment = a_stored(a_chat(), file, vector_store_id=vs)
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.DONE
    assert deletions(scripted_provider, file) == [(f"vector_stores/{vs}/files/{file}", 200), (f"files/{file}", 200)]
    assert is_in(scripted_provider, vs, other)
    assert exists(scripted_provider, other)
    assert state(attachment) == (CleanupStatus.DONE, 0, None)
    assert stored(attachment).cleanup.updated_at is not None


def test_what_the_provider_does_not_have_any_more_is_cleaned_up(
    store: Store, scripted_provider: str, files: Files
) -> None:
    attachment = a_stored(a_chat(), "file-gone", vector_store_id="vs_gone")
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.DONE
    assert {status for _, status in deletions(scripted_provider, "file-gone")} == {404}
    assert state(attachment) == (CleanupStatus.DONE, 0, None)


def test_what_no_provider_ever_had_needs_no_provider(store: Store, scripted_provider: str, files: Files) -> None:
    attachment = a_stored(a_chat(), None, storage_backend="nobody")
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.DONE
    assert state(attachment) == (CleanupStatus.DONE, 0, None)


@pytest.mark.parametrize(("marker", "where"), [("fail-503x1", "file"), ("stuck-429x1", "vector store")])
def test_a_provider_in_trouble_is_tried_again_and_then_succeeds(
    store: Store, scripted_provider: str, files: Files, marker: str, where: str
) -> None:
    file = a_file(scripted_provider, marker)
    vs = a_vector_store(scripted_provider, file)
    attachment = a_stored(a_chat(), file, vector_store_id=vs)
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.PENDING
    reason = f"{where}: status {marker.split('-')[1].split('x', maxsplit=1)[0]}"
    assert state(attachment) == (CleanupStatus.PENDING, 1, reason)
    assert exists(scripted_provider, file)
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.DONE
    assert state(attachment) == (CleanupStatus.DONE, 1, reason)
    assert not exists(scripted_provider, file)
    assert not is_in(scripted_provider, vs, file)


def test_a_provider_that_fails_five_times_is_asked_until_it_deletes(
    store: Store, scripted_provider: str, files: Files
) -> None:
    file = a_file(scripted_provider, "fail-503x5")
    attachment = a_stored(a_chat(), file)
    patient = CleanupDeps(files, CleanupSettings(), lambda: a_call().now)
    outcomes = [clean_attachment(event(attachment), patient) for _ in range(7)]
    assert outcomes == [CleanupOutcome.PENDING] * 5 + [CleanupOutcome.DONE, CleanupOutcome.ALREADY_TERMINAL]
    assert state(attachment) == (CleanupStatus.DONE, 5, "file: status 503")
    assert not exists(scripted_provider, file)


def test_a_refusal_that_will_not_change_is_an_end_at_once(store: Store, scripted_provider: str, files: Files) -> None:
    file = a_file(scripted_provider, "fail-400")
    attachment = a_stored(a_chat(), file)
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.FAILED
    assert state(attachment) == (CleanupStatus.FAILED, 1, "file: status 400")
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.ALREADY_TERMINAL
    assert len(deletions(scripted_provider, file)) == 1


def test_attempts_are_used_up(store: Store, scripted_provider: str, files: Files) -> None:
    file = a_file(scripted_provider, "fail-503")
    attachment = a_stored(a_chat(), file)
    outcomes = [clean_attachment(event(attachment), means(files, max_attempts=3)) for _ in range(4)]
    assert outcomes == [
        CleanupOutcome.PENDING,
        CleanupOutcome.PENDING,
        CleanupOutcome.FAILED,
        CleanupOutcome.ALREADY_TERMINAL,
    ]
    assert state(attachment) == (CleanupStatus.FAILED, 3, "file: status 503")
    assert len(deletions(scripted_provider, file)) == 3


def test_an_event_that_comes_again_does_nothing(store: Store, scripted_provider: str, files: Files) -> None:
    file = a_file(scripted_provider)
    attachment = a_stored(a_chat(), file)
    clean_attachment(event(attachment), means(files))
    before = Tables.of(store)
    with counted_calls() as calls:
        assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.ALREADY_TERMINAL
    assert calls == ["BatchGetItem"]
    assert Tables.of(store) == before
    assert len(deletions(scripted_provider, file)) == 1


def test_killed_between_the_provider_and_the_table_it_ends_the_next_time(
    store: Store, scripted_provider: str, files: Files
) -> None:
    file = a_file(scripted_provider)
    vs = a_vector_store(scripted_provider, file)
    attachment = a_stored(a_chat(), file, vector_store_id=vs)
    with killed("before", "UpdateItem"), pytest.raises(Killed):
        clean_attachment(event(attachment), means(files))
    assert not exists(scripted_provider, file)
    assert state(attachment) == (CleanupStatus.PENDING, 0, None)
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.DONE
    assert [status for _, status in deletions(scripted_provider, file)] == [200, 200, 404, 404]


def test_an_answer_that_was_lost_is_not_another_attempt(store: Store, scripted_provider: str, files: Files) -> None:
    for marker, outcome, attempts in (
        ("", CleanupOutcome.DONE, 0),
        ("fail-503", CleanupOutcome.PENDING, 1),
        ("fail-400", "failed", 1),
    ):
        attachment = a_stored(a_chat(), a_file(scripted_provider, marker))
        with answers_lost("UpdateItem", 1):
            assert clean_attachment(event(attachment), means(files)) == outcome
        assert stored(attachment).cleanup.attempts == attempts


def at_once(attachment: Attachment, files: Files, workers: int = 8) -> list[CleanupOutcome]:
    """The outcomes of as many workers that got the same event at the same moment."""
    start = threading.Barrier(workers, timeout=PATIENCE)

    def work(_: int) -> CleanupOutcome:
        start.wait()
        return clean_attachment(event(attachment), means(files))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(workers)))


def test_of_eight_workers_with_the_same_event_one_reports_it_done(
    store: Store, scripted_provider: str, files: Files
) -> None:
    for _ in range(10):
        file = a_file(scripted_provider)
        vs = a_vector_store(scripted_provider, file)
        attachment = a_stored(a_chat(), file, vector_store_id=vs)
        # They meet at the table: each of them has asked the provider by then.
        with side_by_side({"UpdateItem"}, 8):
            outcomes = at_once(attachment, files)
        assert sorted(outcomes) == [CleanupOutcome.ALREADY_TERMINAL] * 7 + [CleanupOutcome.DONE]
        assert state(attachment) == (CleanupStatus.DONE, 0, None)
        assert sorted(status for _, status in deletions(scripted_provider, file)) == [200] * 2 + [404] * 14


def test_eight_failures_at_the_same_moment_are_one_attempt(store: Store, scripted_provider: str, files: Files) -> None:
    attachment = a_stored(a_chat(), a_file(scripted_provider, "fail-503"))
    with side_by_side({"UpdateItem"}, 8):
        assert at_once(attachment, files) == [CleanupOutcome.PENDING] * 8
    assert state(attachment) == (CleanupStatus.PENDING, 1, "file: status 503")


def test_a_success_counts_although_another_worker_failed_meanwhile(
    store: Store, scripted_provider: str, files: Files
) -> None:
    for _ in range(5):
        file = a_file(scripted_provider, "fail-503x1")
        attachment = a_stored(a_chat(), file)
        outcomes = at_once(attachment, files)
        assert outcomes.count(CleanupOutcome.DONE) == 1
        assert stored(attachment).cleanup.status is CleanupStatus.DONE
        assert not exists(scripted_provider, file)


def interrupted(happens: Callable[[], object], files: Files, *, at_look: int) -> CleanupDeps:
    """The means with something that happens at this look at the clock; the last look is before a state is stored."""
    looks = count(1)

    def clock() -> datetime:
        if next(looks) == at_look:
            happens()
        return a_call().now

    return CleanupDeps(files, CleanupSettings(), clock)


def named(item: AttachmentItem | VectorStoreItem, **ids: str) -> None:
    """Sets provider ids on an item, as an upload that is under way would."""
    actions = [getattr(type(item), name).set(value) for name, value in ids.items()]
    assert update_one(item, actions, type(item).pk.exists())


def test_a_failure_that_is_told_late_does_not_turn_the_count_back(
    store: Store, scripted_provider: str, files: Files
) -> None:
    attachment = a_stored(a_chat(), a_file(scripted_provider, "fail-503"))

    def others() -> None:
        for _ in range(3):
            clean_attachment(event(attachment), means(files))

    assert clean_attachment(event(attachment), interrupted(others, files, at_look=1)) is CleanupOutcome.PENDING
    assert state(attachment) == (CleanupStatus.PENDING, 3, "file: status 503")


@pytest.mark.parametrize("attribute", ["provider_file_id", "vector_store_id"])
def test_what_the_provider_gets_while_the_attachment_is_cleaned_up_goes_too(
    store: Store, scripted_provider: str, files: Files, attribute: str
) -> None:
    attachment = a_stored(a_chat(), None)
    key = keys.attachment(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    file = a_file(scripted_provider)
    ids = {"provider_file_id": file, "vector_store_id": a_vector_store(scripted_provider, file)}
    change = {attribute: ids[attribute]}
    late = interrupted(lambda: named(AttachmentItem(*key), **change), files, at_look=1)
    assert clean_attachment(event(attachment), late) is CleanupOutcome.PENDING
    assert state(attachment) == (CleanupStatus.PENDING, 0, None)
    assert clean_attachment(event(attachment), late) is CleanupOutcome.DONE
    assert exists(scripted_provider, file) is (attribute == "vector_store_id")


def test_a_vector_store_that_is_made_while_its_chat_is_cleaned_up_goes_too(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id, vs = a_chat(), a_vector_store(scripted_provider)
    claimed = a_stored_vector_store(chat_id, None)
    a_deleted_chat(chat_id)
    item = VectorStoreItem(*keys.vector_store(claimed.tenant_id, chat_id, claimed.provider))
    # The first look at the clock is for the time that is left.
    late = interrupted(lambda: named(item, vector_store_id=vs), files, at_look=2)
    assert clean(chat_id, late) is CleanupOutcome.PENDING
    assert exists(scripted_provider, vs)
    assert clean(chat_id, late) is CleanupOutcome.DONE
    assert not exists(scripted_provider, vs)


def test_another_tenants_id_touches_nothing(store: Store, scripted_provider: str, files: Files) -> None:
    file = a_file(scripted_provider)
    vs = a_vector_store(scripted_provider, file)
    chat_id = a_chat()
    attachment = a_stored(chat_id, file, vector_store_id=vs)
    a_stored_vector_store(chat_id, vs)
    a_deleted_chat(chat_id)
    stranger = a_caller(tenant=9).tenant_id
    before = Tables.of(store)
    assert clean_attachment(event(attachment, tenant_id=stranger), means(files)) is CleanupOutcome.ALREADY_TERMINAL
    assert clean_attachment(event(attachment, chat_id=new_id(NOW)), means(files)) is CleanupOutcome.ALREADY_TERMINAL
    assert clean_chat_resources(stranger, chat_id, means(files), ends_at=FOREVER) is CleanupOutcome.ALREADY_TERMINAL
    assert Tables.of(store) == before
    assert deletions(scripted_provider, file, vs) == []


def test_what_an_event_says_of_the_provider_does_not_count(store: Store, scripted_provider: str, files: Files) -> None:
    mine, others = a_file(scripted_provider), a_file(scripted_provider)
    attachment = a_stored(a_chat(), mine)
    clean_attachment(event(attachment, provider_file_id=others, vector_store_id="vs_other"), means(files))
    assert exists(scripted_provider, others)
    assert not exists(scripted_provider, mine)


def test_what_lives_is_not_cleaned_up(store: Store, scripted_provider: str, files: Files) -> None:
    file = a_file(scripted_provider)
    attachment = a_living(a_chat(), file)
    with pytest.raises(AttachmentNotDeleted):
        clean_attachment(event(attachment), means(files))
    with pytest.raises(ChatNotDeleted):
        clean(attachment.chat_id, means(files))
    assert deletions(scripted_provider, file) == []


def test_an_attachment_of_a_deleted_chat_is_left_to_nobody_else(
    store: Store, scripted_provider: str, files: Files
) -> None:
    file = a_file(scripted_provider)
    attachment = a_stored(a_chat(), file)
    a_deleted_chat(attachment.chat_id)
    assert clean_attachment(event(attachment), means(files)) is CleanupOutcome.DONE
    assert not exists(scripted_provider, file)


def test_nothing_of_a_deleted_chat_remains_at_its_providers(store: Store, scripted_provider: str, files: Files) -> None:
    chat_id, gone = a_chat(), [a_file(scripted_provider) for _ in range(60)]
    vs = a_vector_store(scripted_provider, *gone)
    documents = [a_living(chat_id, file, vector_store_id=vs) for file in gone[:57]]
    image = a_living(chat_id, gone[57], kind="image")
    deleted = [a_stored(chat_id, gone[58], vector_store_id=vs), a_stored(chat_id, gone[59])]
    unfinished = a_living(chat_id, None)
    a_stored_vector_store(chat_id, vs)
    claimed = a_stored_vector_store(chat_id, None, provider="other")
    kept = a_living(a_chat(), a_file(scripted_provider))
    assert clean(a_deleted_chat(chat_id), means(files)) is CleanupOutcome.DONE
    assert not any(exists(scripted_provider, one) for one in (*gone, vs))
    assert {state(one)[0] for one in (*documents, image, *deleted, unfinished)} == {CleanupStatus.DONE}
    stores = vector_stores.of_chat(claimed.tenant_id, chat_id)
    assert all(isinstance(one, VectorStore) and one.gone_at for one in stores)
    assert deletions(scripted_provider, vs)[-1] == (f"vector_stores/{vs}", 200)
    assert state(kept) == (None, 0, None)
    with counted_calls() as calls:
        assert clean(chat_id, means(files)) is CleanupOutcome.DONE
    assert set(calls) == {"BatchGetItem", "Query"}
    assert len(deletions(scripted_provider, vs)) == 59


def test_one_attachment_in_trouble_keeps_no_other_but_the_vector_stores_waiting(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id = a_chat()
    stuck, good = a_file(scripted_provider, "fail-503x1"), a_file(scripted_provider)
    vs = a_vector_store(scripted_provider)
    a_living(chat_id, stuck), a_living(chat_id, good)
    a_stored_vector_store(chat_id, vs)
    a_deleted_chat(chat_id)
    assert clean(chat_id, means(files)) is CleanupOutcome.PENDING
    assert [exists(scripted_provider, one) for one in (stuck, good, vs)] == [True, False, True]
    assert clean(chat_id, means(files)) is CleanupOutcome.DONE
    assert [exists(scripted_provider, one) for one in (stuck, good, vs)] == [False, False, False]


def test_attachments_that_failed_do_not_keep_the_vector_stores_and_are_told_of(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id = a_chat()
    file, vs = a_file(scripted_provider, "fail-400"), a_vector_store(scripted_provider)
    failed = a_living(chat_id, file)
    a_stored_vector_store(chat_id, vs)
    a_stored_vector_store(chat_id, "vs_gone-too", provider="it too")
    with files_of(**{"it": an_entry(scripted_provider), "it too": an_entry(scripted_provider)}) as both:
        assert clean(a_deleted_chat(chat_id), means(both)) is CleanupOutcome.FAILED
    assert state(failed)[0] is CleanupStatus.FAILED
    assert not exists(scripted_provider, vs)
    assert deletions(scripted_provider, "vs_gone-too") == [("vector_stores/vs_gone-too", 404)]


def test_a_vector_store_in_trouble_is_tried_again_and_one_that_is_refused_fails(
    store: Store, scripted_provider: str, files: Files
) -> None:
    busy, refused = (
        a_vector_store(scripted_provider, marker="fail-503x1"),
        a_vector_store(scripted_provider, marker="fail-400"),
    )
    for store_id, outcomes in ((busy, ["pending", "done"]), (refused, ["failed", "failed"])):
        chat_id = a_chat()
        a_stored_vector_store(chat_id, store_id)
        a_deleted_chat(chat_id)
        assert [clean(chat_id, means(files)) for _ in outcomes] == outcomes


def test_a_store_that_is_refused_is_told_once_nothing_else_is_left_to_try(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id = a_chat()
    refused, busy = (a_vector_store(scripted_provider, marker=marker) for marker in ("fail-400", "fail-503x1"))
    a_stored_vector_store(chat_id, refused, provider="it")
    a_stored_vector_store(chat_id, busy, provider="it too")
    a_deleted_chat(chat_id)
    with files_of(**{"it": an_entry(scripted_provider), "it too": an_entry(scripted_provider)}) as both:
        assert clean(chat_id, means(both), ends_at=a_call().now + timedelta(seconds=2)) is CleanupOutcome.PENDING
        assert deletions(scripted_provider, busy) == []
        assert clean(chat_id, means(both)) is CleanupOutcome.PENDING
        assert clean(chat_id, means(both)) is CleanupOutcome.FAILED
    assert not exists(scripted_provider, busy)


def test_a_chat_is_cleaned_up_in_as_many_goes_as_its_time_allows(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id, gone = a_chat(), [a_file(scripted_provider) for _ in range(5)]
    vs = a_vector_store(scripted_provider, *gone)
    for file in gone:
        a_living(chat_id, file, vector_store_id=vs)
    a_stored_vector_store(chat_id, vs)
    a_deleted_chat(chat_id)
    # The clock goes on by a second with each look: time for one attachment, or one store, and a bit.
    outcomes = [clean(chat_id, means(files), ends_at=a_call().now + timedelta(seconds=2)) for _ in range(6)]
    assert outcomes == [CleanupOutcome.UNFINISHED] * 5 + [CleanupOutcome.DONE]
    assert [status for _, status in deletions(scripted_provider, vs)] == [200] * 6
    assert not any(exists(scripted_provider, one) for one in (*gone, vs))


def test_attachments_in_trouble_do_not_use_up_the_time_of_the_others(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id = a_chat()
    stuck = [a_living(chat_id, a_file(scripted_provider, "fail-503")) for _ in range(3)]
    good = a_living(chat_id, a_file(scripted_provider))
    a_deleted_chat(chat_id)
    # Time for two attachments. Whoever is told of trouble waits; calling again at once would use up all attempts.
    outcomes = [clean(chat_id, means(files), ends_at=a_call().now + timedelta(seconds=4)) for _ in range(2)]
    assert outcomes == [CleanupOutcome.PENDING] * 2
    assert state(good)[0] is CleanupStatus.DONE
    assert [state(one)[1] for one in stuck] == [1, 1, 1]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_chats_cleanup_killed_at_any_write_goes_on_where_it_stopped(
    store: Store, scripted_provider: str, files: Files, moment: Literal["before", "after"]
) -> None:
    chat_id, gone = a_chat(), [a_file(scripted_provider) for _ in range(3)]
    vs = a_vector_store(scripted_provider, *gone)
    for file in gone:
        a_living(chat_id, file, vector_store_id=vs)
    a_stored_vector_store(chat_id, vs)
    a_deleted_chat(chat_id)
    for _ in range(4):
        with killed(moment, "UpdateItem"), pytest.raises(Killed):
            clean(chat_id, means(files))
    assert clean(chat_id, means(files)) is CleanupOutcome.DONE
    assert not any(exists(scripted_provider, one) for one in (*gone, vs))
    # Killed before the write, the first file is asked for each time; after it, never again.
    again = {"before": 4, "after": 0}[moment]
    assert [status for _, status in deletions(scripted_provider, gone[0])] == [200, 200] + [404, 404] * again


def test_two_workers_with_the_same_chat_end_with_the_same_result(
    store: Store, scripted_provider: str, files: Files
) -> None:
    chat_id, gone = a_chat(), [a_file(scripted_provider) for _ in range(10)]
    vs = a_vector_store(scripted_provider, *gone)
    for file in gone:
        a_living(chat_id, file, vector_store_id=vs)
    a_stored_vector_store(chat_id, vs)
    a_deleted_chat(chat_id)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: clean(chat_id, means(files)), range(4)))
    assert set(outcomes) <= {CleanupOutcome.DONE, CleanupOutcome.PENDING}
    assert CleanupOutcome.DONE in outcomes
    assert not any(exists(scripted_provider, one) for one in (*gone, vs))
    assert clean(chat_id, means(files)) is CleanupOutcome.DONE
