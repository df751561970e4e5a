"""What is limited by its number per user and day: images, searches in files, uploads. Searches of the web have tests in
test_quota."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from minichat.domain import errors
from minichat.domain.attachment import Attachment, ErrorCode
from minichat.domain.chat import Chat
from minichat.domain.day_counts import DayCounts
from minichat.domain.identity import RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reconcile_quota import reconcile
from minichat.services.send import send
from minichat.settings import Quota, Store
from minichat.storage import attachment_steps, quota
from tests.conftest import fresh_tables
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.patience import PATIENCE
from tests.support.services import ready_files
from tests.support.storage.invariants import Tables, violations
from tests.support.storage.racing import until_answered

MODEL = a_model(
    preference={"is_default": True},
    multimodal_capabilities=["VISION_INPUT"],
    general_config={"tool_support": {"file_search": True}},
)
MB = 1024 * 1024


def rules_with(**limits: int) -> Rules:
    return Rules(unhurried(quota=Quota(**limits)), a_policy(MODEL))


def a_file(chat: Chat, rules: Rules, *, image: bool = False) -> Attachment:
    kind = ("image/png", "a.png") if image else ("application/pdf", "a.pdf")
    return ready_files.ready(a_call(), ready_files.announced(a_call(), chat, rules, *kind))


def sent(chat: Chat, rules: Rules, *images: Attachment) -> Turn:
    command = SendMessage(chat.chat_id, "x", RequestId(new_id(NOW)), tuple(one.attachment_id for one in images))
    running = send(a_call(), command, rules)
    assert isinstance(running, RunningTurn)
    return running.turn


def used(rules: Rules) -> DayCounts:
    caller = a_caller()
    return quota.read(caller.tenant_id, caller.user_id, rules.policy.user_limits.default, NOW).daily.counts


def at_once(acts: list[Callable[[], Turn | Attachment]]) -> list[Turn | Attachment | errors.UsedUp]:
    """What each came to, all begun at the same moment."""
    start = threading.Barrier(len(acts))

    def one(act: Callable[[], Turn | Attachment]) -> Turn | Attachment | errors.UsedUp:
        start.wait(PATIENCE)
        try:
            return until_answered(act)
        except errors.QuotaExceeded as refusal:
            return refusal.limit

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(one, acts))


TOMORROW = (NOW + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def refused(limit: object, scope: str) -> bool:
    """Whether a limit of the day was named, and when it begins anew."""
    return isinstance(limit, errors.UsedUp) and (limit.scope, limit.tier, limit.period, limit.next_reset) == (
        scope,
        None,
        "daily",
        TOMORROW,
    )


@pytest.mark.holds("turns.images-day")
def test_parallel_turns_never_show_models_more_images_than_a_day_allows(any_engine: str) -> None:
    store, rules = fresh_tables(any_engine), rules_with(image_inputs_daily_quota=7)
    chat_list = [chats.create(a_call(), chats.NewChat(), rules) for _ in range(16)]
    images = [[a_file(chat, rules, image=True) for _ in range(2)] for chat in chat_list]
    outcomes = at_once(
        [lambda chat=chat, two=two: sent(chat, rules, *two) for chat, two in zip(chat_list, images, strict=True)]  # type: ignore[misc]
    )
    started = [one for one in outcomes if isinstance(one, Turn)]
    assert (len(started), used(rules).image_inputs) == (3, 6)
    assert all(refused(one, "image_inputs") for one in outcomes if not isinstance(one, Turn))
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize(
    ("ending", "counted"),
    [
        (Ending(TurnState.COMPLETED, text="a"), 2),
        (Ending(TurnState.FAILED, "provider_error"), 2),
        (Ending(TurnState.CANCELLED), 2),
        (Ending(TurnState.CANCELLED, provider_called=False), 0),
        (Ending(TurnState.FAILED, "rate_limited", refused=True), 0),
        (Ending(TurnState.FAILED, "orphan_timeout", provider_called=False), 0),
    ],
)
@pytest.mark.holds("turns.given-back")
def test_images_that_no_model_was_paid_to_look_at_are_given_back(store: Store, ending: Ending, counted: int) -> None:
    rules = rules_with(image_inputs_daily_quota=2)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    images = a_file(chat, rules, image=True), a_file(chat, rules, image=True)
    turn = sent(chat, rules, *images)
    assert used(rules).image_inputs == 2
    assert finalize(a_call(), turn, ending, rules.settings)
    assert used(rules).image_inputs == counted
    if counted:
        with pytest.raises(errors.QuotaExceeded) as refusal:
            mutate.retry(a_call(), chat.chat_id, turn.request_id, RequestId(new_id(NOW)), rules)
        assert refused(refusal.value.limit, "image_inputs")
    assert violations(Tables.of(store)) == []
    assert reconcile().differences == []


@pytest.mark.holds("turns.no-reset")
def test_more_images_than_a_whole_day_allows_are_refused_without_a_time_to_wait_for(store: Store) -> None:
    rules = rules_with(image_inputs_daily_quota=1)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    images = a_file(chat, rules, image=True), a_file(chat, rules, image=True)
    with pytest.raises(errors.QuotaExceeded) as refusal:
        sent(chat, rules, *images)
    assert refusal.value.limit == errors.UsedUp("image_inputs", period="daily")


@pytest.mark.holds("turns.file-search-day")
def test_parallel_turns_never_search_files_more_often_than_a_day_allows(any_engine: str) -> None:
    store = fresh_tables(any_engine)
    rules = rules_with(file_search_daily_quota=7, file_search_max_calls_per_message=2)
    chat_list = [chats.create(a_call(), chats.NewChat(), rules) for _ in range(16)]
    for chat in chat_list:
        a_file(chat, rules)
    outcomes = at_once([lambda chat=chat: sent(chat, rules) for chat in chat_list])  # type: ignore[misc]
    started = [one for one in outcomes if isinstance(one, Turn)]
    assert (sum(turn.reserve.file_search_calls for turn in started), used(rules).file_search) == (7, 7)
    assert all(refused(one, "file_search") for one in outcomes if not isinstance(one, Turn))
    for turn in started:
        ending = Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(file_search=1))
        assert finalize(a_call(), turn, ending, rules.settings)
    assert used(rules).file_search == len(started)
    assert violations(Tables.of(store)) == []
    assert reconcile().differences == []


def test_a_chat_without_documents_is_answered_when_no_search_in_files_is_left(store: Store) -> None:
    rules = rules_with(file_search_daily_quota=0)
    assert sent(chats.create(a_call(), chats.NewChat(), rules), rules).reserve.file_search_calls == 0


@pytest.mark.parametrize(
    ("limits", "fit"), [({"uploads_daily_quota": 5}, 5), ({"upload_mb_daily_quota": 10}, 3)], ids=["files", "bytes"]
)
@pytest.mark.holds("turns.uploads-day")
def test_parallel_uploads_never_exceed_a_day(any_engine: str, limits: dict[str, int], fit: int) -> None:
    store, rules = fresh_tables(any_engine), rules_with(**limits)
    chat_list = [chats.create(a_call(), chats.NewChat(), rules) for _ in range(16)]
    outcomes = at_once([lambda chat=chat: announced(chat, rules, 3 * MB) for chat in chat_list])  # type: ignore[misc]
    got_in = [one for one in outcomes if isinstance(one, Attachment)]
    # Who was told 503 may have got in all the same, and is refused when it asks once more.
    assert len(got_in) <= fit
    assert (used(rules).uploads, used(rules).upload_bytes) == (fit, fit * 3 * MB)
    assert all(refused(one, "uploads") for one in outcomes if not isinstance(one, Attachment))
    assert violations(Tables.of(store)) == []


def announced(chat: Chat, rules: Rules, size: int) -> Attachment:
    return ready_files.announced(a_call(), chat, rules, "application/pdf", "a.pdf", size)


@pytest.mark.parametrize("limits", [{"uploads_daily_quota": 0}, {"upload_mb_daily_quota": 2}])
def test_what_is_more_than_a_whole_day_allows_is_refused_on_an_untouched_day(
    store: Store, limits: dict[str, int]
) -> None:
    rules = rules_with(**limits)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    before = Tables.of(store)
    with pytest.raises(errors.QuotaExceeded) as refusal:
        announced(chat, rules, 3 * MB)
    assert refusal.value.limit == errors.UsedUp("uploads", period="daily")
    assert Tables.of(store) == before


@pytest.mark.parametrize(
    ("code", "counted"),
    [("upload_abandoned", 0), ("upload_failed", 0), ("vector_store_failed", 0), ("invalid_image", 1)],
)
@pytest.mark.holds("turns.file-counted")
def test_a_file_that_never_came_is_given_back_and_one_that_was_wrong_is_not(
    store: Store, code: ErrorCode, counted: int
) -> None:
    rules = rules_with()
    file = announced(chats.create(a_call(), chats.NewChat(), rules), rules, 9)
    # The next day: what is given back goes to the day that it was taken from.
    later = replace(a_call(), now=NOW + timedelta(days=1))
    assert attachment_steps.take(file, "w", now=later.now, until=later.now)
    assert attachment_steps.failed(file, "w", code, nothing_left=True, token=new_id(later.now))
    assert (used(rules).uploads, used(rules).upload_bytes) == (counted, 9 * counted)
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.file-counted")
def test_a_deleted_file_stays_counted_and_a_second_try_with_its_key_is_not(store: Store) -> None:
    rules = rules_with()
    chat = chats.create(a_call(), chats.NewChat(), rules)
    first, again = (ready_files.announced(a_call(), chat, rules, "text/plain", "a.txt", key="k") for _ in range(2))
    assert first.attachment_id == again.attachment_id
    assert attachment_steps.delete(a_call(), first, [])
    assert used(rules).uploads == 1
    assert violations(Tables.of(store)) == []
