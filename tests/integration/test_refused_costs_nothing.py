"""What a provider refuses has cost nobody anything: every API, every status, over real sockets and a real engine."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from uuid import uuid4

import httpx2
import pytest

from minichat.domain.turn import Turn, TurnState
from minichat.provider_entries import Provider, as_configured
from minichat.providers import transport
from minichat.providers.registry import Providers
from minichat.services import cancel, generate
from minichat.services.reconcile_quota import reconcile
from minichat.settings import Store
from tests.integration.test_generate import a_running_turn, some_rules, stored, told
from tests.support.domain.builders import a_call
from tests.support.patience import PATIENCE
from tests.support.providers.files import a_scripted_provider
from tests.support.providers.kinds import KINDS, Kind
from tests.support.storage.invariants import Tables, violations

CODES = {
    **dict.fromkeys((401, 403, 404, 500, 502, 503, 520, 529), "provider_error"),
    **dict.fromkeys((408, 504, 524), "provider_timeout"),
    **dict.fromkeys((400, 422), "validation_error"),
    413: "context_length_exceeded",
    429: "rate_limited",
}
REFUSALS = {
    **{f"[[status:{status}]]": code for status, code in CODES.items()},
    # Also as the first word of a stream, and as a document.
    "[[say:]][[error:context_length_exceeded]]": "context_length_exceeded",
    "[[problem]]": "provider_error",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as address:
        yield address


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.holds("turns.refused-free")
async def test_a_refusal_costs_nothing_and_gives_the_reserve_back(url: str, store: Store, kind: Kind) -> None:
    rules, providers = some_rules(), Providers(as_configured({"openai": kind.entry(url)}))
    machine = generate.AnswerDeps(rules.settings, providers, lambda: a_call().now)
    ends = {}
    for script in REFUSALS:
        running = a_running_turn(rules, content=script)
        last = (await told(generate.begin(a_call(), running, machine)))[-1]
        turn = stored(running)
        assert turn.state is TurnState.FAILED, script
        ends[script] = last.data.get("code")
        assert (turn.error_code, turn.settlement_method, turn.committed_credits_micro) == (ends[script], "released", 0)
    await providers.aclose()
    assert ends == REFUSALS
    found = reconcile()
    assert (found.turns, found.differences, found.undecided) == (len(REFUSALS), [], [])
    tables = Tables.of(store)
    (quota,) = (item for item in tables.conversations if item["sk"].startswith("QUOTA#"))
    # Tokens that a provider counts before it says no are told, and not charged.
    beside = {"pk", "sk", "expires_at", "in", "out"}
    numbers = {name: int(value) for name, value in quota.items() if name not in beside}
    assert (numbers.pop("turns"), numbers.pop("calls")) == (len(REFUSALS), len(REFUSALS))
    assert set(numbers.values()) == {0}, "neither spent nor reserved, this month or today"
    assert violations(tables) == []


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("is_there", [True, False], ids=["refused", "unreachable"])
@pytest.mark.holds("turns.refused-free")
async def test_who_stops_while_a_provider_that_said_no_is_asked_again_pays_nothing(
    url: str, store: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    refused = asyncio.Event()

    def long(_: float) -> float:
        refused.set()
        return transport.MAX_PAUSE_SECONDS

    monkeypatch.setattr(transport, "MAX_PAUSE_SECONDS", 30.0)
    monkeypatch.setattr(transport, "jittered", long)
    entry = kind.entry(url if is_there else NOBODY, retries=5)
    turn = await _stopped(entry, "[[status:503]]", refused.wait)
    assert (turn.state, turn.settlement_method, turn.committed_credits_micro) == (TurnState.CANCELLED, "released", 0)
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize(
    ("script", "asked"),
    [("[[hold-start:never]]", 1), ("[[status:503]][[fail-times:1]][[hold-start:never]]", 2)],
)
async def test_who_stops_while_somebody_may_be_at_work_pays_for_it(
    url: str, store: Store, script: str, asked: int
) -> None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as control:

        async def calls() -> int:
            return int((await control.get("/control/stats")).json()["calls"])

        before = await calls()

        async def at_work() -> None:
            while await calls() < before + asked:  # its own requests pace it
                pass

        turn = await _stopped(KINDS[0].entry(url, retries=5), script, at_work)
    assert (turn.state, turn.settlement_method) == (TurnState.CANCELLED, "estimated")
    assert turn.committed_credits_micro
    assert violations(Tables.of(store)) == []


async def _stopped(entry: Provider, script: str, waiting: Callable[[], Awaitable[object]]) -> Turn:
    """How a turn ended that was cancelled once it waited for its provider."""
    rules, providers = some_rules(), Providers(as_configured({"openai": entry}))
    running = a_running_turn(rules, content=f"{script}{uuid4()}")
    reading = asyncio.create_task(
        told(generate.begin(a_call(), running, generate.AnswerDeps(rules.settings, providers, lambda: a_call().now)))
    )
    await asyncio.wait_for(waiting(), PATIENCE)
    await asyncio.to_thread(cancel.cancel, a_call(), running.turn.chat_id, running.turn.request_id, rules.settings)
    await reading
    await providers.aclose()
    return stored(running)
