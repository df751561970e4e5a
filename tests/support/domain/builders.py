"""Plain functions that make what a test needs, with only what the test says being special."""

import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from minichat.domain.chat import Chat
from minichat.domain.identity import Call, Caller, ChatId, MessageId, RequestId, TenantId, UserId, uuid7
from minichat.domain.message import Message
from minichat.domain.policy import LimitsByUser, Model, Policy, PolicyLimits, UserLimits
from minichat.domain.turn import Reserve, Turn, TurnState
from minichat.rate_settings import RateSettings
from minichat.settings import Settings


def _month_after(moment: datetime) -> datetime:
    in_it = moment.replace(day=1) + timedelta(days=31)
    return datetime(in_it.year, in_it.month, 1, tzinfo=UTC)


NOW = _month_after(datetime.now(UTC)) + timedelta(days=20, hours=12, microseconds=123456)
"""When the tests' own time begins: weeks ahead, since engines delete by the real clock what has expired.

Midnight is hours from it and the end of its month days. A test that is about certain days counts them from here.
"""
FIRST_OF_NEXT_MONTH = _month_after(NOW)
"""The midnight that ends the month of `NOW`."""
_ticks, _bits = count(), count(time.time_ns())


def an_id(number: int) -> str:
    """A UUID that tells its number."""
    return f"00000000-0000-4000-8000-{number:012d}"


def a_caller(tenant: int = 1, user: int = 2) -> Caller:
    """A user of a tenant."""
    return Caller(TenantId(an_id(tenant)), UserId(an_id(user)))


def a_call(caller: Caller | None = None) -> Call:
    """A call, a second after the one before; no other test, in no process, makes its ids: engines remember tokens."""
    now = NOW + timedelta(seconds=next(_ticks))
    return Call(caller or a_caller(), now, new_id)


def new_id(instant: datetime) -> str:
    """An id of that instant that was not made before."""
    return str(uuid7(instant, next(_bits)))


def unhurried(**said: Any) -> Settings:
    """Settings that limit no rates: a test's user sends and makes chats as fast as the test can."""
    return Settings(rates=RateSettings(**dict.fromkeys(RateSettings.model_fields, 0)), **said)


def a_model(**said: Any) -> Model:
    """An enabled standard model."""
    values: dict[str, Any] = {
        "id": "small",
        "provider_model_id": "small-1",
        "provider_id": "openai",
        "display_name": "Small",
        "tier": "standard",
        "enabled": True,
        "context_window": 100_000,
        "max_output_tokens": 4096,
        "max_input_tokens": 50_000,
        "input_tokens_credit_multiplier_micro": 1_000_000,
        "output_tokens_credit_multiplier_micro": 3_000_000,
    }
    return Model.model_validate(values | said)


def some_limits(total: int = 10**12, premium: int = 10**12) -> UserLimits:
    """Limits of a day and of a month, in micro-credits."""
    return UserLimits(
        standard=PolicyLimits(limit_daily_credits_micro=total, limit_monthly_credits_micro=total),
        premium=PolicyLimits(limit_daily_credits_micro=premium, limit_monthly_credits_micro=premium),
    )


def a_policy(*models: Model, **said: Any) -> Policy:
    """A policy of these models, with limits that no test reaches by chance."""
    values: dict[str, Any] = {
        "policy_version": 1,
        "model_catalog": models or (a_model(),),
        "user_limits": LimitsByUser(default=some_limits()),
    }
    return Policy.model_validate(values | said)


def a_reserve(**said: Any) -> Reserve:
    """A reserve of 2000 tokens, 10_000 micro-credits."""
    values: dict[str, Any] = {
        "tokens": 2000,
        "max_output_tokens": 1000,
        "credits_micro": 10_000,
        "policy_version": 1,
        "selected_model": "small",
        "effective_model": "small",
        "generation_floor": 50,
        "input_multiplier": 1_000_000,
        "output_multiplier": 3_000_000,
        "daily_period": f"{NOW:%Y-%m-%d}",
        "monthly_period": f"{NOW:%Y-%m}-01",
    }
    return Reserve(**(values | said))


def a_chat(caller: Caller, **said: Any) -> Chat:
    """A chat of the caller, without a turn."""
    values: dict[str, Any] = {
        "tenant_id": caller.tenant_id,
        "chat_id": ChatId(an_id(10)),
        "user_id": caller.user_id,
        "model": "small",
        "message_count": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Chat(**(values | said))


def a_turn(caller: Caller, **said: Any) -> Turn:
    """A running turn of the caller."""
    values: dict[str, Any] = {
        "tenant_id": caller.tenant_id,
        "chat_id": ChatId(an_id(10)),
        "request_id": RequestId(an_id(20)),
        "turn_id": an_id(21),
        "requester_type": "user",
        "requester_user_id": caller.user_id,
        "state": TurnState.RUNNING,
        "fingerprint": "0" * 32,
        "user_message_id": MessageId(str(uuid7(NOW, 1))),
        "assistant_message_id": MessageId(str(uuid7(NOW, 2))),
        "started_at": NOW,
        "last_progress_at": NOW,
        "reserve": a_reserve(),
    }
    return Turn(**(values | said))


def a_message(content: str, **said: Any) -> Message:
    """A user's message."""
    values: dict[str, Any] = {
        "message_id": MessageId(str(uuid7(NOW, 3))),
        "request_id": RequestId(an_id(20)),
        "role": "user",
        "content": content,
        "created_at": NOW,
    }
    return Message(**(values | said))
