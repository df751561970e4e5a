"""Read units, calls, CPU and time of a send and of a list, by the chat's length, its answers' size, and its retries."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from minichat.domain.identity import ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.local.engine import Engine
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from tests.conftest import ROOT, fresh_tables
from tests.support.domain.builders import a_call, a_model, a_policy, unhurried
from tests.support.storage.read_units import counted_reads

RULES = Rules(unhurried(), a_policy(a_model(id="gpt-4.1-mini", preference={"is_default": True})))
PROSE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").encode("ascii", "ignore").decode()
SHAPES = ((0, 2, 0), (10, 2, 0), (100, 2, 0), (1000, 2, 0), (100, 8, 0), (100, 16, 0), (100, 2, 300), (100, 16, 300))
"""Turns, KB of their answers, and how often the last one was retried."""
TIMES = 8
CODEC = CursorCodec("bench")


def main() -> None:
    """Prints a row for each chat."""
    kind = "dynoxide" if (ROOT / ".tools" / "dynoxide").exists() else "ministack"
    engine = Engine(ROOT, kind, Path(tempfile.mkdtemp()))
    try:
        fresh_tables(engine.endpoint)
        print(f"\nReads of a chat ({kind}), medians of {TIMES}")
        print("messages   KB  retries   send: units  calls  CPU ms      ms   newest 20: units  calls  CPU ms      ms")
        for turns, kilobytes, retries in SHAPES:
            chat_id = _chat_of(turns, kilobytes, retries)
            sent: list[Turn] = []
            send_row = _measured(
                lambda chat_id=chat_id, sent=sent: sent.append(_sent(chat_id)),  # type: ignore[misc]
                lambda sent=sent: _gone(sent),  # type: ignore[misc]
            )
            list_row = _measured(lambda chat_id=chat_id: _listed(chat_id), lambda: None)  # type: ignore[misc]
            print(f"{2 * turns:8}{kilobytes:5}{retries:9}{send_row}{list_row:>5}", flush=True)
    finally:
        if engine.child is not None:
            engine.child.stop()


def _chat_of(turns: int, kilobytes: int, retries: int) -> ChatId:
    chat_id = chats.create(a_call(), chats.NewChat(), RULES).chat_id
    for _ in range(turns):
        latest = _ended(_sent(chat_id), kilobytes)
    for _ in range(retries):
        latest = _ended(mutate.retry(a_call(), chat_id, latest.request_id, _request_id(), RULES).turn, kilobytes)
    return chat_id


def _measured(do: Callable[[], object], after: Callable[[], object]) -> str:
    units, calls, seconds, cpu = 0, 0, list[float](), list[float]()
    for _ in range(TIMES):
        with counted_reads() as reads:
            began, used = time.perf_counter(), time.process_time()
            do()
            seconds.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
        units, calls = max(units, reads.sum), max(calls, len(reads.units))
        after()
    return f"{units:14}{calls:7}{statistics.median(cpu) * 1000:8.1f}{statistics.median(seconds) * 1000:8.1f}"


def _sent(chat_id: ChatId) -> Turn:
    running = send(a_call(), SendMessage(chat_id, PROSE[:1024], _request_id()), RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def _ended(turn: Turn, kilobytes: int = 2) -> Turn:
    text = PROSE[3000 : 3000 + 1024 * kilobytes]
    finalize(a_call(), turn, Ending(TurnState.COMPLETED, text=text), RULES.settings)
    return turn


def _gone(sent: list[Turn]) -> None:
    turn = _ended(sent.pop())
    mutate.delete(a_call(), turn.chat_id, turn.request_id, RULES.settings)


def _listed(chat_id: ChatId) -> None:
    listing.messages(a_call(), CODEC, chat_id, listing.Query(20, None, orderby="created_at desc"))


def _request_id() -> RequestId:
    return RequestId(str(uuid4()))


if __name__ == "__main__":
    main()
