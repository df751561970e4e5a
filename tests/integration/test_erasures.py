"""The erasure of a user or a tenant: everything goes, the sums stay, and whoever is killed has half done nothing."""

import base64
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from minichat.domain.erasure import PSEUDONYM, BeingErased, ErasureRunning
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import ChatId, RequestId, UserId
from minichat.domain.names import in_key
from minichat.domain.policy_layers import UserLayer
from minichat.domain.reconcile_report import ReconcileFinding, summed
from minichat.services import attachments, erasing
from minichat.services.erase_manifest import verifies
from minichat.services.new_turn import SendMessage
from minichat.services.policy_in_force import InForce
from minichat.services.send import send
from minichat.settings import Settings, Store
from minichat.storage import erasures, keys, policies, reconcile_reports
from tests.support.domain.builders import new_id
from tests.support.events.queue_access import QueueAccess
from tests.support.services.erased import RULES, SETTINGS, Person, Workers, erased, gone_on, told, workers_of
from tests.support.services.killed import last_line
from tests.support.services.walk import OPERATIONS, dies, late
from tests.support.storage.faults import Killed
from tests.support.storage.invariants import Tables

CHATS, KILLS = int(os.environ.get("ERASE_CHATS", "4")), int(os.environ.get("ERASE_KILLS", "4"))


@pytest.fixture
def workers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    with workers_of(store, monkeypatch) as made:
        yield made


def published(person: Person, by: str) -> None:
    """A layer of the policy for this person."""
    place = policies.of_user(person.tenant, person.name)
    policies.publish(UserLayer(), place, at=person.now, by=by, token=new_id(person.now))


def a_send(person: Person, chat_id: str) -> object:
    return send(person.call(), SendMessage(ChatId(chat_id), "hello", RequestId(str(uuid4()))), RULES)


def test_nothing_is_left_of_a_user_but_sums_without_a_name(workers: Workers) -> None:
    person, other = Person(), Person()
    other.tenant = person.tenant
    for one in (person, other):
        one.has_lived()
        published(one, "boss")
    workers.work(person)
    differs = ReconcileFinding("quota", person.tenant, f"total of 2026-11, user {person.name}", "1", "2")
    reconcile_reports.keep_findings(person.now, person.tenant, summed([differs]))
    before = [item for item in Tables.of(workers.store).conversations if other.name in str(item)]
    assert person.left()
    done = erased(person, person.accepted(), workers)
    assert person.left() == []
    assert [item for item in Tables.of(workers.store).conversations if person.name in str(item)] == []
    assert person.differences() == []
    # Of nobody else anything has changed.
    assert [item for item in Tables.of(workers.store).conversations if other.name in str(item)] == before
    assert {f"vs-{chat}" for chat in _chats_of(before)}.isdisjoint(workers.deleted)
    assert done.counts == {
        "attachments": 2,
        "chats": 3,
        "ledger_entries_kept": 5,
        "limits": 2,
        "lists_of_documents": 2,
        "messages": 9,
        "quota_months": 1,
        "reports": 1,
        "turns": 5,
    }
    kept = [item for item in Tables.of(workers.store).conversations if PSEUDONYM in str(item.get("user"))]
    assert len(kept) == 5
    assert len({item["user"] for item in kept}) == 1


def _chats_of(items: list[dict[str, object]]) -> set[str]:
    return {str(item["pk"]).partition("#C#")[2] for item in items if item["sk"] == "CHAT"}


def test_nothing_new_begins_for_who_is_being_erased(workers: Workers) -> None:
    person = Person()
    chat = person.chat()
    person.accepted()
    with pytest.raises(BeingErased):
        a_send(person, chat.chat_id)
    with pytest.raises(BeingErased):
        person.chat()
    with pytest.raises(BeingErased):
        attachments.announce(person.call(), chat, attachments.NewFile("a.pdf", "application/pdf", 9), RULES)
    with pytest.raises(ErasureRunning):
        person.accepted()


def test_a_send_that_has_read_nothing_of_the_erasure_is_refused_by_its_own_write(workers: Workers) -> None:
    del workers
    person = Person()
    chat = person.chat()
    outcomes = late(lambda: a_send(person, chat.chat_id), lambda: person.accepted() and None)
    assert outcomes == ("BeingErased", "ok")


def test_who_comes_back_afterwards_is_somebody_new(workers: Workers) -> None:
    person = Person()
    person.has_lived(1)
    erased(person, person.accepted(), workers)
    person.ended(person.chat())
    assert person.differences() == []


def test_an_erasure_that_dies_after_each_of_its_writes_ends_as_any_other(workers: Workers) -> None:
    person = Person()
    person.has_lived(1)
    workers.work(person)
    with dies("after"), pytest.raises(Killed):
        person.accepted()
    (erasure,) = erasures.of_tenant(person.tenant)
    deaths = 0
    while not erasing.shown(person.tenant, erasure.erasure_id).is_complete:
        with dies("after"), pytest.raises(Killed):
            gone_on(person, erasure)
        deaths += 1
        workers.work(person)
        person.now += timedelta(minutes=1)
        assert person.differences() == []
    assert deaths > 10
    assert person.left() == []
    assert person.differences() == []
    assert erasing.shown(person.tenant, erasure.erasure_id).counts["turns"] == 3


def test_who_dies_before_a_write_has_erased_nothing(workers: Workers) -> None:
    del workers
    person = Person()
    with dies("before"), pytest.raises(Killed):
        person.accepted()
    assert list(erasures.of_tenant(person.tenant)) == []
    person.chat()


