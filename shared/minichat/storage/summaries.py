"""The summary of a chat: conditions make it true at the moment when it is written.

What the conditions prevent:

    two summaries at once        SUMMARY: its frontier must be the base, and it must not be stale; without a base there
                                 must be none, or a stale one
    a withdrawn message in it    message at the target: must exist, for withdrawn messages move (in chats of an earlier
                                 version: not hidden). Turns are only ever deleted from the latest backwards, so while
                                 the last message of a range exists, all of it is as it was read
    a summary of a deleted chat  head: not deleted. The purge of the chat's items comes later, and finds the summary

The head names the frontier. So the mutation of a covered turn, which reads and writes the head anyway, knows that it
must mark the summary, and can condition on that, at no cost.
"""

from dataclasses import dataclass

from pynamodb.expressions.condition import Condition

from minichat.domain.identity import Call, ChatId, MessageId, TenantId
from minichat.domain.summary import Compression, Frontier, Summary
from minichat.storage import chats, keys, messages
from minichat.storage.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    InstantAttribute,
    NumberAttribute,
    UnicodeAttribute,
)
from minichat.storage.conditions import all_of, any_of, is_still
from minichat.storage.items import ChatItem, ConversationItem, MessageItem, OutboxItem, batch_get
from minichat.storage.keys import Raw
from minichat.storage.transact import Check, Put, Update, try_commit


class SummaryItem(ConversationItem):
    """The summary of the older part of a chat, up to the frontier; `stale` once a turn that it covers was changed."""

    content = UnicodeAttribute(attr_name="text", null=True)
    packed = BinaryAttribute(attr_name="zip", null=True, legacy_encoding=False)
    frontier_id = UnicodeAttribute(attr_name="up_to")
    frontier_at = InstantAttribute(attr_name="up_to_at")
    token_estimate = NumberAttribute(attr_name="tokens")
    stale = BooleanAttribute(null=True)


def from_raw(raw: Raw | None) -> Summary | None:
    """The summary of a stored item; None for a stale one, which repeats what somebody took back."""
    if raw is None:
        return None
    item = SummaryItem.from_raw_data(dict(raw))
    if item.stale:
        return None
    return Summary(
        text=messages.unpacked(item.content, item.packed),
        frontier=Frontier(item.frontier_at, MessageId(item.frontier_id)),
        token_estimate=int(item.token_estimate),
    )


@dataclass(frozen=True, slots=True)
class FoundSummary:
    """A chat's summary, if usable, and whether the chat exists and is not deleted."""

    alive: bool
    model: str
    summary: Summary | None


def read(tenant_id: TenantId, chat_id: ChatId) -> FoundSummary:
    """What a new summary starts from, in one consistent round trip.

    Raises ServiceUnavailable.
    """
    chat_key, summary_key = keys.chat(tenant_id, chat_id), keys.summary(tenant_id, chat_id)
    found = batch_get([chat_key, summary_key])
    if chat_key not in found:
        return FoundSummary(False, "", None)
    head = ChatItem.from_raw_data(dict(found[chat_key]))
    return FoundSummary(head.deleted_at is None, head.model, from_raw(found.get(summary_key)))


def write(call: Call, chat_id: ChatId, covered: Compression, summary: Summary, event: OutboxItem) -> bool:
    """Puts the summary in place of the one at the base, and publishes the event; False when it came too late.

    Raises ServiceUnavailable.
    """
    tenant_id, base = call.caller.tenant_id, covered.base
    content, packed = messages.pack(summary.text)
    item = SummaryItem(
        *keys.summary(tenant_id, chat_id),
        content=content,
        packed=packed,
        frontier_id=summary.frontier.message_id,
        frontier_at=summary.frontier.created_at,
        token_estimate=summary.token_estimate,
    )
    frontier = ChatItem.summarized_up_to
    # A mutation relies on the head's frontier: it must be at the summary's base before it moves.
    at_base = is_still(frontier, None if base is None else base.message_id)
    last = MessageItem(*keys.message(tenant_id, chat_id, covered.target.message_id))
    head = ChatItem(*keys.chat(tenant_id, chat_id))
    return try_commit(
        [
            Put("summary", item, _at(base)),
            Put("event", event),
            Update("chat", head, [frontier.set(summary.frontier.message_id)], all_of(chats.is_alive(), at_base)),
            Check("last message", last, messages.is_in_place()),
        ],
        token=call.new_id(call.now),
        op="summarize",
    )


def stale(tenant_id: TenantId, chat_id: ChatId) -> Update:
    """The write that marks the summary as stale: no longer used, and rebuilt when one is due."""
    item = SummaryItem(*keys.summary(tenant_id, chat_id))
    return Update("summary", item, [SummaryItem.stale.set(True)], SummaryItem.pk.exists())


def _at(base: Frontier | None) -> Condition:
    """The summary is the one that the new one was made from: at the base, or none usable."""
    if base is None:
        is_absent = SummaryItem.pk.does_not_exist()
        # The mutation of a covered turn marks the summary, but does not remove it.
        is_stale = SummaryItem.stale.exists()
        return any_of(is_absent, is_stale)
    at_base = SummaryItem.frontier_id == base.message_id
    is_fresh = SummaryItem.stale.does_not_exist()
    return all_of(at_base, is_fresh)
