"""Chats that nobody has used for as long as their tenant keeps such are deleted, and no others."""

from datetime import timedelta
from uuid import uuid4

import pytest

from functions.reconcile import handler as daily
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId
from minichat.domain.policy_layers import TenantLayer
from minichat.services import chats
from minichat.services.idle_chats import IdleChats
from minichat.services.tenant_layers import LayersInTable, NewestLayer
from minichat.settings import Store
from minichat.storage import chats as stored_chats
from minichat.storage import policies, scan
from tests.support.domain.builders import NOW, new_id
from tests.support.services.erased import SETTINGS, Person
from tests.support.storage.invariants import Tables

DAYS = timedelta(days=30)


def keeps(tenant: TenantId, days: int | None) -> None:
    """From now on the tenant keeps idle chats for so long."""
    layer = TenantLayer(idle_chats_days=days)
    policies.publish(layer, policies.of_tenant(tenant), at=NOW, by="boss", token=new_id(NOW))


def left_of(person: Person) -> set[str]:
    """The person's chats that are not deleted."""
    return set(stored_chats.ids_of(person.tenant, person.name))


def found(at: Person) -> IdleChats:
    """What a reading of the table finds at the person's time."""
    idle = IdleChats(LayersInTable(), at.now)
    list(idle.noted(scan.items()))
    return idle


def test_the_daily_run_deletes_idle_chats_of_tenants_who_want_it_and_says_why(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, other, keeper = Person(), Person(), Person()
    keeps(person.tenant, 30)
    keeps(keeper.tenant, None)
    idle, used = person.chat(), person.chat()
    person.ended(idle)
    kept = [other.chat(), keeper.chat()]
    person.now = NOW + DAYS - timedelta(days=1)
    chats.rename(person.call(), used.chat_id, "Used")
    person.now = NOW + DAYS + timedelta(hours=1)
    monkeypatch.setattr(daily, "now", lambda: person.now)
    monkeypatch.setattr(daily, "current", lambda: SETTINGS)
    assert daily.handler({}, None)["idle_chats"] == 1
    assert left_of(person) == {used.chat_id}
    assert [left_of(other), left_of(keeper)] == [{one.chat_id} for one in kept]
    events = [one for one in Tables.of(store).outbox if '"reason":"idle"' in one["payload"]]
    assert {one["type"] for one in events} == {"chat_delete", "chat_cleanup"}
    assert all(idle.chat_id in one["payload"] for one in events)
    assert daily.handler({}, None)["idle_chats"] == 0


def test_a_chat_in_which_a_turn_runs_is_not_idle(store: Store) -> None:
    del store
    person = Person()
    keeps(person.tenant, 1)
    chat = person.chat()
    person.turn(chat)
    person.now += DAYS
    assert found(person).found == []


@pytest.mark.parametrize("use", ["turn", "rename", "delete"])
def test_who_uses_a_chat_in_the_last_moment_keeps_it(store: Store, use: str) -> None:
    person = Person()
    keeps(person.tenant, 1)
    chat = person.chat()
    person.now += DAYS
    idle = found(person)
    assert [one.chat_id for one in idle.found] == [chat.chat_id]
    match use:
        case "turn":
            person.ended(chat)
        case "rename":
            chats.rename(person.call(), chat.chat_id, "Used")
        case _:
            chats.delete(person.call(), chat.chat_id)
    assert idle.delete(new_id) == 0
    assert left_of(person) == (set() if use == "delete" else {chat.chat_id})
    assert not [one for one in Tables.of(store).outbox if '"reason":"idle"' in one["payload"]]


def test_two_runs_at_once_delete_a_chat_once(store: Store) -> None:
    del store
    person = Person()
    keeps(person.tenant, 1)
    person.chat()
    person.now += DAYS
    one, other = found(person), found(person)
    assert (one.delete(new_id), other.delete(new_id)) == (1, 0)


def test_while_a_tenants_policy_is_not_known_its_chats_stay(store: Store) -> None:
    del store
    person = Person()
    person.tenant = TenantId(str(uuid4()))
    keeps(person.tenant, 1)
    person.chat()
    person.now += DAYS

    class Silent:
        def newest(self, tenant_id: TenantId, known: TenantLayer | None) -> NewestLayer:
            raise ServiceUnavailable

    idle = IdleChats(Silent(), person.now)
    list(idle.noted(scan.items()))
    assert idle.found == []
