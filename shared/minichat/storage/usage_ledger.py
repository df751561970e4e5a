"""The usage ledger: one entry per settled turn, and daily totals that change with it (events-and-workers 3)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.identity import ChatId, RequestId, TenantId, UserId, from_seconds
from minichat.domain.turn import Turn
from minichat.domain.usage import dedupe_key
from minichat.domain.usage_ledger import LedgerEntry, LedgerSums, Total
from minichat.events.payloads import UsageEvent
from minichat.storage import keys, unreadable
from minichat.storage.attributes import InstantAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.conditions import all_of, still_counts
from minichat.storage.items import ConversationItem, batch_get, between
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Delete, Put, Refused, Update, Write, commit, try_commit, update_one
from minichat.storage.unreadable import Unreadable


class LedgerItem(ConversationItem):
    """What one turn used: written once, never changed. Its key is the usage event's dedupe key."""

    event_id = UnicodeAttribute(attr_name="event")
    user_id = UnicodeAttribute(attr_name="user", null=True)
    chat_id = UnicodeAttribute(attr_name="chat")
    turn_id = UnicodeAttribute(attr_name="turn", null=True)
    request_id = UnicodeAttribute(attr_name="request")
    model = UnicodeAttribute()
    tier = UnicodeAttribute()
    selected_model = UnicodeAttribute(attr_name="selected")
    outcome = UnicodeAttribute()
    settlement_method = UnicodeAttribute(attr_name="settled")
    policy_version = NumberAttribute(attr_name="policy")
    tenant_policy_version = NumberAttribute(attr_name="t_policy", null=True)
    user_policy_version = NumberAttribute(attr_name="u_policy", null=True)
    committed_credits_micro = NumberAttribute(attr_name="micro")
    input_tokens = NumberAttribute(attr_name="in")
    output_tokens = NumberAttribute(attr_name="out")
    web_search_calls = NumberAttribute(attr_name="web", null=True)
    code_interpreter_calls = NumberAttribute(attr_name="code", null=True)
    file_search_calls = NumberAttribute(attr_name="file", null=True)
    image_inputs = NumberAttribute(attr_name="img", null=True)
    write_units = NumberAttribute(attr_name="w", null=True)
    read_units = NumberAttribute(attr_name="r", null=True)
    function_ms = NumberAttribute(attr_name="ms", null=True)
    settled_at = InstantAttribute(attr_name="at")
    expires_at = NumberAttribute()


class UsageItem(ConversationItem):
    """What a tenant, or one of its users, used on a day: the sum of the ledger's entries."""

    turns = NumberAttribute(null=True)
    committed_credits_micro = NumberAttribute(attr_name="micro", null=True)
    input_tokens = NumberAttribute(attr_name="in", null=True)
    output_tokens = NumberAttribute(attr_name="out", null=True)
    web_search_calls = NumberAttribute(attr_name="web", null=True)
    code_interpreter_calls = NumberAttribute(attr_name="code", null=True)
    file_search_calls = NumberAttribute(attr_name="file", null=True)
    image_inputs = NumberAttribute(attr_name="img", null=True)
    write_units = NumberAttribute(attr_name="w", null=True)
    read_units = NumberAttribute(attr_name="r", null=True)
    function_ms = NumberAttribute(attr_name="ms", null=True)
    expires_at = NumberAttribute()


PAGE = 1000
AT_ONCE = 33
"""Events that are entered together: each may have an entry, its user's total and its day's, and a transaction takes a
hundred items (AWS limit)."""
MOVED_AT_ONCE = 90
_COUNTED = {
    "committed_credits_micro": "committed_micro",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "web_search_calls": "web_searches",
    "code_interpreter_calls": "code_interpreter_calls",
    "file_search_calls": "file_searches",
    "image_inputs": "image_inputs",
    "write_units": "write_units",
    "read_units": "read_units",
    "function_ms": "function_ms",
}
"""Attributes of both items, and what they count."""
_ALWAYS = frozenset({"committed_credits_micro", "input_tokens", "output_tokens"})


