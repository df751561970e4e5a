"""The usage ledger: one entry per settled turn, and totals per day that change with it (events-and-workers 3)."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

from minichat.domain.identity import ChatId, RequestId, TenantId, UserId
from minichat.domain.metering import Entry, Total, Used
from minichat.events.payloads import UsageEvent
from minichat.storage import keys
from minichat.storage.items import LedgerItem, Raw, UsageItem, between
from minichat.storage.transact import Put, Refused, Update, commit, update_one

PAGE = 1000
_COUNTED = {
    "committed_credits_micro": "committed_micro",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "web_search_calls": "web_searches",
    "code_interpreter_calls": "code_interpreter_calls",
    "file_search_calls": "file_searches",
}
"""Attributes of both items, and what they count."""


def book(event: UsageEvent, event_id: str, *, retention_days: int) -> bool:
    """Enters a settled turn and adds it to its day's totals, in one transaction; False when it had been entered.

    Raises ServiceUnavailable.
    """
    tenant_id, day = TenantId(event.tenant_id), event.timestamp.date().isoformat()
    used = _used(event)
    expires_at = int((event.timestamp + timedelta(days=retention_days)).timestamp())
    counted = {attribute: getattr(used, name) for attribute, name in _COUNTED.items()}
    entry = LedgerItem(
        *keys.ledger_entry(tenant_id, day, event.dedupe_key(event_id)),
        event_id=event_id,
        user_id=event.user_id,
        chat_id=event.chat_id,
        turn_id=event.turn_id,
        request_id=event.request_id,
        model=event.effective_model,
        tier=event.tier,
        selected_model=event.selected_model,
        outcome=event.billing_outcome,
        settlement_method=event.settlement_method,
        policy_version=event.policy_version_applied,
        settled_at=event.timestamp,
        expires_at=expires_at,
        **{name: count for name, count in counted.items() if count or not name.endswith("_calls")},
    )
    totals = [keys.usage(tenant_id, day)]
    if event.user_id is not None:
        totals.append(keys.usage(tenant_id, day, UserId(event.user_id)))
    added = [getattr(UsageItem, name).add(count) for name, count in counted.items() if count]
    added += [UsageItem.turns.add(used.turns), UsageItem.expires_at.set(expires_at)]
    try:
        commit(
            [
                Put("entry", entry, LedgerItem.pk.does_not_exist()),
                *(Update(f"total {number}", UsageItem(*key), added) for number, key in enumerate(totals)),
            ],
            token=str(uuid4()),
            op="usage",
        )
    except Refused:
        return False
    return True


def totals(tenant_id: TenantId, since: str, until: str) -> Iterator[Total]:
    """A tenant's totals and its users', day by day, from the day `since` to the day `until`.

    Raises ServiceUnavailable.
    """
    # "~" sorts after "#" and after every character of an id.
    found = between(keys.usage(tenant_id, since).pk, since, f"{until}~", page=PAGE)
    return (total for raw in found if (total := total_of(raw)) is not None)


def correct(total: Total, seen: Used | None, *, retention_days: int) -> bool:
    """Sets a total to what it should be; False when it is not as it was `seen` any more.

    Raises ServiceUnavailable.
    """
    counted = {"turns": "turns", **_COUNTED}
    values = {attribute: getattr(total.used, name) for attribute, name in counted.items()}
    day = datetime.fromisoformat(f"{total.day}T00:00:00+00:00")
    expires_at = int((day + timedelta(days=retention_days)).timestamp())
    # Every booking counts a turn, so the count alone tells whether it moved.
    unmoved = UsageItem.pk.does_not_exist() if seen is None else UsageItem.turns == seen.turns
    actions = [getattr(UsageItem, attribute).set(value) for attribute, value in values.items()]
    item = UsageItem(*keys.usage(total.tenant_id, total.day, total.user_id))
    return update_one(item, [*actions, UsageItem.expires_at.set(expires_at)], unmoved, op="usage")


def entries(tenant_id: TenantId, day: str) -> Iterator[Entry]:
    """A tenant's entries of a day.

    Raises ServiceUnavailable.
    """
    found = between(keys.ledger_entry(tenant_id, day, "").pk, " ", "~", page=PAGE)
    return (entry for raw in found if (entry := entry_of(raw)) is not None)


def total_of(raw: Raw) -> Total | None:
    """The total that an item is; None when it is something else."""
    pk = raw["pk"]["S"]
    if not pk.endswith("#USAGE"):
        return None
    item = UsageItem.from_raw_data(dict(raw))
    day, _, user = item.sk.partition("#")
    used = Used(int(item.turns or 0), *(int(getattr(item, name) or 0) for name in _COUNTED))
    return Total(TenantId(pk.removeprefix("T#").removesuffix("#USAGE")), day, UserId(user) if user else None, used)


def entry_of(raw: Raw) -> Entry | None:
    """The ledger's entry that an item is; None when it is something else."""
    tenant, found, _ = raw["pk"]["S"].removeprefix("T#").partition("#L#")
    if not found:
        return None
    item = LedgerItem.from_raw_data(dict(raw))
    return Entry(
        tenant_id=TenantId(tenant),
        dedupe_key=item.sk,
        user_id=UserId(item.user_id) if item.user_id else None,
        chat_id=ChatId(item.chat_id),
        turn_id=item.turn_id,
        request_id=RequestId(item.request_id),
        settled_at=item.settled_at,
        model=item.model,
        premium=item.tier == "premium",
        policy_version=int(item.policy_version),
        used=Used(int(item.turn_id is not None), *(int(getattr(item, name) or 0) for name in _COUNTED)),
    )


def _used(event: UsageEvent) -> Used:
    tokens = event.usage
    return Used(
        turns=int(event.turn_id is not None),
        committed_micro=event.committed_credits_micro,
        input_tokens=tokens.input_tokens if tokens else 0,
        output_tokens=tokens.output_tokens if tokens else 0,
        web_searches=event.web_search_calls,
        code_interpreter_calls=event.code_interpreter_calls,
        file_searches=event.file_search_calls,
    )
