"""A conversation that is much longer than the model's window: it never fails, and what it forgets is summarized.

LONG_TURNS says how many turns; `make long` takes 300.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.dynamodb.conditions import Key

from minichat.local.issuer import as_uuid
from minichat.services.policy_in_force import SHIPPED_POLICY
from minichat.settings import Settings, Store
from tests.conftest import running_stack
from tests.support.http.client import Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Item, Tables, violations

TURNS = int(os.environ.get("LONG_TURNS", "40"))
WINDOW = 16_000
MAX_OUTPUT = 2000
TOLERANCE_PCT = Settings().quota.overshoot_tolerance_pct


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose models have a small window."""
    policy: dict[str, Any] = json.loads(SHIPPED_POLICY.read_text())
    for model in policy["model_catalog"]:
        model |= {"context_window": WINDOW, "max_output_tokens": MAX_OUTPUT, "max_input_tokens": WINDOW}
    folder: Path = tmp_path_factory.mktemp("narrow")
    (folder / "policy.json").write_text(json.dumps(policy))
    with running_stack(folder / "state", "--policy", str(folder / "policy.json")) as stack:
        yield stack


def _message(number: int, dice: random.Random) -> str:
    """Mostly short, at times long, in several scripts; the answer as well."""
    text = dice.choice(["word ", "Straße ", "слово ", "言葉 ", "🙂 "]) * dice.choice([1, 5, 30, 100, 400, 1200])
    return f"[[words:{dice.choice([1, 20, 200, 600, 2000])}]][[delay:0]] Message {number}: {text}"


class Unsummarized:
    """How many messages of a chat no summary covers, read from the table."""

    def __init__(self, stack: Stack, chat_id: str) -> None:
        store = Store(endpoint=stack.about["engine_url"])
        resource = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region)
        self._table = resource.Table(store.conversation_table)
        self._pk = f"T#{as_uuid('acme')}#C#{chat_id}"

    def count(self) -> int:
        summary = self._table.get_item(Key={"pk": self._pk, "sk": "SUMMARY"}).get("Item", {})
        after = f"MSG#{summary['up_to']!s}~" if summary else "MSG#"
        bounds = Key("pk").eq(self._pk) & Key("sk").between(after, "MSG#~")
        items = self._table.query(KeyConditionExpression=bounds, ConsistentRead=True)["Items"]
        return sum(str(item["sk"]).count("#") == 1 for item in items)

    def wait(self, at_most: int) -> None:
        """A user needs longer to type than a summary takes to be written; a test does not."""
        deadline = time.monotonic() + PATIENCE
        while self.count() > at_most:
            assert time.monotonic() < deadline, f"{self.count()} messages are not summarized"
            time.sleep(0.05)


def _said(user: User, chat_id: str, unsummarized: Unsummarized) -> list[dict[str, Any]]:
    """Every turn of the conversation, as its first and its last event."""
    dice = random.Random(7)
    turns = []
    for number in range(1, TURNS + 1):
        message = _message(number, dice)
        answer = user.send(chat_id, message)
        assert (answer.status, answer.names[-1]) == (200, "done"), answer.problem or answer.events[-1]
        turns.append(answer.events[0].data | answer.events[-1].data | {"said": message})
        # Ten are shown. The turn that makes them twelve has a summary made, and one may come while it is.
        unsummarized.wait(at_most=13)
    return turns


@pytest.mark.timeout(60 + TURNS * 3)
@pytest.mark.holds("contract.summary-applied")
def test_a_conversation_of_any_length_goes_on(narrow: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    with narrow.user() as user:
        chat_id = user.new_chat()
        turns = _said(user, chat_id, Unsummarized(narrow, chat_id))
        assert user.chat(chat_id)["message_count"] == 2 * TURNS
        again = user.resume(chat_id, turns[-1]["request_id"])
        assert again.events[0].data["thread_summary_applied"] == turns[-1]["thread_summary_applied"]
        replayed = user.send(chat_id, turns[-1]["said"], request_id=turns[-1]["request_id"])
        assert replayed.events[0].data.keys() >= {"request_id", "message_id", "is_new_turn"}
    tables = Tables.of(Store(endpoint=narrow.about["engine_url"]))
    stored: dict[str, Item] = next(chat.turns for pk, chat in tables.chats().items() if pk.endswith(chat_id))
    ratios, estimates = [], []
    for turn in turns:
        item = stored[turn["request_id"]]
        estimate = int(item["r_tokens"]) - int(item["r_out"])
        assert estimate <= WINDOW - MAX_OUTPUT
        assert turn["usage"]["input_tokens"] * 100 <= estimate * TOLERANCE_PCT
        estimates.append(estimate)
        ratios.append(turn["usage"]["input_tokens"] / estimate)
    applied = [turn["thread_summary_applied"] for turn in turns if "thread_summary_applied" in turn]
    # Seven turns need none; once there was a summary, there always is one.
    assert len(applied) >= TURNS - 7
    assert all("thread_summary_applied" in turn for turn in turns[-len(applied) :])
    assert all(one["token_estimate"] > 0 for one in applied)
    tasks = [item for item in tables.outbox if item["queue"] == "thread-summary"]
    written = [item for item in tables.outbox if "thread_summary_update" in item["dedupe"]]
    assert 0 < len(written) <= len(tasks)
    assert violations(tables) == []
    with capsys.disabled():
        print(
            f"\n{TURNS} turns in a window of {WINDOW}: {len(tasks)} summaries wanted, {len(written)} written, in "
            f"{len(applied)} prompts, at most {max(one['token_estimate'] for one in applied)} tokens; estimates of "
            f"{min(estimates)} to {max(estimates)} tokens, of which the provider counted "
            f"{min(ratios):.0%} to {max(ratios):.0%}"
        )