def book(event: UsageEvent, event_id: str, *, retention_days: int) -> bool:
    """Enters a settled turn and adds it to its day's totals, in one transaction; False when it had been entered.

    Raises ServiceUnavailable.
    """
    return _book({event_id: event}, retention_days)[event_id]


def book_together(events: Mapping[str, UsageEvent], *, retention_days: int) -> dict[str, bool]:
    """Enters settled turns of one tenant, at most AT_ONCE by their events' ids, and adds them to their days' totals,
    all in one transaction; whether each is new. A turn entered before is left out.

    Raises ServiceUnavailable, and Rejected when one of them can never be entered: then none is.
    """
    return _book(events, retention_days)


def _book(events: Mapping[str, UsageEvent], retention_days: int) -> dict[str, bool]:
    entries, new = dict[Key, LedgerItem](), dict[str, Key]()
    for event_id, event in events.items():
        entry = _entry(event, event_id, retention_days)
        if entries.setdefault(Key(entry.pk, entry.sk), entry) is entry:
            new[event_id] = Key(entry.pk, entry.sk)
    while new:
        puts = [Put(event_id, entries[key], LedgerItem.pk.does_not_exist()) for event_id, key in new.items()]
        totals = _added({event_id: events[event_id] for event_id in new}, retention_days)
        try:
            commit([*puts, *totals], token=str(uuid4()), op="usage")
        except Refused as refusal:
            new = {event_id: key for event_id, key in new.items() if event_id not in refusal.old}
        else:
            break
    return {event_id: event_id in new for event_id in events}


def _entry(event: UsageEvent, event_id: str, retention_days: int) -> LedgerItem:
    counted = {attribute: getattr(_used(event), name) for attribute, name in _COUNTED.items()}
    return LedgerItem(
        *keys.ledger_entry(TenantId(event.tenant_id), _day(event), event.dedupe_key(event_id)),
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
        tenant_policy_version=event.tenant_policy_version or None,
        user_policy_version=event.user_policy_version or None,
        settled_at=event.timestamp,
        expires_at=_expires_at(event, retention_days),
        **{name: count for name, count in counted.items() if count or name in _ALWAYS},
    )


def _added(events: Mapping[str, UsageEvent], retention_days: int) -> list[Update]:
    """What these events add to the totals of their tenant and of its users."""
    used: dict[Key, LedgerSums] = {}
    until: dict[Key, int] = {}
    for event in events.values():
        tenant_id, day = TenantId(event.tenant_id), _day(event)
        totals = [keys.usage(tenant_id, day)]
        if event.user_id is not None:
            totals.append(keys.usage(tenant_id, day, UserId(event.user_id)))
        for key in totals:
            used[key] = used.get(key, LedgerSums()) + _used(event)
            until[key] = max(until.get(key, 0), _expires_at(event, retention_days))
    updates = []
    for number, (key, sums) in enumerate(used.items()):
        counts = {attribute: getattr(sums, name) for attribute, name in _COUNTED.items()}
        actions = [getattr(UsageItem, name).add(count) for name, count in counts.items() if count]
        actions += [UsageItem.turns.add(sums.turns), UsageItem.expires_at.set(until[key])]
        updates.append(Update(f"total {number}", UsageItem(*key), actions))
    return updates


def _day(event: UsageEvent) -> str:
    return event.timestamp.date().isoformat()


def _expires_at(event: UsageEvent, retention_days: int) -> int:
    return int((event.timestamp + timedelta(days=retention_days)).timestamp())


def totals(tenant_id: TenantId, since: str, until: str, unread: list[Unreadable] | None = None) -> Iterator[Total]:
    """A tenant's totals and its users', day by day, from the day `since` to the day `until`.

    An item that cannot be read is added to `unread`, if given, and is an error otherwise.
    Raises ServiceUnavailable.
    """
    # "~" sorts after "#", which is all that follows a day.
    found = between(keys.usage(tenant_id, since).pk, since, f"{until}~", page=PAGE)
    for raw in found:
        total = total_of(raw) if unread is None else unreadable.read(raw, total_of)
        if isinstance(total, Total):
            yield total
        elif unread is not None:
            unread.append(total)


