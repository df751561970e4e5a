"""Turns: how they are read, and how one starts, in one transaction.

What the conditions prevent, on the head (`CHAT`) and the turn (`TURN#<request_id>`):

    two turns at once           head: running_request_id must be absent; the winner sets it
    the same send twice         turn: the key must not exist yet
    a fork of the conversation  head: latest_request_id must be what the new turn calls its predecessor
    a message out of order      head: last_message_at must be what the new message's time was taken after; a turn that
                                came and was deleted since leaves the same latest_request_id behind
"""

from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from pynamodb.expressions.update import Action

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.day_counts import DayCounts, lacking
from minichat.domain.errors import (
    CreditsTaken,
    GenerationInProgress,
    InvalidAttachment,
    RequestIdConflict,
    SendsMoved,
)
from minichat.domain.identity import Call, ChatId, RequestId, TenantId
from minichat.domain.message import Message
from minichat.domain.policy import UserLimits
from minichat.domain.rates import RateUse
from minichat.domain.turn import Reserve, ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.storage import chats, keys, leases, messages, quota, references, tenant_rates
from minichat.storage.conditions import all_of
from minichat.storage.items import ChatItem, OutboxItem, TurnItem, batch_get
from minichat.storage.keys import Raw
from minichat.storage.transact import Put, Refused, Update, Write, commit

_NESTED: dict[str, type[Any]] = {"reserve": Reserve, "usage": Usage, "tool_calls": ToolCalls}
_KEYS = frozenset({"tenant_id", "chat_id", "request_id"})
_PLAIN = [f.name for f in fields(Turn) if f.name not in _NESTED and f.name not in _KEYS]
_FLAT = {name: [(f.name, f"{name}_{f.name}") for f in fields(part)] for name, part in _NESTED.items()}
"""By part: its fields, and the attributes that hold them."""


@dataclass(frozen=True, slots=True)
class Start:
    """A turn that may begin, with its user message, what that is the first to refer to, and the events of it all."""

    turn: Turn
    message: Message
    limits: UserLimits
    per_day: DayCounts = field(default_factory=DayCounts)
    rate_use: RateUse = field(default_factory=RateUse)
    events: tuple[OutboxItem, ...] = ()
    referred_to: tuple[Attachment, ...] = ()


def from_raw(raw: Raw | None) -> Turn | None:
    """The turn of a stored item."""
    if raw is None:
        return None
    item = TurnItem.from_raw_data(dict(raw))
    tenant_id, chat_id = keys.chat_of(item.pk)
    request_id = item.sk.removeprefix(keys.TURN_PREFIX)
    # Read at once: an attribute of a model costs more each time than a member of its dictionary.
    stored = {name: _as_stored(value) for name, value in item.attribute_values.items() if value is not None}
    values: dict[str, Any] = {name: stored[name] for name in _PLAIN if name in stored}
    for name, part in _NESTED.items():
        values[name] = part(**{key: stored[flat] for key, flat in _FLAT[name] if flat in stored})
    values["state"] = TurnState(item.state)
    return Turn(tenant_id=TenantId(tenant_id), chat_id=ChatId(chat_id), request_id=RequestId(request_id), **values)


def read(tenant_id: TenantId, chat_id: ChatId, request_id: RequestId) -> tuple[Chat | None, Turn | None]:
    """The chat's head and one of its turns, deleted or not, in one consistent round trip."""
    chat_key, turn_key = keys.chat(tenant_id, chat_id), keys.turn(tenant_id, chat_id, request_id)
    found = batch_get([chat_key, turn_key])
    return chats.from_raw(found.get(chat_key)), from_raw(found.get(turn_key))