def test_processes_that_are_killed_at_random_leave_nothing(workers: Workers) -> None:
    """`make erase` is the long form: 50 chats, and 20 deaths."""
    chance = random.Random(os.environ.get("ERASE_SEED", "18"))
    person = Person()
    person.has_lived(CHATS)
    workers.work(person)
    erasure = person.accepted()
    deaths = 0
    for _ in range(10 * KILLS + 30):
        # Once all have died, one lives on.
        at_most = chance.randrange(1, 12) if deaths < KILLS else 10**6
        last = last_line("tests.support.services.erasing_process", told(person, erasure, workers.store), at_most)
        if last == "complete":
            break
        deaths += last in OPERATIONS
        if last == "waiting":
            workers.work(person)
            person.now += timedelta(minutes=11)
    assert deaths >= KILLS
    assert erasing.shown(person.tenant, erasure.erasure_id).is_complete
    assert person.left() == []
    assert person.differences() == []
    assert erasing.shown(person.tenant, erasure.erasure_id).counts["chats"] == CHATS + 1


def test_an_erasure_waits_until_the_usage_of_each_turn_is_in_the_ledger(workers: Workers) -> None:
    person = Person()
    person.ended(person.chat())
    erasure = person.accepted()
    assert gone_on(person, erasure) == "waiting"
    person.now += timedelta(minutes=11)
    assert gone_on(person, erasure) == "waiting"
    waits_for = erasing.shown(person.tenant, erasure.erasure_id).progress.waits_for
    assert waits_for is not None
    assert "ledger" in waits_for
    erased(person, erasure, workers)
    assert person.left() == []


def test_the_manifest_is_signed_and_names_nobody(workers: Workers) -> None:
    person = Person()
    person.has_lived(1)
    done = erased(person, person.accepted(), workers)
    assert done.manifest is not None
    assert verifies(done.manifest, SETTINGS)
    _, said, _ = done.manifest.split(".")
    says = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
    assert says["counts"] == done.counts
    assert says["erasure_id"] == done.erasure_id
    assert person.name not in str(says)
    assert PSEUDONYM not in str(done)
    forged = said[:-2] + ("AA" if said[-2:] != "AA" else "BB")
    assert not verifies(done.manifest.replace(said, forged), SETTINGS)


def test_without_a_secret_nothing_is_erased(workers: Workers) -> None:
    del workers
    person = Person()
    with pytest.raises(ServiceUnavailable):
        erasing.accept(person.call(), person.name, Settings())
    assert list(erasures.of_tenant(person.tenant)) == []


def test_nothing_is_left_of_a_tenant_but_sums_and_the_proof(workers: Workers) -> None:
    boss, person, foreign = Person(), Person(), Person()
    person.tenant = boss.tenant
    for one in (boss, person, foreign):
        one.has_lived(1)
        published(one, one.name)
    workers.work(person)
    before = [item for item in Tables.of(workers.store).conversations if foreign.tenant in str(item)]
    erasure = erasing.accept(boss.call(), None, SETTINGS)
    in_force = InForce(RULES.settings)
    in_force.look(boss.tenant, 0)
    with pytest.raises(BeingErased):
        in_force.rules_of(boss.tenant)
    assert gone_on(boss, erasure) == "waiting"
    boss.now += timedelta(minutes=1)
    done = erased(boss, erasure, workers)
    in_force.look(boss.tenant, 10)
    in_force.rules_of(boss.tenant)
    left = [item for item in Tables.of(workers.store).conversations if boss.tenant in str(item)]
    assert {item["pk"].removeprefix(keys.prefix(boss.tenant)).split("#")[0] for item in left} == {"ERASE", "L", "USAGE"}
    assert [item for item in left if {boss.name, person.name} & set(str(item).split("'"))] == []
    assert boss.differences() == []
    assert [item for item in Tables.of(workers.store).conversations if foreign.tenant in str(item)] == before
    assert (done.counts["chats"], done.counts["ledger_entries_kept"], done.counts["limits"]) == (4, 6, 4)


def test_what_an_erased_administrator_did_is_the_pseudonyms(workers: Workers) -> None:
    boss, person = Person(), Person()
    boss.tenant = person.tenant
    published(person, boss.name)
    erased(boss, boss.accepted(), workers)
    layer = policies.read(1, policies.of_user(person.tenant, person.name))
    assert layer is not None
    assert UserId(layer.by).startswith(PSEUDONYM)
    assert boss.left() == []


def test_the_check_finds_who_is_named_in_queues_and_takes_nothing_out_of_them(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, other = Person(), Person()
    other.tenant = person.tenant
    with QueueAccess.used_here(workers.store, monkeypatch) as access:
        urls = {**access.settings.urls, "audit": access.settings.dead_letters["audit"]}
        dead = QueueAccess(access.environment, access.settings.model_copy(update={"urls": urls}), access.client)
        about = {"tenant_id": in_key(person.tenant), "event_type": "turn_usage"}
        for queues, name in ((access, "usage"), (dead, "audit")):
            for one in (person, other):
                queues.send(name, json.dumps({"user_id": one.name}), event_id=f"of {one.name}", **about)
            queues.send(name, f"not JSON, {person.name}", event_id="broken", **about)
            queues.send(name, json.dumps({"user_id": person.name}), event_id="foreign", tenant_id="another")
        # What was looked at is there again at once.
        for _ in range(2):
            found = Counter((one.place, one.what) for one in person.left() if one.place in ("queue", "dead letters"))
            assert found == {
                ("queue", f"usage of {person.name}"): 1,
                ("queue", "usage broken"): 1,
                ("dead letters", f"audit of {person.name}"): 1,
                ("dead letters", "audit broken"): 1,
            }
