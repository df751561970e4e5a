"""The table of architecture 5, walked: every write, cut off, unanswered, made twice, and beside each of its rivals.

`make walk` prints what came of each.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from uuid import uuid4

import pytest

from minichat.domain.identity import RequestId
from minichat.services.finalize import finalize
from minichat.services.new_turn import SendMessage
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import transact, turns, usage_ledger
from tests.conftest import ROOT, fresh_tables
from tests.support.domain.builders import new_id
from tests.support.services.export_scenes import SCENES
from tests.support.services.scenes import ENDING, RULES, World, used
from tests.support.services.walk import (
    Scene,
    answers_stay_lost,
    dies,
    late,
    said,
    shape,
    table,
    together,
    writes,
)
from tests.support.storage.faults import Killed, answers_lost
from tests.support.storage.invariants import violations

ROWS = table()
RIVALS = [(name, rival) for name, row in ROWS.items() for rival in row.beside]
NOTHING = "ServiceUnavailable"
"""What everybody is told who asked and got no answer."""
LOST_RACES = {"False", "lost", "GenerationInProgress", "NotLatestTurn", "InvalidAttachment"}
"""How a write may be refused, without a trace, that met what it had not read: not always in a late request's words."""

_walked: defaultdict[str, dict[str, str]] = defaultdict(dict)


@pytest.fixture(scope="module")
def tables(engine: str) -> Store:
    return fresh_tables(engine)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is a number of attempts here."""
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", 0.0)


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[None]:
    """Prints the walk where it was asked for."""
    yield
    if os.environ.get("WALK"):
        columns = list(dict.fromkeys(column for found in _walked.values() for column in found))
        print("\n" + " | ".join(["write", *columns]))
        for name, found in _walked.items():
            print(" | ".join([name, *(found.get(column, "") for column in columns)]))


@dataclass(frozen=True)
class Undisturbed:
    """What a row's write gives, and what the tables say then, when nothing goes wrong."""

    outcome: str
    left: Counter[str]


_undisturbed: dict[str, Undisturbed] = {}


class Walk:
    """A scene of a row, and what the tables say before it."""

    def __init__(self, store: Store, name: str) -> None:
        self.name, self.row = name, ROWS[name]
        if name not in _undisturbed:
            world = World(store)
            scene = SCENES[name](world)
            _undisturbed[name] = Undisturbed(said(scene.act), shape(world.tables(), scene.changes))
        self.world = World(store)
        self.scene: Scene = SCENES[name](self.world)
        self.before = shape(self.world.tables())
        self.again, self.after = self.scene.again or self.scene.act, self.scene.after or self.scene.act
        self.undisturbed = _undisturbed[name]

    def happened(self, fault: str, outcome: str) -> None:
        """Notes the outcome; the tables say what they say when nothing goes wrong, and no invariant is broken."""
        _walked[self.name][fault] = outcome
        tables = self.world.tables()
        assert _difference(shape(tables, self.scene.changes), self.undisturbed.left) == []
        assert violations(tables) == []


def _difference(left: Counter[str], right: Counter[str]) -> list[str]:
    return [*(f"only here: {one}" for one in left - right), *(f"only there: {one}" for one in right - left)]


walked = pytest.mark.parametrize("name", ROWS)


def test_the_table_names_every_write_and_every_row_is_walked() -> None:
    assert set(ROWS) == writes() == set(SCENES)


def test_every_rival_that_the_table_names_is_met() -> None:
    assert {rival for _, rival in RIVALS} <= set(ROWS)


@walked
def test_who_dies_before_a_write_has_done_nothing(tables: Store, name: str) -> None:
    walk = Walk(tables, name)
    with dies("before"), pytest.raises(Killed):
        walk.scene.act()
    assert _difference(shape(walk.world.tables()), walk.before) == []
    walk.happened("died before", said(walk.again))


@walked
def test_what_comes_after_a_death_is_what_the_table_says(tables: Store, name: str) -> None:
    walk = Walk(tables, name)
    with dies("after"), pytest.raises(Killed):
        walk.scene.act()
    outcome = said(walk.after)
    assert outcome == walk.row.after
    walk.happened("died after", outcome)


@walked
def test_an_answer_that_is_lost_once_is_got_by_asking_again(tables: Store, name: str) -> None:
    walk = Walk(tables, name)
    with answers_lost("TransactWriteItems", 1), answers_lost("UpdateItem", 1), answers_lost("PutItem", 1):
        outcome = said(walk.scene.act)
    # A single write may find that its own first attempt has been there.
    assert outcome == walk.undisturbed.outcome or (outcome, walk.row.lost) == (walk.row.again, NOTHING)
    walk.happened("lost once", outcome)


