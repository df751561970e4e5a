"""The bill of a turn whose process died: charged by estimate, and what it cost to run is known in part."""

import math
from datetime import timedelta
from uuid import uuid4

from minichat.domain.bill import counted_micro, ended_by, rule
from minichat.domain.identity import Call, RequestId
from minichat.domain.stream import Delta, told
from minichat.domain.turn import Turn
from minichat.http.bill_models import bill_of
from minichat.services import chats, orphans
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import leases, parts, transact
from minichat.storage.kept import kept_bytes
from tests.support.domain.builders import a_call, a_model, a_policy, new_id, unhurried

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
TOLD = "words that were told " * 20


def dead(*, called: bool) -> Turn:
    """A turn that has told something if its provider was called, and is found dead."""
    chat_id = chats.create(a_call(), chats.NewChat(), RULES).chat_id
    running = send(a_call(), SendMessage(chat_id, "hello", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    turn, call = running.turn, a_call()
    leases.progress(call, turn, provider_called=called)
    if called:
        transact.commit(parts.puts(turn, 1, [told(Delta(TOLD))], kept=timedelta(hours=1)), token=str(uuid4()))
    timeout = timedelta(seconds=RULES.settings.orphan_watchdog.timeout_seconds)
    later = Call(call.caller, call.now + timeout, new_id)
    _, ended = orphans.read_and_repair(later, turn.chat_id, turn.request_id, RULES.settings)
    assert ended is not None
    return ended


def test_a_dead_turn_is_charged_what_was_told_and_its_bill_says_who_found_it(store: Store) -> None:
    turn = dead(called=True)
    bill = bill_of(turn, kept_bytes(turn))
    # 5 bytes: (2 + 100) tokens and ten per cent; one micro-credit a token in, three a token out.
    assert (bill.estimate.message_tokens, bill.estimate.context_tokens) == (113, 0)
    assert bill.reserved.credits_micro == 113 + 4096 * 3
    assert bill.charged is not None
    assert bill.charged.credits_micro == 113 + math.ceil(len(TOLD) / 4) * 3
    assert (bill.charged.rule, bill.ended_by, bill.counted) == ("estimated", "watchdog", None)
    assert bill.run is not None
    # Whoever found it does not know what its process had spent: turn, chat, quota, answer, two events, and the index.
    assert bill.run.write_units.model_dump() == {"begin": 0, "stream": 0, "end": 13, "together": 13}
    assert (bill.run.read_units, bill.run.function_ms) == (0, 0)


def test_a_turn_that_died_before_its_provider_was_called_costs_nothing(store: Store) -> None:
    turn = dead(called=False)
    assert (rule(turn), counted_micro(turn), turn.committed_credits_micro) == ("released", 0, 0)
    assert ended_by(turn) == "watchdog"
