"""How fast a user may go: exact under racing, given back at each end, and put right when it is wrong."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from pynamodb.expressions.operand import Path

from minichat.domain.chat import Chat
from minichat.domain.errors import RateLimited
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.rate_settings import RateSettings
from minichat.services import attachments, chats, orphans
from minichat.services.finalize import finalize
from minichat.services.mutate import retry
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reconcile_quota import reconcile, repair
from minichat.services.send import send
from minichat.services.stream_resume import follow, resume
from minichat.settings import Settings, Store
from minichat.storage import followers, quota
from tests.support.domain.builders import FIRST_OF_NEXT_MONTH, NOW, a_call, a_caller, a_model, a_policy, new_id
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations
from tests.support.storage.racing import until_answered


def rules_with(**rates: int) -> Rules:
    """Rules that limit nothing but what is named."""
    none = dict.fromkeys(RateSettings.model_fields, 0)
    settings = Settings(rates=RateSettings(**{**none, **rates}))
    return Rules(settings, a_policy(a_model(preference={"is_default": True})))


def at(instant: datetime = NOW) -> Call:
    """A call of the user at this instant."""
    return Call(a_caller(), instant, new_id)


def in_new_chat(rules: Rules, call: Call | None = None) -> RunningTurn:
    """A turn that just began, in a chat of its own."""
    chat = chats.create(call or at(), chats.NewChat(), rules)
    outcome = send(call or at(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(outcome, RunningTurn)
    return outcome


def end(running: RunningTurn, rules: Rules, state: TurnState = TurnState.COMPLETED) -> None:
    finalize(a_call(), running.turn, Ending(state, text="a", usage=Usage(1, 1)), rules.settings)


def in_flight(store: Store) -> int:
    """What the quota items of all months count."""
    items = Tables.of(store).conversations
    return sum(int(item.get("fly", 0)) for item in items if item["sk"].startswith("QUOTA#"))


def raced(rules: Rules, count: int) -> list[RunningTurn | RateLimited]:
    """What so many sends into as many chats of one user, at the same moment, came to."""
    free, call = rules_with(), at()
    chat_ids = [chats.create(a_call(), chats.NewChat(), free).chat_id for _ in range(count)]
    start = threading.Barrier(count)

    def one(chat_id: ChatId) -> RunningTurn | RateLimited:
        command = SendMessage(chat_id, "x", RequestId(str(uuid4())))
        start.wait(PATIENCE)
        try:
            outcome = until_answered(lambda: send(call, command, rules))
        except RateLimited as refusal:
            return refusal
        assert isinstance(outcome, RunningTurn)
        return outcome

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, chat_ids))


@pytest.mark.parametrize(
    ("rates", "scope"), [({"turns_in_flight": 10}, "turns_in_flight"), ({"sends_per_minute": 10}, "sends_per_minute")]
)
@pytest.mark.holds("turns.rates-exact")
def test_of_64_parallel_sends_exactly_those_start_that_the_limit_allows(
    store: Store, rates: dict[str, int], scope: str
) -> None:
    outcomes = raced(rules_with(**rates), 64)
    refused = [one for one in outcomes if isinstance(one, RateLimited)]
    assert len(refused) == 54
    assert {(one.scope, one.limit, one.whose) for one in refused} == {(scope, 10, "user")}
    assert all(1 <= one.retry_after_seconds <= 60 for one in refused)
    assert in_flight(store) == 10
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize("state", [TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELLED])
@pytest.mark.holds("turns.rates-back")
def test_a_turn_gives_its_place_back_however_it_ends(store: Store, state: TurnState) -> None:
    rules = rules_with(turns_in_flight=1)
    running = in_new_chat(rules)
    with pytest.raises(RateLimited):
        in_new_chat(rules)
    end(running, rules, state)
    end(running, rules, state)
    assert in_flight(store) == 0
    in_new_chat(rules)


@pytest.mark.holds("contract.rates")
def test_a_retry_counts_as_a_send_and_a_repeated_send_does_not(store: Store) -> None:
    rules = rules_with(sends_per_minute=2)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    command = SendMessage(chat.chat_id, "x", RequestId(str(uuid4())))
    first = send(at(), command, rules)
    assert isinstance(first, RunningTurn)
    end(first, rules)
    second = retry(at(), chat.chat_id, command.request_id, RequestId(str(uuid4())), rules)
    end(second, rules)
    with pytest.raises(RateLimited) as refused:
        retry(at(), chat.chat_id, second.turn.request_id, RequestId(str(uuid4())), rules)
    assert (refused.value.scope, refused.value.retry_after_seconds) == ("sends_per_minute", 30)
    # Its answer is there: telling it again starts nothing.
    again = SendMessage(chat.chat_id, "x", second.turn.request_id)
    assert isinstance(send(a_call(), again, rules), Replay)


@pytest.mark.holds("turns.rates-back")
def test_a_turn_gives_its_place_back_in_the_month_in_which_it_began(store: Store) -> None:
    rules = rules_with(turns_in_flight=1)
    before = at(FIRST_OF_NEXT_MONTH - timedelta(seconds=1))
    old = in_new_chat(rules, before)
    after = at(FIRST_OF_NEXT_MONTH + timedelta(seconds=1))
    # A new month begins anew: for as long as the old month's turns run, there may be as many again.
    new = in_new_chat(rules, after)
    finalize(after, old.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    with pytest.raises(RateLimited):
        in_new_chat(rules, after)
    finalize(after, new.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    assert in_flight(store) == 0
    assert reconcile().differences == []


@pytest.mark.holds("turns.rates-dead")
def test_turns_of_dead_processes_are_in_flight_until_the_watchdog_ends_them(store: Store) -> None:
    rules = rules_with(turns_in_flight=3)
    for _ in range(3):
        in_new_chat(rules)
    late = NOW + timedelta(seconds=rules.settings.orphan_watchdog.timeout_seconds + 1)
    with pytest.raises(RateLimited):
        in_new_chat(rules, at(late))
    assert orphans.sweep(late, new_id, rules.settings).finalized == 3
    assert in_flight(store) == 0
    in_new_chat(rules, at(late))


def test_a_wrong_number_of_turns_in_flight_is_found_and_put_right(store: Store) -> None:
    rules = rules_with(turns_in_flight=2)
    running = in_new_chat(rules)
    key = quota.key(a_caller().tenant_id, a_caller().user_id, a_call().now)
    quota.QuotaItem(*key).update([Path("fly").add(5)])
    with pytest.raises(RateLimited):
        in_new_chat(rules)
    found = reconcile().differences
    assert [(one.counted, one.says, one.turns_say) for one in found] == [("turns in flight", 6, 1)]
    assert repair(found) == 1
    end(running, rules)
    assert in_flight(store) == 0


def an_upload(rules: Rules, chat: Chat, instant: datetime = NOW, key: str | None = None) -> AttachmentId:
    file = attachments.NewFile("a.txt", "text/plain", 1, key)
    made, _ = attachments.announce(at(instant), chat, file, rules)
    return made.attachment_id


def test_uploads_of_an_hour_are_limited_and_one_that_is_repeated_is_none(store: Store) -> None:
    rules = rules_with(uploads_per_hour=3)
    chat = chats.create(at(), chats.NewChat(), rules)
    first = an_upload(rules, chat, key="once")
    for _ in range(2):
        an_upload(rules, chat)
    with pytest.raises(RateLimited) as refused:
        an_upload(rules, chat)
    assert (refused.value.scope, refused.value.limit, refused.value.retry_after_seconds) == (
        "uploads_per_hour",
        3,
        1200,
    )
    assert an_upload(rules, chat, key="once") == first
    an_upload(rules, chat, NOW + timedelta(seconds=1200))
    assert violations(Tables.of(store)) == []


def test_new_chats_of_an_hour_are_limited_exactly_under_racing(store: Store) -> None:
    rules, start = rules_with(chats_per_hour=10), threading.Barrier(32)

    def one(number: int) -> str:
        start.wait(PATIENCE)
        try:
            until_answered(
                lambda: chats.create(at(), chats.NewChat(idempotency_key=str(number) if number % 2 else None), rules)
            )
        except RateLimited as refused:
            return refused.scope
        return "made"

    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(one, range(32)))
    assert (outcomes.count("made"), outcomes.count("chats_per_hour")) == (10, 22)
    assert len([item for item in Tables.of(store).conversations if item["sk"] == "CHAT"]) == 10


@pytest.mark.holds("contract.rates")
def test_a_chat_whose_key_made_it_before_is_told_again_at_the_limit(store: Store) -> None:
    rules, wish = rules_with(chats_per_hour=1), chats.NewChat(idempotency_key="once")
    first = chats.create(at(), wish, rules)
    with pytest.raises(RateLimited):
        chats.create(at(), chats.NewChat(), rules)
    assert chats.create(at(), wish, rules).chat_id == first.chat_id


def test_of_100_followers_at_once_exactly_those_get_a_place_that_the_limit_allows(store: Store) -> None:
    start = threading.Barrier(100)

    def one(_: int) -> followers.FollowerPlace | None:
        start.wait(PATIENCE)
        try:
            return until_answered(lambda: followers.take(at(), 20))
        except RateLimited:
            return None

    with ThreadPoolExecutor(100) as pool:
        places = [place for place in pool.map(one, range(100)) if place is not None]
    assert len({place.name for place in places}) == len(places) == 20
    who = a_caller().tenant_id, a_caller().user_id
    assert followers.taken(*who, NOW) == 20
    followers.give_back(places[0])
    assert followers.taken(*who, NOW) == 19
    assert followers.take(at(), 20).name == places[0].name


@pytest.mark.holds("turns.followers")
def test_a_dead_followers_place_is_free_after_a_while_and_a_live_ones_is_not(store: Store) -> None:
    dead, live = followers.take(at(), 2), followers.take(at(), 2)
    renewed = followers.renew(live, NOW + timedelta(seconds=followers.LEASE_SECONDS - 1))
    assert renewed is not None
    late = NOW + timedelta(seconds=followers.LEASE_SECONDS + 1)
    assert followers.take(at(late), 2).name == dead.name
    with pytest.raises(RateLimited):
        followers.take(at(late), 2)
    assert followers.renew(dead, late) is None, "another has it"
    followers.give_back(dead)
    assert followers.taken(a_caller().tenant_id, a_caller().user_id, late) == 2


@pytest.mark.holds("turns.followers-ended")
def test_only_who_follows_a_running_turn_has_a_place_and_gives_it_back(store: Store) -> None:
    rules = rules_with(followers=1)
    running = in_new_chat(rules)
    where = running.turn.chat_id, running.turn.request_id
    who = a_caller().tenant_id, a_caller().user_id
    found = resume(at(), *where, 0, rules.settings)
    with pytest.raises(RateLimited):
        resume(at(), *where, 0, rules.settings)
    end(running, rules)

    async def told() -> None:
        async for _ in follow(at(), found, rules.settings, lambda: NOW):
            assert followers.taken(*who, NOW) == 1

    asyncio.run(told())
    assert followers.taken(*who, NOW) == 0
    for _ in range(3):
        assert resume(at(), *where, 0, rules.settings).place is None


@pytest.mark.holds("turns.rates-tenant")
def test_a_tenants_turns_are_limited_together_and_another_tenants_are_not(store: Store) -> None:
    rules = rules_with(tenant_turns_in_flight=3)
    users = [Call(a_caller(user=number), NOW, new_id) for number in range(2, 6)]
    running = [in_new_chat(rules, user) for user in users[:3]]
    with pytest.raises(RateLimited) as refused:
        in_new_chat(rules, users[3])
    assert (refused.value.scope, refused.value.whose, refused.value.limit) == ("turns_in_flight", "tenant", 3)
    in_new_chat(rules, Call(a_caller(tenant=9), NOW, new_id))
    end(running[0], rules)
    in_new_chat(rules, users[3])
    assert violations(Tables.of(store)) == []


def test_a_tenants_sends_of_a_minute_are_limited_together_and_forgotten(store: Store) -> None:
    rules = rules_with(tenant_sends_per_minute=3)
    for number in range(2, 5):
        in_new_chat(rules, Call(a_caller(user=number), NOW, new_id))
    with pytest.raises(RateLimited) as refused:
        in_new_chat(rules, Call(a_caller(user=9), NOW, new_id))
    assert (refused.value.scope, refused.value.whose) == ("sends_per_minute", "tenant")
    for number in range(8):
        in_new_chat(rules, Call(a_caller(user=number), NOW + timedelta(minutes=3 * (number + 1)), new_id))
    shards = [item for item in Tables.of(store).conversations if "#RATES#" in item["pk"]]
    assert sum(int(shard["fly"]) for shard in shards) == 11
    # Each write forgets, in its own shard, what was over when it was read.
    assert max(sum(name.startswith("m") for name in shard) for shard in shards) <= 2


@pytest.mark.holds("turns.rates-nothing")
def test_without_a_tenants_limit_nothing_of_it_is_read_or_written(store: Store) -> None:
    rules = rules_with(turns_in_flight=2)
    end(in_new_chat(rules), rules)
    assert [item for item in Tables.of(store).conversations if "#RATES#" in item["pk"]] == []


def test_a_turn_that_began_before_its_tenant_had_a_limit_takes_nothing_off(store: Store) -> None:
    before, after = rules_with(), rules_with(tenant_turns_in_flight=1)
    old = in_new_chat(before)
    new = in_new_chat(after)
    end(old, after)
    with pytest.raises(RateLimited):
        in_new_chat(after)
    end(new, before)
    in_new_chat(after)