@walked
def test_an_answer_that_stays_lost_is_what_the_table_says(tables: Store, name: str) -> None:
    walk = Walk(tables, name)
    with answers_stay_lost(questions=False):
        outcome = said(walk.scene.act)
    assert outcome == walk.row.lost
    if outcome == NOTHING:
        assert said(walk.after) == walk.row.after
    walk.happened("stays lost", outcome)


@walked
def test_when_nothing_answers_what_follows_is_as_after_a_death(tables: Store, name: str) -> None:
    walk = Walk(tables, name)
    with answers_stay_lost(questions=True):
        assert said(walk.scene.act) == NOTHING
    outcome = said(walk.after)
    assert outcome == walk.row.after
    walk.happened("nothing answers", f"{NOTHING}, {outcome}")


@walked
def test_a_write_that_is_made_twice_is_made_once(tables: Store, name: str) -> None:
    walk = Walk(tables, name)
    walk.scene.act()
    outcome = said(walk.again)
    assert outcome == walk.row.again
    walk.happened("twice", outcome)


@pytest.mark.parametrize(("name", "rival"), RIVALS)
def test_rivals_end_as_if_one_had_come_after_the_other(tables: Store, name: str, rival: str) -> None:
    """In whichever order; or the one that was late is refused without a trace."""

    def end(world: World, one: Scene) -> Counter[str]:
        if one.next_go is not None:
            one.next_go()
        left = world.tables()
        assert one.is_broken or violations(left) == []
        return shape(left)

    @cache
    def serial(order: tuple[int, ...]) -> tuple[dict[int, str], Counter[str]]:
        world = World(tables)
        one = SCENES[name](world)
        acts = one.act, one.beside[rival]
        outcomes = {number: said(acts[number]) for number in order}
        return outcomes, end(world, one)

    for way in (late, together):
        world = World(tables)
        one = SCENES[name](world)
        mine, its = way(one.act, one.beside[rival])
        _walked[name][f"beside {rival}"] = f"{mine}, {its}"
        left = end(world, one)
        tried = []
        for order in ((1, 0), (0, 1), (1,), (0,)):
            outcomes, should = serial(order)
            tried.append(outcomes)
            if _agrees(mine, outcomes.get(0)) and _agrees(its, outcomes.get(1)) and left == should:
                break
        else:
            pytest.fail(f"{way.__name__}: {mine}, {its}; one after the other: {tried}")


def _agrees(outcome: str, serial: str | None) -> bool:
    """Whether it is what a serial run gave; one that was left out there is refused here. Who looks again after its
    write may find that the chat is gone by then."""
    return outcome in (serial, "ChatNotFound") if serial is not None else outcome in LOST_RACES


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", ["turns.start", "endings.finish", "usage_ledger.book"])
def test_a_process_that_is_really_killed_leaves_the_same(tables: Store, name: str, moment: str) -> None:
    world = World(tables)
    chat, request_id, event = world.chat(), RequestId(str(uuid4())), used(world)
    command = SendMessage(chat.chat_id, "hello", request_id)
    if name == "endings.finish":
        send(world.call(), command, RULES)
    before = shape(world.tables())
    told = {
        "row": name,
        "moment": moment,
        "store": tables.model_dump(),
        "tenant_id": world.caller.tenant_id,
        "user_id": world.caller.user_id,
        "chat_id": chat.chat_id,
        "request_id": request_id,
        "event": event.model_dump(mode="json"),
    }
    command_line = [sys.executable, "-m", "tests.support.services.dying_process"]
    died = subprocess.run(command_line, cwd=ROOT, input=json.dumps(told), text=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    assert (_difference(shape(world.tables()), before) == []) == (moment == "before")

    def again() -> object:
        _, turn = turns.read(world.caller.tenant_id, chat.chat_id, request_id)
        match name:
            case "turns.start":
                return type(send(world.later(), command, RULES)).__name__
            case "endings.finish":
                assert turn is not None
                return "Ended" if finalize(world.call(), turn, ENDING, RULES.settings) else "lost"
            case _:
                return usage_ledger.book(event, new_id(world.now), retention_days=400)

    if moment == "after":
        assert said(again) == ROWS[name].after
    else:
        assert said(again) in ("RunningTurn", "Ended", "True")
    assert violations(world.tables()) == []