def of_user(tenant_id: TenantId, user_id: UserId, days: Iterable[str]) -> list[Total]:
    """A user's totals of these days, in their order, without days on which nothing was used; one call per hundred.

    Raises ServiceUnavailable.
    """
    wanted = [keys.usage(tenant_id, day, user_id) for day in days]
    found = batch_get(wanted)
    return [total_of(found[key]) for key in wanted if key in found]


def correct(total: Total, seen: LedgerSums | None, *, retention_days: int) -> bool:
    """Sets a total to what it should be; False when any count has changed since it was `seen`.

    Raises ServiceUnavailable.
    """
    actions: list[Action] = []
    as_seen = UsageItem.pk.does_not_exist() if seen is None else UsageItem.pk.exists()
    unmoved: list[Condition] = []
    for attribute, name in {"turns": "turns", **_COUNTED}.items():
        path, count = getattr(UsageItem, attribute), 0 if seen is None else getattr(seen, name)
        # A booking adds only what is not zero, so no single count tells whether there was one.
        unmoved.append(still_counts(path, count))
        actions.append(path.set(getattr(total.used, name)))
    # As late as the day's last entry may expire; an expiry set by a booking stays.
    end_of_day = datetime.fromisoformat(f"{total.day}T00:00:00+00:00") + timedelta(days=1)
    expires_at = int((end_of_day + timedelta(days=retention_days)).timestamp())
    actions.append(UsageItem.expires_at.set(UsageItem.expires_at | expires_at))
    item = UsageItem(*keys.usage(total.tenant_id, total.day, total.user_id))
    return update_one(item, actions, all_of(as_seen, *unmoved), op="usage")


def move(total: Total, entries: Sequence[LedgerEntry], to: UserId, counted: Update) -> bool:
    """Enters what a user used on a day under another name: these entries, MOVED_AT_ONCE at most, and their share of the
    day's `total` (all of it with the last ones), which has no `kept_until` where none is stored. False when something
    of it has changed since it was read.

    `counted` is written with them. Raises ServiceUnavailable.
    """
    assert total.user_id is not None
    still_theirs = LedgerItem.user_id == total.user_id
    writes: list[Write] = [
        Update(
            f"entry {entry.dedupe_key}",
            LedgerItem(*keys.ledger_entry(entry.tenant_id, entry.day, entry.dedupe_key)),
            [LedgerItem.user_id.set(to)],
            still_theirs,
        )
        for entry in entries
    ]
    if total.kept_until is not None:
        share = sum((entry.used for entry in entries), LedgerSums())
        writes += _share(total, share, to, int(total.kept_until.timestamp()))
    return try_commit([*writes, counted], token=str(uuid4()), op="usage")


def _share(total: Total, share: LedgerSums, to: UserId, kept_until: int) -> list[Write]:
    """The writes by which totals say what their entries say, which move in the same transaction."""
    is_last = share in (total.used, LedgerSums())
    goes = total.used if is_last else share
    mine = UsageItem(*keys.usage(total.tenant_id, total.day, total.user_id))
    numbers = {"turns": "turns", **_COUNTED}
    is_there = UsageItem.pk.exists()
    as_seen = [still_counts(getattr(UsageItem, item), getattr(total.used, name)) for item, name in numbers.items()]
    unchanged = all_of(is_there, *as_seen)
    left = Delete("total", mine, unchanged) if is_last else Update("total", mine, _plus(-goes), unchanged)
    kept = UsageItem.expires_at.set(UsageItem.expires_at | kept_until)
    theirs = UsageItem(*keys.usage(total.tenant_id, total.day, to))
    return [left, Update("total of the other", theirs, [*_plus(goes), kept])]


