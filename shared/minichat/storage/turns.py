"""Turns: how one starts, replaces another and is deleted, each in one transaction; and how its teller holds it.

What the conditions prevent, on the head (`CHAT`) and the turn (`TURN#<request_id>`):

    two turns at once           head: running_request_id must be absent; the winner sets it
    the same send twice         turn: the key must not exist yet
    a mutation of an old turn   head: latest_request_id must be the target; turn: terminal and not deleted
    a fork of the conversation  head: latest_request_id must be what the new turn calls its predecessor
    a message out of order      head: last_message_at must be what the new message's time was taken after; a turn that
                                came and was deleted since leaves the same latest_request_id behind
    two tellers                 turn: the teller must be who it was when the turn was read
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat, visible
from minichat.domain.errors import (
    ChatMoved,
    CreditsTaken,
    GenerationInProgress,
    InvalidAttachment,
    RequestIdConflict,
)
from minichat.domain.identity import Call, ChatId, RequestId, TenantId
from minichat.domain.message import Message
from minichat.domain.mutation import check_mutation
from minichat.domain.policy import UserLimits
from minichat.domain.quota_left import lacking
from minichat.domain.turn import DayCounts, Reserve, ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.storage import chats, keys, messages, quota, references, summaries
from minichat.storage.conditions import all_of, any_of, is_still
from minichat.storage.items import ChatItem, OutboxItem, TurnItem, batch_get
from minichat.storage.keys import Raw
from minichat.storage.transact import Put, Refused, Update, Write, commit, try_commit, update_one

T = TypeVar("T")

_NESTED: dict[str, type[Any]] = {"reserve": Reserve, "usage": Usage, "tool_calls": ToolCalls}
_KEYS = frozenset({"tenant_id", "chat_id", "request_id"})

LATE_SECONDS = 5
"""A third of the time after which a turn that has not begun counts as dead: a commit that took longer looks first."""


@dataclass(frozen=True, slots=True)
class Start:
    """A turn that may begin, with its user message, what that is the first to refer to, and the events of it all."""

    turn: Turn
    message: Message
    limits: UserLimits
    per_day: DayCounts = field(default_factory=DayCounts)
    events: tuple[OutboxItem, ...] = ()
    referred_to: tuple[Attachment, ...] = ()


def from_raw(raw: Raw | None) -> Turn | None:
    """The turn of a stored item."""
    if raw is None:
        return None
    item = TurnItem.from_raw_data(dict(raw))
    tenant_id, chat_id = keys.chat_of(item.pk)
    request_id = item.sk.removeprefix(keys.TURN_PREFIX)
    values: dict[str, Any] = {name: _stored(item, name) for name in _plain_fields()}
    values = {name: value for name, value in values.items() if value is not None}
    for name, part in _NESTED.items():
        stored = {f.name: _stored(item, f"{name}_{f.name}") for f in fields(part)}
        values[name] = part(**{key: value for key, value in stored.items() if value is not None})
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
    CreditsTaken. ServiceUnavailable, and then the turn may have begun all the same.
    """
    head = _begin(call, chat, new, ended_messages=0)
    # Of two turns at once the first takes this place, and the other finds it taken.
    none_runs = ChatItem.running_request_id.does_not_exist()
    free = all_of(chats.owned_by(call.caller), none_runs, _nothing_new_in(chat))
    writes: list[Write] = [Update("chat", head[0], head[1], free), *_new_turn(new, retention_days)]
    writes += references.added(call, new.referred_to)
    try:
        _commit_start(call, new.turn, writes, op="start_turn")
    except Refused as refused:
        if "chat" in refused.old:
            visible(chats.from_raw(refused.old["chat"]), call.caller)
        if "turn" in refused.old:
            known = from_raw(refused.old["turn"])
            raise RequestIdConflict(known.state.public if known else "running", new.turn.request_id) from refused
        if "chat" in refused.old:
            # The head changed since it was read: another turn began, and may have ended since.
            raise GenerationInProgress(_running(refused.old["chat"])) from refused
        if lost := references.lost(refused, new.referred_to):
            raise InvalidAttachment(*lost) from refused
        raise _taken(call, new, refused.old.get("quota")) from refused


