"""Quota as a user sees it: what is left, the warning, the downgrade, and the end of it."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minichat.local.issuer import as_uuid
from minichat.services.policy_in_force import SHIPPED_POLICY
from tests.conftest import running_stack
from tests.support.http.client import Answer, Stack
from tests.support.patience import PATIENCE

SEARCHES_A_DAY = 3
SEARCHING = {"web_search": {"enabled": True}}


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose users `small` and `none` have limits of their own, of one premium reserve and of nothing."""
    policy: dict[str, Any] = json.loads(SHIPPED_POLICY.read_text())
    plenty = policy["user_limits"]["default"]["standard"]

    def premium(micro: int) -> dict[str, Any]:
        return {"limit_daily_credits_micro": micro, "limit_monthly_credits_micro": micro}

    policy["user_limits"]["users"] = {
        as_uuid("small"): {"standard": plenty, "premium": premium(270_000)},
        as_uuid("none"): {"standard": premium(1000), "premium": premium(1000)},
    }
    folder: Path = tmp_path_factory.mktemp("metered")
    (folder / "policy.json").write_text(json.dumps(policy))
    searches = {"MINICHAT_QUOTA__WEB_SEARCH_DAILY_QUOTA": str(SEARCHES_A_DAY)}
    with running_stack(folder / "state", "--policy", str(folder / "policy.json"), environment=searches) as stack:
        yield stack


def _status(stack: Stack, user: str) -> dict[str, dict[str, dict[str, Any]]]:
    with stack.user("acme", user) as one:
        status = one.http.get("/quota/status").json()
    assert status["warning_threshold_pct"] == 80
    return {tier["tier"]: {period["period"]: period for period in tier["periods"]} for tier in status["tiers"]}


@pytest.mark.holds("turns.premium-in-both", "turns.cascade")
def test_a_used_up_premium_quota_downgrades_and_is_told(metered: Stack) -> None:
    with metered.user("acme", "small") as user:
        first = user.send(user.new_chat(), "[[say:premium]][[usage:10000,10000]]")
        done = first.events[-1].data
        assert (done["quota_decision"], done["effective_model"]) == ("allow", "gpt-4.1")
        daily = next(w for w in done["quota_warnings"] if (w["tier"], w["period"]) == ("premium", "daily"))
        assert (daily["remaining_percentage"], daily["warning"], daily["exhausted"]) == (62, False, False)
        second = user.send(user.new_chat(), "[[say:standard]]")
        done = second.events[-1].data
        assert (done["quota_decision"], done["downgrade_reason"]) == ("downgrade", "premium_quota_exhausted")
        assert (done["selected_model"], done["effective_model"]) == ("gpt-4.1", "gpt-4.1-mini")
        assert done["downgrade_from"] == "gpt-4.1"
    used = _status(metered, "small")
    assert used["premium"]["daily"]["used_credits_micro"] == 10_000 * 2 + 10_000 * 8
    assert used["premium"]["daily"]["remaining_credits_micro"] == 270_000 - 100_000
    assert used["total"]["daily"]["used_credits_micro"] > 100_000


@pytest.mark.holds("contract.durable", "turns.refused-nothing")
def test_without_any_room_a_send_is_refused_and_leaves_no_trace(metered: Stack) -> None:
    with metered.user("acme", "none") as user:
        chat_id = user.new_chat()
        refused = user.send(chat_id, "hello")
        assert (refused.status, refused.problem["code"], refused.problem["quota_scope"]) == (
            429,
            "quota_exceeded",
            "tokens",
        )
        # No day has as much as this reserve: waiting for the next does not help.
        assert refused.problem["quota_tier"] == "total"
        assert not {"next_reset", "retry_after_seconds"} & refused.problem.keys()
        assert user.messages(chat_id) == []
        assert user.chat(chat_id)["message_count"] == 0
    assert _status(metered, "none")["total"]["daily"]["used_credits_micro"] == 0


@pytest.mark.holds("contract.quota-status")
def test_a_running_turns_reserve_counts_as_used(metered: Stack) -> None:
    with metered.user("acme", "busy") as user:
        body = {"content": "[[hold:quota]]"}
        with user.streaming("POST", f"/chats/{user.new_chat()}/messages:stream", json=body) as (_, events):
            next(events)
            running = _status(metered, "busy")["total"]["daily"]
            assert running["used_credits_micro"] > 262_144
            metered.release("quota")
            list(events)
        assert _status(metered, "busy")["total"]["daily"]["used_credits_micro"] < 1000
    assert running["next_reset"].endswith("T00:00:00Z")


@pytest.mark.holds("contract.quota-status")
def test_ten_chats_at_once_search_no_more_often_than_a_day_allows(metered: Stack) -> None:
    with metered.user("acme", "searcher") as user:
        chats, start = [user.new_chat() for _ in range(10)], threading.Barrier(10)

        def ask(chat_id: str) -> Answer:
            start.wait(PATIENCE)
            return user.send(chat_id, "[[say:found]][[tool:web_search]][[tool:web_search]]", **SEARCHING)

        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(ask, chats))
        begun = [event for answer in answers for event in answer.events if event.name == "tool"]
        assert sum(event.data["phase"] == "start" for event in begun) == SEARCHES_A_DAY
        refused = [answer.problem for answer in answers if answer.status != 200]
        assert {(problem["code"], problem["quota_scope"]) for problem in refused} == {("quota_exceeded", "web_search")}
        again = user.http.post(f"/chats/{chats[0]}/messages:stream", json={"content": "more", **SEARCHING})
        problem = again.json()
        assert (problem["quota_scope"], problem["quota_period"]) == ("web_search", "daily")
        assert problem["next_reset"].endswith("T00:00:00Z")
        assert again.headers["retry-after"] == str(problem["retry_after_seconds"])
        assert 1 <= problem["retry_after_seconds"] <= 86_400
        counts = {(one["scope"], one["unit"]): one for one in user.http.get("/quota/status").json()["counts"]}
        searches = counts["web_search", "calls"]
        assert (searches["limit"], searches["used"], searches["remaining"]) == (SEARCHES_A_DAY, SEARCHES_A_DAY, 0)
        assert searches["exhausted"]
        assert searches["next_reset"] == problem["next_reset"]
        tools = [(tool, "calls") for tool in ("web_search", "code_interpreter", "file_search")]
        assert [*counts] == [*tools, ("image_inputs", "images"), ("uploads", "files"), ("uploads", "bytes")]
        assert {name: counts[name]["limit"] for name in counts if name != ("web_search", "calls")} == {
            **{("code_interpreter", "calls"): 50, ("file_search", "calls"): 200},
            **{("image_inputs", "images"): 50, ("uploads", "files"): 100, ("uploads", "bytes"): 500 * 1024 * 1024},
        }
        # Who wants no search is answered.
        assert user.send(chats[0], "[[say:more]]").text == "more"
