"""The store's clock is heard with every answer, and one that was never heard is asked for."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from minichat import moment
from minichat.domain.store_clock import Offset
from minichat.storage import store_time, transact
from minichat.storage.items import READ_ATTEMPTS, connection
from tests.clocks import MOVED
from tests.conftest import fresh_tables
from tests.support.storage.faults import answered_instead, counted_calls, refused


@pytest.fixture(autouse=True)
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not heard of the store yet."""
    monkeypatch.setattr(moment, "_offset", Offset())


@pytest.fixture
def slow_by(monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """This process's clock is an hour behind."""
    behind, right = timedelta(hours=1), time.time
    monkeypatch.setattr(time, "time", lambda: right() - behind.total_seconds())
    return behind


def off_by() -> timedelta:
    return moment.now() - datetime.now(UTC)


@pytest.mark.holds("turns.store-clock")
def test_every_engine_tells_its_time(any_engine: str, slow_by: timedelta, request: pytest.FixtureRequest) -> None:
    if MOVED and request.node.callspec.params["any_engine"] == "dynoxide":
        pytest.skip("dynoxide asks the kernel, whose clock is not moved")
    fresh_tables(any_engine)
    moment._offset = Offset()  # making the tables has answered, too
    assert off_by() < -slow_by + timedelta(seconds=5)
    with counted_calls() as calls:
        store_time.ask()
        store_time.ask()
    assert calls == ["BatchGetItem"], "asked once"
    assert abs(off_by()) < timedelta(seconds=10)


@pytest.mark.usefixtures("store")
def test_a_refusal_tells_the_time_as_well(slow_by: timedelta) -> None:
    moment._offset = Offset()
    client: Any = vars(connection())["_client"].blocking
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_item(TableName="nothing-of-that-name", Key={"pk": {"S": "x"}})
    assert abs(off_by()) < timedelta(seconds=10)


@pytest.mark.usefixtures("store")
def test_an_answer_without_a_date_leaves_the_clock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    moment._offset = Offset()
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", 0.0)
    with answered_instead("BatchGetItem", [refused("ThrottlingException")] * READ_ATTEMPTS):
        store_time.ask()
    assert not moment.has_heard()