@dataclass(frozen=True, slots=True)
class Target:
    """The latest turn, which is to go, and its messages as they were found."""

    turn: Turn
    said: tuple[messages.FoundMessages, ...]


def supersede(call: Call, chat: Chat, target: Target, new: Start, *, retention_days: int) -> None:
    """Puts a new turn in the place of the latest one: retry and edit, in one transaction.

    Raises what `check_mutation` finds in what the winner left, ChatMoved, or CreditsTaken; ServiceUnavailable as
    `start` does.
    """
    old = target.turn
    head, actions = _begin(call, chat, new, ended_messages=old.messages)
    forgetting, stale = _forgetting(chat, old)
    unchanged = all_of(_is_mutable(call, chat, old), _nothing_new_in(chat))
    writes: list[Write] = [
        Update("chat", head, [*actions, *forgetting], unchanged),
        *stale,
        _end_of_old(call, old, TurnItem.replaced_by_request_id.set(new.turn.request_id)),
        *_withdrawn(call, target),
        *_new_turn(new, retention_days),
    ]
    try:
        _commit_start(call, new.turn, writes, op="replace_turn")
    except Refused as refused:
        if refused.old.keys() == {"quota"}:
            raise _taken(call, new, refused.old["quota"]) from refused
        _raise_refusal(call, chat, old, refused)


def _commit_start(call: Call, turn: Turn, writes: Sequence[Write], *, op: str) -> None:
    """Commits the beginning of a turn. A commit so slow that its process may count as dead renews the lease first:
    whoever goes on to call the provider is the turn's one teller.

    Raises Refused and ServiceUnavailable as `commit` does; GenerationInProgress when another goes on with the turn.
    """
    began = time.monotonic()

    def is_mine() -> bool:
        now = call.now + timedelta(seconds=time.monotonic() - began)
        return progress(replace(call, now=now), turn, provider_called=False) is not None

    commit(writes, token=turn.turn_id, op=op, took_effect=is_mine)
    if time.monotonic() - began > LATE_SECONDS and not is_mine():
        raise GenerationInProgress(turn.request_id)


def take_over(call: Call, dead: Turn) -> Turn | None:
    """The turn, whose answer this process makes now in the place of one that died before it called the provider.

    None when the turn is not as it was seen any more: alive, over, or taken over by another.
    """
    teller = call.new_id(call.now)
    same_teller = is_still(TurnItem.teller, dead.teller)
    # A sign of life since, and it is not dead.
    still_silent = is_still(TurnItem.last_progress_at, dead.last_progress_at)
    # Once its provider was asked, part of a turn may have been told.
    never_called = TurnItem.provider_request_started_at.does_not_exist()
    not_cancelled = TurnItem.cancel_requested_at.does_not_exist()
    as_seen = all_of(same_teller, still_silent, never_called, not_cancelled)
    # Only the answer to this write was lost.
    is_ours = TurnItem.teller == teller
    item = TurnItem(*keys.turn(dead.tenant_id, dead.chat_id, dead.request_id))
    actions = [TurnItem.teller.set(teller), TurnItem.last_progress_at.set(call.now)]
    if not update_one(item, actions, all_of(_runs(), any_of(as_seen, is_ours)), op="take_over_turn"):
        return None
    return replace(dead, teller=teller, last_progress_at=call.now)


def delete(call: Call, chat: Chat, target: Target, events: Sequence[OutboxItem], *, token: str) -> None:
    """Hides the latest turn, and takes back its messages; the turn before it is the latest again.

    Raises what `check_mutation` finds in what the winner left, or ChatMoved.
    """
    turn = target.turn
    latest = ChatItem.latest_request_id
    back = latest.set(turn.prev_request_id) if turn.prev_request_id else latest.remove()
    forgetting, stale = _forgetting(chat, turn)
    actions = [back, ChatItem.message_count.add(-turn.messages), *_moved(chat, call), *forgetting]
    writes: list[Write] = [
        Update("chat", ChatItem(*keys.chat(chat.tenant_id, chat.chat_id)), actions, _is_mutable(call, chat, turn)),
        *stale,
        _end_of_old(call, turn),
        *_withdrawn(call, target),
        *references.released(turn),
        *_events(events),
    ]
    try:
        commit(writes, token=token, op="delete_turn")
    except Refused as refused:
        _raise_refusal(call, chat, turn, refused)