def start(call: Call, chat: Chat, new: Start, *, retention_days: int) -> None:
    """Begins a turn: head, turn, user message and quota in one transaction.

    Raises, in the order of contract 2: ChatNotFound, RequestIdConflict, GenerationInProgress, InvalidAttachment,
    RateLimited, CreditsTaken, SendsMoved. ServiceUnavailable, and then the turn may have begun all the same.
    """
    head = begins(call, chat, new, ended_messages=0)
    # Of two turns at once the first takes this place, and the other finds it taken.
    none_runs = ChatItem.running_request_id.does_not_exist()
    free = all_of(chats.owned_by(call.caller), none_runs, chats.nothing_new_in(chat))
    writes: list[Write] = [Update("chat", head[0], head[1], free), *put_new(new, retention_days)]
    writes += references.added(call, new.referred_to)
    beginning = leases.Beginning(call, new.turn)
    try:
        check = partial(_check_start, call, new.turn)
        commit(writes, token=new.turn.turn_id, op="start_turn", took_effect=beginning.took_effect, check=check)
        beginning.check()
    except Refused as refused:
        if "chat" in refused.old:
            visible(chats.from_raw(refused.old["chat"]), call.caller)
        if "turn" in refused.old:
            known = from_raw(refused.old["turn"])
            raise RequestIdConflict(known.state.public if known else "running", new.turn.request_id) from refused
        if "chat" in refused.old:
            # The head changed since it was read: another turn began, and may have ended since.
            raise GenerationInProgress(chats.running_in(refused.old["chat"])) from refused
        if lost := references.lost(refused, new.referred_to):
            raise InvalidAttachment(*lost) from refused
        raise no_room(call, new, refused.old.get("quota")) from refused


def _check_start(call: Call, turn: Turn) -> None:
    """Raises, as `start` does, when another turn is there, or in the way."""
    chat, same = read(turn.tenant_id, turn.chat_id, turn.request_id)
    running = visible(chat, call.caller).running_request_id
    if same is not None:
        raise RequestIdConflict(same.state.public, turn.request_id)
    if running is not None:
        raise GenerationInProgress(running)


def begins(call: Call, chat: Chat, new: Start, *, ended_messages: int) -> tuple[ChatItem, list[Action]]:
    """The head, and the actions by which a turn begins on it that takes the place of so many visible messages."""
    head = ChatItem(*keys.chat(chat.tenant_id, chat.chat_id))
    return head, [
        ChatItem.running_request_id.set(new.turn.request_id),
        ChatItem.latest_request_id.set(new.turn.request_id),
        ChatItem.message_count.add(1 - ended_messages),
        ChatItem.last_message_at.set(new.message.created_at),
        *chats.to_the_front(chat, call.now),
    ]


def put_new(new: Start, retention_days: int) -> list[Write]:
    """The writes of a new turn besides the head's: the turn, its message, what it reserves, and its events."""
    turn = new.turn
    flat: dict[str, Any] = {name: getattr(turn, name) for name in _PLAIN}
    flat["state"] = turn.state.value
    flat |= {f"reserve_{f.name}": getattr(turn.reserve, f.name) for f in fields(Reserve)}
    # What is false, zero or absent is not stored: it reads back as the same default.
    flat = {name: value for name, value in flat.items() if value or name == "reserve_premium"}
    item = TurnItem(
        *keys.turn(turn.tenant_id, turn.chat_id, turn.request_id),
        running_shard=keys.running_shard(turn.tenant_id, turn.request_id),
        **flat,
    )
    return [
        Put("turn", item, TurnItem.pk.does_not_exist()),
        *messages.put(turn.tenant_id, turn.chat_id, new.message),
        quota.reserve(turn, new.limits, new.per_day, _rate(new), retention_days=retention_days),
        *tenant_rates.begun(turn, new.rate_use.tenant.over),
        *(Put(f"event {event.sk}", event) for event in new.events),
    ]


def _rate(new: Start) -> quota.SendRate:
    # By the time of its own start: a repetition of the transaction must be the same one.
    limits = new.rate_use.limits
    return quota.SendRate(limits.turns_in_flight, limits.sends.arrival(new.rate_use.sends, new.turn.started_at))


def no_room(call: Call, new: Start, raw: Raw | None) -> CreditsTaken | SendsMoved:
    """Why the quota's item, as it was then, had no room for the turn; SendsMoved when it has room by now.

    Raises RateLimited, BeingErased.
    """
    quota.check_stays(raw)
    quota_use = quota.quota_use(new.limits, raw, call.now)
    replace(quota_use.rates, limits=new.rate_use.limits).check_send(new.turn.started_at)
    none_left = lacking(quota_use.daily.counts, new.turn.reserve.day_counts, new.per_day, call.now)
    if none_left is None and quota_use.fits(new.turn.reserve):
        return SendsMoved("sends_per_minute", new.rate_use.limits.sends_per_minute, 1)
    return CreditsTaken(none_left or quota_use.lacks(new.turn.reserve, call.now))


def _as_stored(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value
