"""Temporary chats: in no list, deleted once nobody has used them for so long, with everything that a deletion does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.chat import Chat
from minichat.domain.errors import ChatNotFound, GenerationInProgress, IdempotencyKeyConflict
from minichat.domain.identity import Call, Caller, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import ChatCleanup
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.http.response_models import chat_detail
from minichat.services import chat_purge, chats, mutate, temporary_chats
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reconcile_quota import reconcile
from minichat.services.send import send
from minichat.settings import Settings, Store
from minichat.storage import chats as stored_chats
from minichat.storage import items, leases
from minichat.storage.transact import update_one
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.services.ready_files import announced
from tests.support.storage.invariants import Item, Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
A_DAY = timedelta(hours=24)
A_MINUTE = timedelta(minutes=1)


def a_temporary_chat(user: int = 2, **wish: Any) -> Chat:
    return chats.create(a_call(a_caller(user=user)), chats.NewChat(temporary=True, **wish), RULES)


def swept(now: datetime) -> temporary_chats.TemporarySweep:
    return temporary_chats.sweep(now, new_id, RULES.settings, seconds=60)


def a_turn(chat: Chat, at: datetime, user: int = 2) -> Turn:
    call = Call(a_caller(user=user), at, new_id)
    running = send(call, SendMessage(chat.chat_id, "hello", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def an_ended_turn(chat: Chat, at: datetime) -> Turn:
    turn = a_turn(chat, at)
    ending = Ending(TurnState.COMPLETED, text="fine", usage=Usage(10, 5))
    assert finalize(Call(a_caller(), at, new_id), turn, ending, RULES.settings)
    return turn


def a_rename(chat: Chat, at: datetime) -> object:
    return chats.rename(Call(a_caller(), at, new_id), chat.chat_id, "Used")


def a_retry(chat: Chat, at: datetime) -> object:
    return mutate.retry(
        Call(a_caller(), at, new_id), chat.chat_id, an_ended_turn(chat, chat.created_at).request_id, _id(), RULES
    )


def an_edit(chat: Chat, at: datetime) -> object:
    target = an_ended_turn(chat, chat.created_at).request_id
    return mutate.edit(Call(a_caller(), at, new_id), target, SendMessage(chat.chat_id, "better", _id()), RULES)


def a_deletion(chat: Chat, at: datetime) -> None:
    target = an_ended_turn(chat, chat.created_at).request_id
    mutate.delete(Call(a_caller(), at, new_id), chat.chat_id, target, RULES.settings)


def _id() -> RequestId:
    return RequestId(str(uuid4()))


def head(chat: Chat) -> Chat:
    found = stored_chats.read(chat.tenant_id, chat.chat_id)
    assert found is not None
    return found


def events(store: Store, chat: Chat, *types: str) -> list[Item]:
    return [one for one in Tables.of(store).outbox if one["pk"].endswith(chat.chat_id) and one["type"] in types]


def ends_in(chat: Chat) -> timedelta:
    ends_at = head(chat).ends_at
    assert ends_at is not None
    return ends_at - chat.created_at


def listed() -> list[str]:
    page = listing.chats(a_call(), CursorCodec("secret"), listing.Query(100, None))
    return [str(chat.id) for chat in page.items]


@pytest.mark.holds("contract.temporary")
def test_a_temporary_chat_is_in_no_list_and_found_by_its_id_alone(store: Store) -> None:
    chat, other = a_temporary_chat(title="Gifts"), chats.create(a_call(), chats.NewChat(), RULES)
    assert listed() == [other.chat_id]
    an_ended_turn(chat, a_call().now)
    chats.rename(a_call(), chat.chat_id, "Presents")
    assert listed() == [other.chat_id]
    detail = chat_detail(chats.get(a_call(), chat.chat_id))
    assert (detail.is_temporary, detail.title, detail.message_count) == (True, "Presents", 2)
    assert not chat_detail(chats.get(a_call(), other.chat_id)).is_temporary
    with pytest.raises(ChatNotFound):
        chats.get(a_call(a_caller(user=3)), chat.chat_id)


@pytest.mark.holds("contract.temporary-end")
def test_after_its_time_it_is_deleted_once_with_the_events_of_a_deletion(store: Store) -> None:
    chat = a_temporary_chat()
    an_ended_turn(chat, chat.created_at)
    assert swept(chat.created_at + A_DAY - A_MINUTE) == temporary_chats.TemporarySweep(0)
    assert swept(chat.created_at + A_DAY) == temporary_chats.TemporarySweep(1)
    assert swept(chat.created_at + A_DAY + A_MINUTE) == temporary_chats.TemporarySweep(0)
    with pytest.raises(ChatNotFound):
        chats.get(a_call(), chat.chat_id)
    (audited,) = events(store, chat, "chat_delete")
    (cleanup,) = events(store, chat, "chat_cleanup")
    assert '"reason":"temporary_expired"' in audited["payload"]
    assert '"requester_type":"system"' in audited["payload"]
    task = ChatCleanup.model_validate_json(cleanup["payload"])
    assert (task.reason, task.chat_deleted_at) == ("temporary_expired", chat.created_at + A_DAY)
    assert not [one for one in Tables.of(store).conversations if "temporary_shard" in one]
    assert violations(Tables.of(store)) == []
    assert chat_purge.expire(task, RULES.settings, chat.created_at + A_DAY, new_id) > 0


def test_a_deletion_by_its_owner_is_told_as_any_other(store: Store) -> None:
    chat = a_temporary_chat()
    chats.delete(a_call(), chat.chat_id)
    (cleanup,) = events(store, chat, "chat_cleanup")
    assert ChatCleanup.model_validate_json(cleanup["payload"]).reason == "chat_soft_delete"
    assert swept(chat.created_at + 2 * A_DAY) == temporary_chats.TemporarySweep(0)


@pytest.mark.parametrize("use", [an_ended_turn, a_rename, a_retry, an_edit, a_deletion])
@pytest.mark.holds("contract.temporary-end")
def test_a_chat_that_is_used_lives_as_long_after_that(store: Store, use: Callable[[Chat, datetime], object]) -> None:
    chat = a_temporary_chat()
    use(chat, chat.created_at + timedelta(hours=23))
    assert ends_in(chat) == A_DAY, "using it writes nothing for it"
    assert swept(chat.created_at + A_DAY) == temporary_chats.TemporarySweep(0)
    assert ends_in(chat) == timedelta(hours=47)
    assert swept(chat.created_at + timedelta(hours=47) - A_MINUTE) == temporary_chats.TemporarySweep(0)
    assert swept(chat.created_at + timedelta(hours=47)) == temporary_chats.TemporarySweep(1)


@pytest.mark.holds("contract.temporary-end")
def test_reading_and_files_are_no_use_of_a_chat(store: Store) -> None:
    chat = a_temporary_chat()
    at = Call(a_caller(), chat.created_at + timedelta(hours=23), new_id)
    announced(at, chat, RULES, "text/plain", "a.txt")
    chats.get(at, chat.chat_id)
    listing.messages(at, CursorCodec("secret"), chat.chat_id, listing.Query(10, None))
    assert swept(chat.created_at + A_DAY) == temporary_chats.TemporarySweep(1)


def test_who_uses_a_chat_in_the_instant_of_its_end_keeps_it(store: Store) -> None:
    chat = a_temporary_chat()
    seen, over = head(chat), chat.created_at + A_DAY
    an_ended_turn(chat, over)
    assert not chats.expire(Call(Caller(chat.tenant_id, chat.user_id, "system"), over, new_id), seen)
    assert chats.get(a_call(), chat.chat_id).message_count == 2
    assert events(store, chat, "chat_delete", "chat_cleanup") == []


def test_a_turn_that_still_runs_is_asked_to_stop(store: Store) -> None:
    hurried = Settings.model_validate({"retention": {"temporary_chats_hours": 0.001}})
    chat = chats.create(a_call(), chats.NewChat(temporary=True), Rules(hurried, RULES.policy))
    turn = a_turn(chat, chat.created_at)
    over = chat.created_at + A_MINUTE
    assert temporary_chats.sweep(over, new_id, hurried, seconds=60) == temporary_chats.TemporarySweep(1)
    now = leases.look(turn)
    assert now is not None
    assert now.cancel_requested_at is not None


def test_of_eight_sweeps_and_a_send_one_wins(store: Store) -> None:
    for _ in range(6):
        chat = a_temporary_chat()
        over = chat.created_at + A_DAY

        def sends(chat: Chat = chat, over: datetime = over) -> str:
            try:
                return a_turn(chat, over).state.value
            except (ChatNotFound, GenerationInProgress) as refusal:
                return type(refusal).__name__

        with ThreadPoolExecutor(9) as pool:
            sent = pool.submit(sends)
            expired = sum(one.expired for one in pool.map(lambda _, over=over: swept(over), range(8)))
        outcomes = (expired, sent.result(), len(events(store, chat, "chat_delete")), head(chat).deleted_at is not None)
        assert outcomes in [(1, "ChatNotFound", 1, True), (0, "running", 0, False)]
    assert violations(Tables.of(store)) == []


def test_a_chat_that_cannot_be_read_or_deleted_stops_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, refused, other = (a_temporary_chat() for _ in range(3))
    update_one(_item(broken), [items.ChatItem.updated_at.remove()], items.ChatItem.pk.exists())
    original = chats.expire

    def expire(call: Call, chat: Chat) -> bool:
        if chat.chat_id == refused.chat_id:
            raise RuntimeError("no")
        return original(call, chat)

    monkeypatch.setattr(chats, "expire", expire)
    assert swept(other.created_at + A_DAY) == temporary_chats.TemporarySweep(1, failed=2)
    assert head(other).deleted_at is not None


def _item(chat: Chat) -> items.ChatItem:
    return items.ChatItem(f"T#{chat.tenant_id}#C#{chat.chat_id}", "CHAT")


def test_a_sweep_without_time_deletes_nothing_and_the_next_one_goes_on(store: Store) -> None:
    made = [a_temporary_chat() for _ in range(5)]
    over = made[-1].created_at + A_DAY
    assert temporary_chats.sweep(over, new_id, RULES.settings, seconds=0) == temporary_chats.TemporarySweep(0)
    assert swept(over) == temporary_chats.TemporarySweep(5)


def test_a_key_makes_one_temporary_chat_and_no_other_kind(store: Store) -> None:
    first, again = a_temporary_chat(idempotency_key="k"), a_temporary_chat(idempotency_key="k")
    assert (again.chat_id, again.is_temporary) == (first.chat_id, True)
    with pytest.raises(IdempotencyKeyConflict):
        chats.create(a_call(), chats.NewChat(idempotency_key="k"), RULES)


def test_reconciliation_finds_the_turns_of_temporary_chats(store: Store) -> None:
    chat = a_temporary_chat()
    an_ended_turn(chat, chat.created_at)
    a_turn(chats.create(a_call(), chats.NewChat(), RULES), chat.created_at)
    assert set(stored_chats.ids_of(chat.tenant_id, chat.user_id)) >= {chat.chat_id}
    found = reconcile()
    assert (found.differences, found.undecided) == ([], [])


def test_a_chat_that_was_stored_before_there_were_temporary_ones_is_none(store: Store) -> None:
    chat = chats.create(a_call(), chats.NewChat(), RULES)
    raw = next(one for one in Tables.of(store).conversations if one["pk"].endswith(chat.chat_id))
    assert not {"ends_at", "temporary_shard"} & set(raw)
    assert not head(chat).is_temporary
