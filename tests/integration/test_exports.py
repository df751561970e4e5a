"""The export of a chat, a user or a tenant: everything is in it once, and who is killed leaves nothing half done."""

import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.erasure import BeingErased, Erasure
from minichat.domain.errors import ChatNotFound
from minichat.domain.export import DataExport, ExportNotFound, ExportRunning
from minichat.domain.identity import RequestId, UserId
from minichat.domain.policy_layers import TenantLayer, UserLayer
from minichat.services import chats, erasing, exporting, mutate
from minichat.services.new_turn import SendMessage
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import exports, objects, policies
from tests.support.domain.builders import new_id
from tests.support.services.erased import RULES, SETTINGS, Person, Workers, erased, gone_on, workers_of
from tests.support.services.exported import dying_after, in_bucket, said, seen, taken_on, told_export
from tests.support.services.killed import last_line
from tests.support.services.walk import late
from tests.support.storage.faults import Killed

KILLS = int(os.environ.get("EXPORT_KILLS", "2"))


@pytest.fixture
def workers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    with workers_of(store, monkeypatch) as made:
        yield made


def asked(person: Person) -> DataExport:
    return exporting.accept(person.call(), person.name, SETTINGS)


def types(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(str(line["type"]) for line in lines)


@pytest.mark.holds("contract.export")
def test_everything_of_a_user_is_in_their_export_once_and_nothing_of_another(workers: Workers) -> None:
    person, other = Person(), Person()
    other.tenant = person.tenant
    for one in (person, other):
        one.has_lived()
        policies.publish(
            UserLayer(), policies.of_user(one.tenant, one.name), at=one.now, by="boss", token=new_id(one.now)
        )
    workers.book()
    deleted = person.chat()
    person.ended(deleted)
    chats.delete(person.call(), deleted.chat_id)
    export = asked(person)
    person.now += timedelta(minutes=1)
    later = person.chat()
    assert taken_on(person, export.export_id) == "ready"
    lines, manifest = said(person, export)
    assert types(lines) == {
        "chat": 3, "turn": 5, "message": 9, "attachment": 2, "quota": 1, "limits": 1, "usage": 1
    }  # fmt: skip
    assert manifest["counts"] == types(lines)
    assert len(manifest["files"]) > 1
    assert "not kept" in manifest["notes"][0]
    assert other.name not in str(lines)
    assert {deleted.chat_id, later.chat_id}.isdisjoint({line.get("chat_id", line.get("id")) for line in lines})
    assert {line["filename"] for line in lines if line["type"] == "attachment"} == {"a.pdf"}
    assert {line["content"] for line in lines if line["type"] == "message"} == {"hello", "fine"}


@pytest.mark.holds("contract.export-taken-back")
def test_what_was_taken_back_is_in_an_export_as_that_and_a_long_text_is_whole(workers: Workers) -> None:
    del workers
    person = Person()
    chat = person.chat()
    person.ended(chat)
    taken_back = person.ended(chat)
    mutate.delete(person.call(), chat.chat_id, taken_back.request_id, SETTINGS)
    long = "so it is " * 5_000
    send(person.call(), SendMessage(chat.chat_id, long, RequestId(str(uuid4()))), RULES)
    export = exporting.of_chat(person.call(), chat.chat_id, SETTINGS)
    assert taken_on(person, export.export_id) == "ready"
    told = [line for line in said(person, export)[0] if line["type"] == "message"]
    assert Counter((line["content"], line["taken_back"]) for line in told) == {
        ("hello", False): 1, ("fine", False): 1, ("hello", True): 1, ("fine", True): 1, (long, False): 1
    }  # fmt: skip


def test_what_a_provider_calls_something_is_in_no_export(workers: Workers) -> None:
    del workers
    person = Person()
    file = person.file(person.chat())
    assert file.provider_file_id
    export = asked(person)
    taken_on(person, export.export_id)
    lines, _ = said(person, export)
    assert file.provider_file_id not in str(lines)


@pytest.mark.holds("contract.export-gone")
def test_a_chat_that_is_deleted_before_its_export_is_ready_takes_it_with_it(workers: Workers) -> None:
    del workers
    person = Person()
    chat = person.chat()
    person.ended(chat)
    export = exporting.of_chat(person.call(), chat.chat_id, SETTINGS)
    assert taken_on(person, export.export_id, seconds=3) == "unfinished"
    chats.delete(person.call(), chat.chat_id)
    assert taken_on(person, export.export_id) == "gone"
    assert (seen(person, export).state, seen(person, export).progress.files, in_bucket(person)) == ("gone", (), [])
    with pytest.raises(ChatNotFound):
        exporting.of_chat(person.call(), chat.chat_id, SETTINGS)


def test_a_chat_that_is_deleted_in_the_last_moment_has_no_export(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    del workers
    person = Person()
    chat = person.chat()
    person.ended(chat)
    export = exporting.of_chat(person.call(), chat.chat_id, SETTINGS)
    put = objects.put

    def deleted_meanwhile(key: str, content: bytes, kind: str) -> None:
        put(key, content, kind)
        if "manifest" in key:
            chats.delete(person.call(), chat.chat_id)

    monkeypatch.setattr(objects, "put", deleted_meanwhile)
    assert taken_on(person, export.export_id) == "gone"
    assert in_bucket(person) == []


def test_an_export_whose_time_is_up_goes_on_with_a_task_of_its_own(workers: Workers) -> None:
    person = Person()
    person.has_lived()
    export, rounds = asked(person), 0
    while taken_on(person, export.export_id, seconds=6) == "unfinished":
        rounds += 1
    tasks = [item for item in workers.outbox() if item["type"] == "export"]
    assert rounds > 3
    assert len(tasks) == rounds + 1
    lines, _ = said(person, export)
    assert types(lines)["message"] == 9


def test_processes_that_die_before_each_of_their_writes_end_it_as_any_other(workers: Workers) -> None:
    """Each makes one write to table or bucket more than the one before it, and dies before the next."""
    del workers
    person = Person()
    person.has_lived(1)
    export = asked(person)
    for writes in itertools.count():
        with suppress(Killed), dying_after(writes):
            taken_on(person, export.export_id)
            break
    assert writes > 5
    lines, _ = said(person, export)
    assert types(lines) == {"chat": 2, "turn": 3, "message": 5, "attachment": 1, "quota": 1}
    taken_on(person, export.export_id)
    assert len(in_bucket(person)) == len(seen(person, export).progress.files)


def test_processes_that_are_killed_at_random_lose_no_line_and_write_none_twice(workers: Workers) -> None:
    chance = random.Random(os.environ.get("EXPORT_SEED", "18"))
    person = Person()
    person.has_lived(3)
    export, deaths = asked(person), 0
    for _ in range(10 * KILLS + 10):
        at_most = chance.randrange(1, 9) if deaths < KILLS else 10**6
        last = last_line(
            "tests.support.services.exporting_process", told_export(person, export, workers.store), at_most
        )
        if last == "ready":
            break
        deaths += 1
    assert deaths >= KILLS
    lines, _ = said(person, export)
    assert types(lines) == {"chat": 4, "turn": 7, "message": 13, "attachment": 3, "quota": 1}
    assert len(in_bucket(person)) == len(seen(person, export).progress.files)


def test_several_at_once_on_one_export_write_each_line_once(workers: Workers) -> None:
    del workers
    person = Person()
    person.has_lived(3)
    export = asked(person)
    racing = [threading.Thread(target=taken_on, args=(person, export.export_id)) for _ in range(4)]
    for one in racing:
        one.start()
    for one in racing:
        one.join()
    assert taken_on(person, export.export_id) == "ready"
    lines, _ = said(person, export)
    assert types(lines) == {"chat": 4, "turn": 7, "message": 13, "attachment": 3, "quota": 1}
    assert len(in_bucket(person)) == len(seen(person, export).progress.files)


def test_one_of_a_users_exports_is_made_at_a_time(workers: Workers) -> None:
    del workers
    person = Person()
    chat = person.chat()
    export = asked(person)
    with pytest.raises(ExportRunning):
        exporting.of_chat(person.call(), chat.chat_id, SETTINGS)
    taken_on(person, export.export_id)
    outcomes = late(lambda: asked(person) and None, lambda: asked(person) and None)
    assert outcomes == ("ExportRunning", "ok")


def test_an_export_is_its_owners_until_it_is_over(workers: Workers) -> None:
    del workers
    person, other = Person(), Person()
    other.tenant = person.tenant
    export = asked(person)
    taken_on(person, export.export_id)
    assert exporting.own(person.call(), export.export_id).state == "ready"
    with pytest.raises(ExportNotFound):
        exporting.own(other.call(), export.export_id)
    of_another = exporting.accept(other.call(), person.name, SETTINGS)
    with pytest.raises(ExportNotFound):
        exporting.own(person.call(), of_another.export_id)
    person.now += timedelta(days=7)
    with pytest.raises(ExportNotFound):
        exporting.own(person.call(), export.export_id)


def test_a_tenants_export_has_everything_but_secrets_and_nothing_of_another_tenant(workers: Workers) -> None:
    boss, person, foreign = Person(), Person(), Person()
    person.tenant = boss.tenant
    for one in (boss, person, foreign):
        one.has_lived(1)
    policies.publish(TenantLayer(), policies.of_tenant(boss.tenant), at=boss.now, by=boss.name, token=new_id(boss.now))
    workers.book()
    export = exporting.accept(boss.call(), None, SETTINGS)
    while taken_on(boss, export.export_id, seconds=40) == "unfinished":
        pass
    lines, _ = said(boss, export)
    assert types(lines) == {
        "chat": 4, "turn": 6, "message": 10, "attachment": 2, "quota": 2, "usage": 2, "policy": 1
    }  # fmt: skip
    assert foreign.name not in str(lines)


def test_an_erasure_takes_exports_with_it_also_one_that_is_being_written(workers: Workers) -> None:
    person, boss = Person(), Person()
    boss.tenant = person.tenant
    person.has_lived(1)
    workers.work(person)
    done, whole = asked(person), exporting.accept(boss.call(), None, SETTINGS)
    taken_on(person, done.export_id)
    boss.now = person.now
    taken_on(boss, whole.export_id, seconds=10)
    assert {"bucket", "table"} <= {one.place for one in person.left()}
    person.now = max(person.now, boss.now)
    erasure = person.accepted()
    with pytest.raises(BeingErased):
        asked(person)
    assert gone_on(person, erasure) == "waiting"
    assert taken_on(boss, whole.export_id) == "gone"
    erased(person, erasure, workers)
    assert (person.left(), in_bucket(person)) == ([], [])
    with pytest.raises(ExportNotFound):
        taken_on(person, done.export_id)


def test_an_erasure_waits_for_a_process_that_may_still_write_a_file(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person()
    person.has_lived(1)
    workers.work(person)
    export, put = asked(person), objects.put
    begun: list[Erasure] = []

    def erased_meanwhile(key: str, content: bytes, kind: str) -> None:
        if not begun:
            begun.append(person.accepted())
            assert gone_on(person, begun[0]) == "waiting"
        put(key, content, kind)

    monkeypatch.setattr(objects, "put", erased_meanwhile)
    assert taken_on(person, export.export_id, seconds=600) == "gone"
    erased(person, begun[0], workers, rounds=9)
    assert (person.left(), in_bucket(person)) == ([], [])


def test_what_an_erased_administrator_had_exported_of_another_is_the_pseudonyms(workers: Workers) -> None:
    person, boss = Person(), Person()
    boss.tenant = person.tenant
    person.chat()
    export = exporting.accept(boss.call(), person.name, SETTINGS)
    taken_on(person, export.export_id)
    erased(boss, erasing.accept(boss.call(), UserId(boss.name), SETTINGS), workers)
    left = exports.read(person.tenant, export.export_id)
    assert left is not None
    assert left.requested_by not in (boss.name, person.name)
    assert boss.left() == []
