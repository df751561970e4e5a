"""The five checks of a mutation, in their order, and what a chat's instants guarantee."""

from datetime import timedelta
from typing import Any

import pytest

from minichat.domain import errors
from minichat.domain.chat import Chat, clean_title, next_instant
from minichat.domain.chat_visibility import visible
from minichat.domain.identity import RequestId, UserId
from minichat.domain.mutation import check_mutation
from minichat.domain.orphan import is_orphan, never_began
from minichat.domain.turn import Turn, TurnState, readable
from tests.support.domain.builders import NOW, a_caller, a_chat, a_turn

CALLER = a_caller()
OTHER = RequestId("00000000-0000-4000-8000-0000000000ff")


def _latest(turn: Turn) -> Chat:
    return a_chat(CALLER, latest_request_id=turn.request_id)


def test_the_latest_terminal_turn_of_ones_own_chat_may_be_changed() -> None:
    turn = a_turn(CALLER, state=TurnState.COMPLETED)
    chat = _latest(turn)
    assert check_mutation(CALLER, chat, turn, turn.request_id) == (chat, turn)


# Each row breaks one more check than the next: the first broken one decides.
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (5, errors.ChatNotFound),
        (4, errors.TurnNotFound),
        (3, errors.Forbidden),
        (2, errors.InvalidTurnState),
        (1, errors.NotLatestTurn),
    ],
)
@pytest.mark.holds("contract.checks")
def test_the_first_check_that_fails_decides(broken: int, expected: type[errors.ChatError]) -> None:
    turn = a_turn(
        CALLER,
        state=TurnState.RUNNING if broken >= 2 else TurnState.COMPLETED,
        requester_user_id=UserId("someone else") if broken >= 3 else CALLER.user_id,
    )
    chat = a_chat(CALLER, latest_request_id=OTHER, deleted_at=NOW if broken >= 5 else None)
    with pytest.raises(expected):
        check_mutation(CALLER, chat, None if broken >= 4 else turn, turn.request_id)


def test_a_deleted_turn_exists_for_mutations_and_is_not_the_latest() -> None:
    turn = a_turn(CALLER, state=TurnState.COMPLETED, deleted_at=NOW)
    with pytest.raises(errors.NotLatestTurn):
        check_mutation(CALLER, _latest(turn), turn, turn.request_id)


def test_a_deleted_turn_cannot_be_read() -> None:
    with pytest.raises(errors.TurnNotFound):
        readable(a_turn(CALLER, deleted_at=NOW))


@pytest.mark.parametrize(
    "chat",
    [
        None,
        a_chat(a_caller(user=7)),
        a_chat(a_caller(tenant=7)),
        a_chat(CALLER, deleted_at=NOW),
    ],
)
@pytest.mark.holds("contract.same-404")
def test_unknown_foreign_and_deleted_chats_are_the_same_404(chat: Chat | None) -> None:
    with pytest.raises(errors.ChatNotFound) as refusal:
        visible(chat, CALLER)
    assert str(refusal.value) == errors.ChatNotFound.detail


def test_a_message_never_happens_before_one_that_the_chat_has() -> None:
    behind = NOW - timedelta(seconds=30)
    assert next_instant(a_chat(CALLER, last_message_at=NOW), behind) == NOW + timedelta(microseconds=1)
    assert next_instant(a_chat(CALLER, last_message_at=behind), NOW) == NOW


@pytest.mark.parametrize(("title", "kept"), [("  Paris ", "Paris"), ("x" * 255, "x" * 255), ("\u00a0a\u3000", "a")])
def test_titles_are_trimmed(title: str, kept: str) -> None:
    assert clean_title(title) == kept


@pytest.mark.parametrize("title", ["", "   ", "\u3000", "x" * 256])
def test_titles_that_say_nothing_or_too_much_are_refused(title: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refusal:
        clean_title(title)
    assert refusal.value.errors[0].field == "title"


@pytest.mark.parametrize(
    ("said", "orphan", "unbegun"),
    [
        ({"last_progress_at": NOW}, True, True),
        ({"last_progress_at": NOW + timedelta(microseconds=1)}, False, False),
        ({"last_progress_at": NOW, "state": TurnState.COMPLETED}, False, False),
        ({"last_progress_at": NOW, "provider_request_started_at": NOW}, True, False),
        ({"last_progress_at": NOW, "cancel_requested_at": NOW}, True, False),
    ],
)
def test_a_running_turn_is_an_orphan_from_the_instant_on_that_it_may_be_silent_until(
    said: dict[str, Any], orphan: bool, unbegun: bool
) -> None:
    turn = a_turn(CALLER, **said)
    assert (is_orphan(turn, NOW), never_began(turn, NOW)) == (orphan, unbegun)
