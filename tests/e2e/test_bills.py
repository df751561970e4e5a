"""The bill of each kind of turn, by figures that come from the request, the policy and the scripted provider alone."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from minichat.local.issuer import as_uuid
from minichat.services.policy_in_force import SHIPPED_POLICY
from minichat.settings import Store
from tests.conftest import running_stack
from tests.support.events.consumers import minichat
from tests.support.http.client import Stack, User
from tests.support.http.given_files import a_picture, ended, uploaded
from tests.support.storage.invariants import Tables

TENANT = "billed"
PREMIUM, STANDARD = (2, 8), (0.4, 1.6)
"""Micro-credits of a token in and a token out, in the policy that ships."""
LONGEST = 32_768
PROMPT = "You are a helpful assistant. Answer in the language of the question, precisely and briefly."
_searches = {"web_search": {"enabled": True}}


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose user `small` has no premium credits at all."""
    policy: dict[str, Any] = json.loads(SHIPPED_POLICY.read_text())
    nothing = {"limit_daily_credits_micro": 1, "limit_monthly_credits_micro": 1}
    standard = policy["user_limits"]["default"]["standard"]
    policy["user_limits"]["users"] = {as_uuid("small"): {"standard": standard, "premium": nothing}}
    folder: Path = tmp_path_factory.mktemp("billing")
    (folder / "policy.json").write_text(json.dumps(policy))
    with running_stack(folder / "state", "--policy", str(folder / "policy.json")) as stack:
        yield stack


@pytest.fixture
def ann(billing: Stack) -> Iterator[User]:
    with billing.user(TENANT) as one:
        yield one


BILLED: list[dict[str, Any]] = []
"""Every bill of the tenant, so that usage can be compared with all of them."""


def bill_of(user: User, chat_id: str, request_id: str) -> dict[str, Any]:
    answer = user.http.get(f"/chats/{chat_id}/turns/{request_id}/bill")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    if told["charged"] is not None and told not in BILLED:
        BILLED.append(told)
    return told


def message_tokens(text: str) -> int:
    """Four bytes a token, a hundred besides, ten per cent on top."""
    return math.ceil((math.ceil(len(text.encode()) / 4) + 100) * 11 / 10)


def price(rates: tuple[float, float], tokens_in: int, tokens_out: int) -> int:
    return math.ceil(tokens_in * rates[0]) + math.ceil(tokens_out * rates[1])


def input_of(bill: dict[str, Any]) -> int:
    return sum(tokens for name, tokens in bill["estimate"].items() if name != "answer_tokens")


def check_reserve(bill: dict[str, Any], text: str, rates: tuple[float, float], **besides: int) -> None:
    """What was estimated comes together to what was set aside, at these prices."""
    context = bill["estimate"]["context_tokens"]
    assert bill["estimate"] == {
        "message_tokens": message_tokens(text),
        "context_tokens": context,
        "image_tokens": besides.get("images", 0),
        "tool_tokens": besides.get("tools", 0),
        "answer_tokens": LONGEST,
    }
    assert context >= math.ceil(len(PROMPT) / 4)
    assert bill["reserved"]["tokens"] == input_of(bill) + LONGEST
    assert bill["reserved"]["credits_micro"] == price(rates, input_of(bill), LONGEST)
    assert bill["rates"]["input_credits_micro_per_million"] == rates[0] * 1_000_000
    assert bill["rates"]["output_credits_micro_per_million"] == rates[1] * 1_000_000


def charged(bill: dict[str, Any]) -> tuple[str, int, int]:
    one = bill["charged"]
    return one["rule"], one["credits_micro"], one["counted_credits_micro"]


@pytest.mark.holds("contract.bill", "turns.spent")
def test_a_plain_turn(ann: User, billing: Stack) -> None:
    text, of_the_stream = "[[say:Paris.]][[usage:1000,500,100]]", 1
    while of_the_stream:  # an answer of less than a second stores its stream with its end
        chat_id = ann.new_chat()
        request_id = ann.send(chat_id, text).request_id
        bill = bill_of(ann, chat_id, request_id)
        of_the_stream = bill["run"]["write_units"]["stream"]
    check_reserve(bill, text, PREMIUM)
    assert charged(bill) == ("actual", 1000 * 2 + 500 * 8, 1000 * 2 + 500 * 8)
    assert bill["counted"] == {
        **{"input_tokens": 1000, "output_tokens": 500, "cache_read_input_tokens": 100},
        "model": "gpt-4.1",
    }
    assert (bill["state"], bill["ended_by"], bill["effective_model"]) == ("done", "provider", "gpt-4.1")
    assert bill["policy_versions"] == {"deployment": 1, "tenant": 0, "user": 0}
    _check_run(bill, billing, chat_id, request_id)


