"""Reactions beside each other and beside the end of their message, on a real engine."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from uuid import uuid4

from minichat.domain.errors import MessageNotFound
from minichat.domain.identity import RequestId
from minichat.domain.message import Reaction
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reactions import react, take_back
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import reactions
from tests.support.domain.builders import a_call, a_model, a_policy, unhurried
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
AT_ONCE = 16


def answered() -> Turn:
    chat = chats.create(a_call(), chats.NewChat(), RULES)
    running = send(a_call(), SendMessage(chat.chat_id, "hello", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(3, 1))
    assert finalize(a_call(), running.turn, ending, RULES.settings) is not None
    return running.turn


def told(store: Store) -> list[str]:
    items = sorted(Tables.of(store).outbox, key=lambda item: str(item["sk"]))
    return [item["type"] for item in items if item["type"].startswith("reaction_")]


def test_of_reactions_at_once_the_last_one_stays_and_each_change_is_told(store: Store) -> None:
    turn = answered()
    barrier = Barrier(AT_ONCE)

    def one(number: int) -> None:
        wish: Reaction = "like" if number % 2 else "dislike"
        barrier.wait(PATIENCE)
        react(a_call(), turn.chat_id, turn.assistant_message_id, wish)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = [pool.submit(one, number) for number in range(AT_ONCE)]
    # Who is overtaken again and again may be told to come back; nobody's reaction is half done.
    assert any(outcome.exception() is None for outcome in outcomes)
    _, now = reactions.read(turn.tenant_id, turn.chat_id, turn.assistant_message_id)
    assert now is not None
    assert now.reaction in ("like", "dislike")
    assert set(told(store)) == {"reaction_set"}
    assert violations(Tables.of(store)) == []


def test_a_reaction_beside_the_deletion_of_its_turn_is_there_before_or_not_at_all(store: Store) -> None:
    for _ in range(10):
        turn, before = answered(), len(told(store))
        barrier = Barrier(2)

        def deleting(turn: Turn = turn, barrier: Barrier = barrier) -> None:
            barrier.wait(PATIENCE)
            mutate.delete(a_call(), turn.chat_id, turn.request_id, RULES.settings)

        def reacting(turn: Turn = turn, barrier: Barrier = barrier) -> None:
            barrier.wait(PATIENCE)
            with suppress(MessageNotFound):
                react(a_call(), turn.chat_id, turn.assistant_message_id, "like")

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(deleting), pool.submit(reacting)]:
                done.result()
        assert len(told(store)) - before in (0, 1)
        _, now = reactions.read(turn.tenant_id, turn.chat_id, turn.assistant_message_id)
        assert now is None
        with suppress(MessageNotFound):
            take_back(a_call(), turn.chat_id, turn.assistant_message_id)
    assert violations(Tables.of(store)) == []
