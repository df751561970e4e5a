"""What takes the latest turn away: a retry or an edit puts another in its place, and a deletion none; one transaction.

What the conditions prevent, on the head (`CHAT`) and the turn (`TURN#<request_id>`):

    a mutation of an old turn   head: latest_request_id must be the target; turn: terminal and not deleted
    a turn that a summary       head: summarized_up_to must be what was read, for by that it was decided whether the
    goes on to repeat           summary covers the turn and has to be marked

A turn that takes another's place begins under the conditions of `storage.turns` besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.chat import Chat
from minichat.domain.errors import ChatMoved, CreditsTaken, GenerationInProgress
from minichat.domain.identity import Call
from minichat.domain.mutation import check_mutation
from minichat.domain.turn import Turn, TurnState
from minichat.storage import chats, keys, leases, messages, references, summaries, turns
from minichat.storage.conditions import all_of, is_still
from minichat.storage.items import ChatItem, OutboxItem, TurnItem
from minichat.storage.transact import Put, Refused, Update, Write, commit


@dataclass(frozen=True, slots=True)
class Target:
    """The latest turn, which is to go, and its messages as they were found."""

    turn: Turn
    said: tuple[messages.FoundMessages, ...]


def supersede(call: Call, chat: Chat, target: Target, new: turns.Start, *, retention_days: int) -> None:
    """Puts a new turn in the place of the latest one: retry and edit, in one transaction.

    Raises what `check_mutation` finds in what the winner left, ChatMoved, or what `turns.no_room` finds;
    ServiceUnavailable as `turns.start` does.
    """
    old = target.turn
    head, actions = turns.begins(call, chat, new, ended_messages=old.messages)
    forgetting, stale = _forgetting(chat, old)
    unchanged = all_of(_is_mutable(call, chat, old), chats.nothing_new_in(chat))
    writes: list[Write] = [
        Update("chat", head, [*actions, *forgetting], unchanged),
        *stale,
        _end_of_old(call, old, TurnItem.replaced_by_request_id.set(new.turn.request_id)),
        *_withdrawn(call, target),
        *turns.put_new(new, retention_days),
    ]
    beginning = leases.Beginning(call, new.turn)
    try:
        check = partial(_check, call, old)
        commit(writes, token=new.turn.turn_id, op="replace_turn", took_effect=beginning.took_effect, check=check)
        beginning.check()
    except Refused as refused:
        if refused.old.keys() == {"quota"}:
            raise turns.no_room(call, new, refused.old["quota"]) from refused
        _raise_refusal(call, chat, old, refused)


def delete(call: Call, chat: Chat, target: Target, events: Sequence[OutboxItem], *, token: str) -> None:
    """Hides the latest turn, and takes back its messages; the turn before it is the latest again.

    Raises what `check_mutation` finds in what the winner left, or ChatMoved.
    """
    turn = target.turn
    latest = ChatItem.latest_request_id
    back = latest.set(turn.prev_request_id) if turn.prev_request_id else latest.remove()
    forgetting, stale = _forgetting(chat, turn)
    actions = [back, ChatItem.message_count.add(-turn.messages), *chats.to_the_front(chat, call.now), *forgetting]
    writes: list[Write] = [
        Update("chat", ChatItem(*keys.chat(chat.tenant_id, chat.chat_id)), actions, _is_mutable(call, chat, turn)),
        *stale,
        _end_of_old(call, turn),
        *_withdrawn(call, target),
        *references.released(turn),
        *(Put(f"event {event.sk}", event) for event in events),
    ]
    try:
        commit(writes, token=token, op="delete_turn", check=partial(_check, call, turn))
    except Refused as refused:
        _raise_refusal(call, chat, turn, refused)


def _check(call: Call, target: Turn) -> None:
    """Raises what `check_mutation` finds when another has changed the chat or the turn."""
    chat, turn = turns.read(target.tenant_id, target.chat_id, target.request_id)
    check_mutation(call.caller, chat, turn, target.request_id)


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


def _raise_refusal(call: Call, chat: Chat, target: Turn, refused: Refused) -> NoReturn:
    """What the mutation of `target` is refused with, by what the winner left."""
    now_chat = chats.from_raw(refused.old["chat"]) if "chat" in refused.old else chat
    now_turn = turns.from_raw(refused.old["old turn"]) if "old turn" in refused.old else target
    now_chat, _ = check_mutation(call.caller, now_chat, now_turn, target.request_id)
    if now_chat.running_request_id is None and now_chat.summarized_up_to != chat.summarized_up_to:
        raise ChatMoved from refused
    if "chat" in refused.old:
        raise GenerationInProgress(chats.running_in(refused.old["chat"])) from refused
    if any(name.startswith(messages.TAKEN_BACK) for name in refused.old):
        raise ChatMoved from refused
    raise CreditsTaken from refused