def _check_run(bill: dict[str, Any], stack: Stack, chat_id: str, request_id: str) -> None:
    """The end's units by what the tables have of it: two per started KB of each item, and one for the index."""
    tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
    turn = next(item for item in tables.conversations if item["sk"] == f"TURN#{request_id}")
    kept = [item for item in tables.conversations if chat_id in item["pk"] and item.get("request") == request_id]
    answer = next(item for item in kept if item["role"] == "assistant")
    parts = [item for item in tables.conversations if request_id in item["pk"] + item["sk"] and item is not turn]
    events = [item for item in tables.outbox if chat_id in item["pk"] and item["type"] in _ENDS]
    put = [answer, *(part for part in parts if part not in kept), *events]
    changed = 3  # turn, chat, quota
    run = bill["run"]
    assert run["write_units"]["end"] == sum(2 * math.ceil(_bytes(item) / 1024) for item in put) + 2 * changed + 1
    together = sum(run["write_units"][name] for name in ("begin", "stream", "end"))
    assert run["write_units"]["together"] == together
    assert min(run["write_units"]["begin"], run["read_units"], run["function_ms"]) > 0
    assert bill["kept_bytes"] == sum(_bytes(item) for item in (turn, *kept))


_ENDS = {"turn_usage", "turn_completed", "chat_title"}


def _bytes(item: dict[str, Any]) -> int:
    """By DynamoDB's rule for names, texts, bytes, and the rest."""
    return sum(len(name) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool):
        return 1
    return math.ceil(len(str(value)) / 2) + 1 if isinstance(value, int | Decimal) else len(bytes(value))


def test_a_turn_that_searches(ann: User) -> None:
    text, chat_id = "[[tool:web_search]][[say:Rain.]][[usage:2000,100]]", ann.new_chat()
    bill = bill_of(ann, chat_id, ann.send(chat_id, text, **_searches).request_id)
    check_reserve(bill, text, PREMIUM, tools=500)
    assert charged(bill)[:2] == ("actual", 2000 * 2 + 100 * 8)
    assert bill["tool_calls"]["web_search"] == 1
    assert bill["reserved"]["tool_calls"]["web_search"] >= 1


def test_a_turn_with_an_image(ann: User) -> None:
    chat_id = ann.new_chat()
    image = ended(ann, chat_id, uploaded(ann, chat_id, a_picture(), "sea.png", "image/png").json())["id"]
    text = "[[say:The sea.]][[usage:3000,10]]"
    bill = bill_of(ann, chat_id, ann.send(chat_id, text, attachment_ids=[image]).request_id)
    check_reserve(bill, text, PREMIUM, images=1000)
    assert bill["reserved"]["image_inputs"] == 1
    assert charged(bill)[:2] == ("actual", 3000 * 2 + 10 * 8)


@pytest.mark.parametrize("told", [0, 1])
def test_a_turn_that_is_cancelled_before_its_first_words_and_after_them(ann: User, told: int, billing: Stack) -> None:
    hold, chat_id = uuid4().hex, ann.new_chat()
    text = f"[[words:60]][[{'hold' if told else 'hold-start'}:{hold}]]"
    with ann.streaming("POST", f"/chats/{chat_id}/messages:stream", json={"content": text}) as (_, events):
        request_id = next(events).data["request_id"]
        heard = next(events).data["content"] if told else ""
        running = bill_of(ann, chat_id, request_id)
        assert (running["charged"], running["run"], running["state"]) == (None, None, "running")
        assert ann.cancel(chat_id, request_id).status_code == 202
        heard += "".join(event.data.get("content", "") for event in events)
    billing.release(hold)
    bill = bill_of(ann, chat_id, request_id)
    check_reserve(bill, text, PREMIUM)
    # The input as estimated, and what was told: at least the 50 tokens of the model's floor.
    worth = price(PREMIUM, input_of(bill), max(math.ceil(len(heard.encode()) / 4), 50))
    assert charged(bill) == ("estimated", worth, 0)
    assert (bill["state"], bill["ended_by"], bill["counted"]) == ("cancelled", "caller", None)


