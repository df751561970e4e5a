"""What a count is before anything was counted, and in an item that an earlier version wrote without it."""

from dataclasses import fields
from typing import Any

import pytest

from minichat.domain.admission import PromptLimits
from minichat.domain.attachment import Attachment, Ingest
from minichat.domain.cleanup import Cleanup
from minichat.domain.context import Space
from minichat.domain.day_counts import DayCounts
from minichat.domain.erasure import Progress
from minichat.domain.quota_left import Committed
from minichat.domain.rates import Arrival, Rates, RateUse, TenantUse
from minichat.domain.spent import Spent
from minichat.domain.token_estimate import Load
from minichat.domain.turn import Reserve, ToolCalls
from minichat.domain.usage import Usage
from minichat.domain.usage_ledger import LedgerSums

COUNTING = (
    *(Arrival, Attachment, Cleanup, Committed, DayCounts, Ingest, LedgerSums, Load, Progress, PromptLimits),
    *(RateUse, Rates, Reserve, Space, Spent, TenantUse, ToolCalls, Usage),
)
LIMITS = {"sends_per_minute", "followers", "uploads_per_hour", "chats_per_hour"}
DECIDED: dict[Any, set[str]] = {Reserve: {"bytes_per_token"}, Rates: LIMITS | {"turns_in_flight"}}
"""What is no count, and has a size by default. A tenant's limits are among the rest: 0 is none."""


@pytest.mark.parametrize("kind", COUNTING, ids=lambda kind: kind.__name__)
def test_what_nobody_counted_is_nothing(kind: Any) -> None:
    assert {one.name for one in fields(kind) if type(one.default) is int and one.default} == DECIDED.get(kind, set())


@pytest.mark.parametrize("kind", [LedgerSums, Usage])
def test_a_sum_with_nothing_is_what_it_was(kind: Any) -> None:
    some = kind(*range(1, len(fields(kind)) + 1))
    assert kind() + some == some