def told_by(turn: Turn) -> Condition:
    """The turn runs, and nobody has taken it over since it was read."""
    same_teller = is_still(TurnItem.teller, turn.teller)
    return all_of(_runs(), same_teller)


def _runs() -> Condition:
    """Nobody has ended the turn."""
    condition: Condition = TurnItem.state == TurnState.RUNNING.value
    return condition


@dataclass(frozen=True, slots=True)
class TurnProgress:
    """What the teller of a running turn learned: whether somebody asked the turn to stop."""

    cancel_requested: bool


def look(turn: Turn) -> TurnProgress | None:
    """What became of a running turn since; None when it has ended and its teller must stop.

    Raises ServiceUnavailable.
    """
    key = keys.turn(turn.tenant_id, turn.chat_id, turn.request_id)
    now = from_raw(batch_get([key]).get(key))
    if now is None or now.state is not TurnState.RUNNING or now.teller != turn.teller:
        return None
    return TurnProgress(cancel_requested=now.cancel_requested_at is not None)


def progress(call: Call, turn: Turn, *, provider_called: bool) -> TurnProgress | None:
    """Renews the lease of a running turn: the sign of life without which it counts as dead. Returns as `look` does."""
    item = TurnItem(*keys.turn(turn.tenant_id, turn.chat_id, turn.request_id))
    actions: list[Action] = [TurnItem.last_progress_at.set(call.now)]
    if provider_called:
        called = TurnItem.provider_request_started_at
        actions.append(called.set(called | call.now))
    if not update_one(item, actions, told_by(turn), op="renew_turn"):
        return None
    return TurnProgress(cancel_requested=item.cancel_requested_at is not None)


def request_cancel(call: Call, turn: Turn, event: OutboxItem) -> bool:
    """Asks a running turn to stop; False when it has ended, or was asked before."""
    item = TurnItem(*keys.turn(turn.tenant_id, turn.chat_id, turn.request_id))
    # Of two who ask at once the first has the event.
    unasked = TurnItem.cancel_requested_at.does_not_exist()
    writes: list[Write] = [
        Update("turn", item, [TurnItem.cancel_requested_at.set(call.now)], all_of(_runs(), unasked)),
        *_events([event]),
    ]
    return try_commit(writes, token=call.new_id(call.now), op="cancel_turn")


def _begin(call: Call, chat: Chat, new: Start, *, ended_messages: int) -> tuple[ChatItem, list[Action]]:
    head = ChatItem(*keys.chat(chat.tenant_id, chat.chat_id))
    return head, [
        ChatItem.running_request_id.set(new.turn.request_id),
        ChatItem.latest_request_id.set(new.turn.request_id),
        ChatItem.message_count.add(1 - ended_messages),
        ChatItem.last_message_at.set(new.message.created_at),
        *_moved(chat, call),
    ]


def _moved(chat: Chat, call: Call) -> list[Action]:
    """The chat comes to the front of its owner's list."""
    updated_at = max(call.now, chat.updated_at)
    return [
        ChatItem.updated_at.set(updated_at),
        ChatItem.listed_at.set(keys.listed_at(chat.tenant_id, chat.chat_id, updated_at)),
    ]


def _new_turn(new: Start, retention_days: int) -> list[Write]:
    turn = new.turn
    flat: dict[str, Any] = {name: getattr(turn, name) for name in _plain_fields()}
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
        quota.reserve(turn, new.limits, new.per_day, retention_days=retention_days),
        *_events(new.events),
    ]


def _end_of_old(call: Call, old: Turn, *actions: Action) -> Update:
    """Hides a turn that is still there, terminal, and the caller's."""
    is_there = TurnItem.pk.exists()
    is_theirs = TurnItem.requester_user_id == call.caller.user_id
    # The end of one that runs would count in a message that nobody takes out again.
    has_ended = TurnItem.state != TurnState.RUNNING.value
    is_shown = TurnItem.deleted_at.does_not_exist()
    condition = all_of(is_there, is_theirs, has_ended, is_shown)
    item = TurnItem(*keys.turn(old.tenant_id, old.chat_id, old.request_id))
    return Update("old turn", item, [TurnItem.deleted_at.set(call.now), *actions], condition)