def test_a_turn_that_its_provider_refuses_and_one_that_it_breaks_off(ann: User) -> None:
    chat_id = ann.new_chat()
    refused = bill_of(ann, chat_id, ann.send(chat_id, "[[status:400]]").request_id)
    assert charged(refused) == ("released", 0, 0)
    text = "[[words:4]][[failed:server_error]][[usage:700,30]]"
    failed = bill_of(ann, chat_id, ann.send(chat_id, text).request_id)
    assert charged(failed) == ("actual", 700 * 2 + 30 * 8, 700 * 2 + 30 * 8)
    for bill in (refused, failed):
        assert (bill["state"], bill["ended_by"]) == ("error", "provider")


def test_a_downgraded_turn(billing: Stack) -> None:
    text = "[[say:standard]][[usage:1001,501]]"
    with billing.user(TENANT, "small") as small:
        chat_id = small.new_chat()
        bill = bill_of(small, chat_id, small.send(chat_id, text).request_id)
    check_reserve(bill, text, STANDARD)
    # 400.4 and 801.6, each rounded up.
    assert charged(bill)[:2] == ("actual", 401 + 802)
    assert (bill["selected_model"], bill["effective_model"]) == ("gpt-4.1", "gpt-4.1-mini")
    assert bill["downgrade_reason"] == "premium_quota_exhausted"


def test_a_turn_that_overshoots_is_charged_what_was_reserved(ann: User) -> None:
    text, chat_id = "[[say:much]][[usage:200000,60000]]", ann.new_chat()
    bill = bill_of(ann, chat_id, ann.send(chat_id, text).request_id)
    assert charged(bill) == ("actual_capped", bill["reserved"]["credits_micro"], 200_000 * 2 + 60_000 * 8)


@pytest.mark.holds("contract.bill-kept")
def test_a_retried_and_a_replaced_turn_have_been_charged_and_keep_their_bills(ann: User) -> None:
    chat_id = ann.new_chat(is_temporary=True)
    first = ann.send(chat_id, "[[say:one]][[usage:100,10]]").request_id
    second = ann.retry(chat_id, first).request_id
    third = ann.edit(chat_id, second, "[[say:two]][[usage:300,30]]").request_id
    for request_id, status, micro in ((first, 404, 280), (second, 404, 280), (third, 200, 840)):
        assert ann.turn(chat_id, request_id).status_code == status
        assert charged(bill_of(ann, chat_id, request_id)) == ("actual", micro, micro)
    unknown = ann.http.get(f"/chats/{chat_id}/turns/{uuid4()}/bill")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "turn_not_found")


def test_nobody_else_sees_a_bill(ann: User, billing: Stack) -> None:
    chat_id = ann.new_chat()
    request_id = ann.send(chat_id, "[[say:mine]][[usage:1,1]]").request_id
    bill_of(ann, chat_id, request_id)
    with billing.user(TENANT) as bob:
        assert bob.http.get(f"/chats/{chat_id}/turns/{request_id}/bill").json()["code"] == "chat_not_found"


@pytest.mark.holds("contract.bills-add-up")
def test_the_bills_of_all_turns_are_what_usage_says(ann: User, billing: Stack) -> None:
    chat_id = ann.new_chat()
    bill_of(ann, chat_id, ann.send(chat_id, "[[say:last]][[usage:7,3]]").request_id)
    now = datetime.now(UTC)
    days = ("--from", f"{now - timedelta(days=1):%Y-%m-%d}", "--to", f"{now:%Y-%m-%d}")
    run = [bill["run"] for bill in BILLED]
    counted = [bill["counted"] or {"input_tokens": 0, "output_tokens": 0} for bill in BILLED]
    sums = {
        "turns": len(BILLED),
        "credits_micro": sum(bill["charged"]["credits_micro"] for bill in BILLED),
        "input_tokens": sum(one["input_tokens"] for one in counted),
        "output_tokens": sum(one["output_tokens"] for one in counted),
        "write_units": sum(one["write_units"]["together"] for one in run),
        "read_units": sum(one["read_units"] for one in run),
        "function_ms": sum(one["function_ms"] for one in run),
    }
    for attempt in count():
        # By user: titles of chats are the tenant's alone.
        told = minichat(billing, "usage", "--tenant", TENANT, *days, "--by", "user", "--format", "json")
        rows = json.loads(told.stdout)
        used = {name: sum(row[name] for row in rows) for name in sums}
        if used["turns"] == sums["turns"] or attempt == 20:
            break
    assert used == sums
