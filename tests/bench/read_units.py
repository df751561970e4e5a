"""Read units and milliseconds of a send and of a list in a chat with history, after 0, 10 and 300 retries of a turn."""

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
from minichat.settings import Settings
from tests.conftest import ROOT, fresh_tables
from tests.support.domain.builders import a_call, a_model, a_policy
from tests.support.storage.read_units import counted_reads

RULES = Rules(Settings(), a_policy(a_model(id="gpt-4.1-mini", preference={"is_default": True})))
PROSE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TURNS, RETRIES, TIMES = 75, (0, 10, 300), 8
CODEC = CursorCodec("bench")


def main() -> None:
    """Prints a row for each number of retries; the answers have 2 KB."""
    kind = "dynoxide" if (ROOT / ".tools" / "dynoxide").exists() else "ministack"
    engine = Engine(ROOT, kind, Path(tempfile.mkdtemp()))
    try:
        fresh_tables(engine.endpoint)
        chat_id = chats.create(a_call(), chats.NewChat(), RULES).chat_id
        for _ in range(TURNS):
            latest = _ended(_sent(chat_id))
        print(f"\nReads of a chat of {TURNS} turns, answers of 2 KB ({kind})")
        print("retries   send: units      ms   newest 20: units      ms")
        done = 0
        for retries in RETRIES:
            for _ in range(retries - done):
                latest = _ended(mutate.retry(a_call(), chat_id, latest.request_id, _request_id(), RULES).turn)
            done = retries
            sent: list[Turn] = []
            send_units, send_ms = _measured(lambda sent=sent: sent.append(_sent(chat_id)), lambda s=sent: _gone(s))  # type: ignore[misc]
            list_units, list_ms = _measured(lambda: _listed(chat_id), lambda: None)
            print(f"{retries:7}{send_units:14}{send_ms:8.1f}{list_units:19}{list_ms:8.1f}")
    finally:
        if engine.child is not None:
            engine.child.stop()


def _measured(do: Callable[[], object], after: Callable[[], object]) -> tuple[int, float]:
    units, seconds = 0, []
    for _ in range(TIMES):
        with counted_reads() as reads:
            began = time.perf_counter()
            do()
            seconds.append(time.perf_counter() - began)
        units = max(units, reads.sum)
        after()
    return units, statistics.median(seconds) * 1000


def _sent(chat_id: ChatId) -> Turn:
    running = send(a_call(), SendMessage(chat_id, PROSE[:1024], _request_id()), RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def _ended(turn: Turn) -> Turn:
    finalize(a_call(), turn, Ending(TurnState.COMPLETED, text=PROSE[3000:5048]), RULES.settings)
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
