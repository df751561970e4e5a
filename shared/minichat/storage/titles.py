"""The title that the system gives a chat which has none."""

from minichat.domain.identity import Call, ChatId, MessageId
from minichat.storage import keys, messages
from minichat.storage.chats import is_alive
from minichat.storage.conditions import all_of
from minichat.storage.items import ChatItem, MessageItem, OutboxItem
from minichat.storage.transact import Check, Put, Update, Write, try_commit


def give(call: Call, chat_id: ChatId, title: str, after: MessageId, event: OutboxItem) -> bool:
    """Gives a chat that has no title this one, and lets the event out; False when it came too late.

    That is when the chat has a title or was deleted, or the message that the title is from was taken back. The chat
    stays where it is in its owner's list: nobody has used it.
    Raises ServiceUnavailable.
    """
    tenant_id = call.caller.tenant_id
    head, message = ChatItem(*keys.chat(tenant_id, chat_id)), MessageItem(*keys.message(tenant_id, chat_id, after))
    # What its owner calls it is never written over.
    untitled = ChatItem.title.does_not_exist()
    writes: list[Write] = [
        Update("chat", head, [ChatItem.title.set(title)], all_of(is_alive(), untitled)),
        # A title from what was taken back would repeat it.
        Check("message", message, messages.is_in_place()),
        Put("event", event),
    ]
    return try_commit(writes, token=call.new_id(call.now), op="give_title")