def _withdrawn(call: Call, target: Target) -> list[Write]:
    """What takes the turn's messages out of the conversation."""
    turn, found = target.turn, {one.message.message_id: one for one in target.said}
    ids = [turn.user_message_id, *([turn.assistant_message_id] if turn.answered else [])]
    writes: list[Write] = []
    for message_id in ids:
        if message_id in found:
            writes += messages.withdraw(turn.tenant_id, turn.chat_id, found[message_id], call.now)
        else:
            # Another was faster, and the other conditions say so.
            writes.append(messages.must_be_gone(turn.tenant_id, turn.chat_id, message_id))
    return writes


def _forgetting(chat: Chat, turn: Turn) -> tuple[list[Action], list[Update]]:
    """The head's actions, and other updates, that keep a summary from repeating a turn that is gone."""
    if not chat.covers(turn.user_message_id):
        return [], []
    return [ChatItem.summarized_up_to.remove()], [summaries.stale(chat.tenant_id, chat.chat_id)]


def _is_mutable(call: Call, chat: Chat, turn: Turn) -> Condition:
    """The chat is the caller's, its latest turn is the target, none runs, and what is summarized is what was seen."""
    # Only the end of a conversation changes: nothing comes after what goes.
    is_latest = ChatItem.latest_request_id == turn.request_id
    none_runs = ChatItem.running_request_id.does_not_exist()
    # Whether a summary covers the turn, and has to be marked, was decided by the frontier that was seen.
    same_frontier = is_still(ChatItem.summarized_up_to, chat.summarized_up_to)
    return all_of(chats.owned_by(call.caller), is_latest, none_runs, same_frontier)


def _nothing_new_in(chat: Chat) -> Condition:
    """No turn has begun since `chat` was read, not even one that is gone again."""
    same_latest = is_still(ChatItem.latest_request_id, chat.latest_request_id)
    # A turn that came and went leaves the same one the latest, but not the same time.
    same_time = is_still(ChatItem.last_message_at, chat.last_message_at)
    return all_of(same_latest, same_time)


def _raise_refusal(call: Call, chat: Chat, target: Turn, refused: Refused) -> NoReturn:
    """What the mutation of `target` is refused with, by what the winner left."""
    now_chat = chats.from_raw(refused.old["chat"]) if "chat" in refused.old else chat
    now_turn = from_raw(refused.old["old turn"]) if "old turn" in refused.old else target
    now_chat, _ = check_mutation(call.caller, now_chat, now_turn, target.request_id)
    if now_chat.running_request_id is None and now_chat.summarized_up_to != chat.summarized_up_to:
        raise ChatMoved from refused
    if "chat" in refused.old:
        raise GenerationInProgress(_running(refused.old["chat"])) from refused
    if any(name.startswith(messages.TAKEN_BACK) for name in refused.old):
        raise ChatMoved from refused
    raise CreditsTaken from refused


def _taken(call: Call, new: Start, raw: Raw | None) -> CreditsTaken:
    """Why the quota's item, as it was then, had no room for the turn's reserve."""
    quota_use = quota.quota_use(new.limits, raw, call.now)
    none_left = lacking(quota_use.daily.counts, new.turn.reserve.day_counts, new.per_day, call.now)
    return CreditsTaken(none_left or quota_use.lacks(new.turn.reserve, call.now))


def _running(head: Raw | None) -> RequestId | None:
    chat = chats.from_raw(head)
    return chat.running_request_id if chat else None


def _events(events: Iterable[OutboxItem]) -> list[Put]:
    return [Put(f"event {event.sk}", event) for event in events]


def _plain_fields() -> list[str]:
    return [f.name for f in fields(Turn) if f.name not in _NESTED and f.name not in _KEYS]


def _stored(item: TurnItem, name: str) -> Any:
    value = getattr(item, name)
    return int(value) if isinstance(value, float) else value