def _plus(sums: LedgerSums) -> list[Action]:
    counts = {attribute: getattr(sums, name) for attribute, name in {"turns": "turns", **_COUNTED}.items()}
    return [getattr(UsageItem, name).add(count) for name, count in counts.items() if count or name == "turns"]


def entries(tenant_id: TenantId, day: str) -> Iterator[LedgerEntry]:
    """A tenant's entries of a day.

    Raises ServiceUnavailable.
    """
    found = between(keys.ledger_entry(tenant_id, day, "").pk, " ", "~", page=PAGE)
    return (entry_of(raw) for raw in found)


def of_turns(turns: Iterable[Turn]) -> dict[str, LedgerEntry]:
    """The entries, by dedupe key, of those turns that ended and have one; one call per hundred.

    Raises ServiceUnavailable.
    """
    wanted = [key_of(turn) for turn in turns if turn.completed_at is not None]
    found = (unreadable.read(raw, entry_of) for raw in batch_get(wanted).values())
    return {entry.dedupe_key: entry for entry in found if isinstance(entry, LedgerEntry)}


def key_of(turn: Turn) -> Key:
    """The key of an ended turn's entry."""
    assert turn.completed_at is not None
    day, key = turn.completed_at.date().isoformat(), dedupe_key(turn.tenant_id, turn.turn_id, turn.request_id)
    return keys.ledger_entry(turn.tenant_id, day, key)


def whose(raw: Raw) -> tuple[str, UserId]:
    """The day and the user of an entry, or of a user's total."""
    key = keys.of(raw)
    if keys.kind_of(key.pk) == "USAGE":
        _, day, user_id = keys.user_of_usage(*key)
        assert user_id is not None, "it is a user's"
        return day, user_id
    return key.pk.rpartition("#L#")[2], UserId(keys.text(raw, LedgerItem.user_id.attr_name))


def total_of(raw: Raw) -> Total:
    """The total of a stored item."""
    item = UsageItem.from_raw_data(dict(raw))
    tenant_id, day, user_id = keys.user_of_usage(item.pk, item.sk)
    return Total(
        tenant_id=tenant_id,
        day=day,
        user_id=user_id,
        used=LedgerSums(int(item.turns or 0), *(int(getattr(item, name) or 0) for name in _COUNTED)),
        kept_until=None if item.expires_at is None else from_seconds(int(item.expires_at)),
    )


def entry_of(raw: Raw) -> LedgerEntry:
    """The ledger entry of a stored item."""
    item = LedgerItem.from_raw_data(dict(raw))
    return LedgerEntry(
        tenant_id=keys.tenant_of(item.pk),
        dedupe_key=item.sk,
        user_id=UserId(item.user_id) if item.user_id else None,
        chat_id=ChatId(item.chat_id),
        turn_id=item.turn_id,
        request_id=RequestId(item.request_id),
        settled_at=item.settled_at,
        model=item.model,
        premium=item.tier == "premium",
        policy_version=int(item.policy_version),
        tenant_policy_version=int(item.tenant_policy_version or 0),
        user_policy_version=int(item.user_policy_version or 0),
        used=LedgerSums(int(item.turn_id is not None), *(int(getattr(item, name) or 0) for name in _COUNTED)),
        kept_until=from_seconds(int(item.expires_at)),
    )


def _used(event: UsageEvent) -> LedgerSums:
    tokens = event.usage
    return LedgerSums(
        turns=int(event.turn_id is not None),
        committed_micro=event.committed_credits_micro,
        input_tokens=tokens.input_tokens if tokens else 0,
        output_tokens=tokens.output_tokens if tokens else 0,
        web_searches=event.web_search_calls,
        code_interpreter_calls=event.code_interpreter_calls,
        file_searches=event.file_search_calls,
        image_inputs=event.image_inputs,
        write_units=event.writes,
        read_units=event.reads,
        function_ms=event.ms,
    )
