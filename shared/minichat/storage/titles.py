"""The title that the system gives an untitled chat."""

from minichat.domain.identity import Call, ChatId, MessageId
from minichat.storage import keys, messages
from minichat.storage.chats import is_alive
from minichat.storage.conditions import all_of
from minichat.storage.items import ChatItem, MessageItem, OutboxItem
from minichat.storage.transact import Check, Put, Update, Write, try_commit


def give(call: Call, chat_id: ChatId, title: str, after: MessageId, event: OutboxItem) -> bool:
    """Gives an untitled chat this title, and publishes the event; False when it came too late.

    Too late: the chat has a title or was deleted, or the message that the title is from was taken back. The chat keeps
    its place in its owner's list: nobody has used it.
    Raises ServiceUnavailable.
    """
    tenant_id = call.caller.tenant_id
    head, message = ChatItem(*keys.chat(tenant_id, chat_id)), MessageItem(*keys.message(tenant_id, chat_id, after))
    # What its owner calls it is never written over.
    untitled = ChatItem.title.does_not_exist()
    writes: list[Write] = [
        Update("chat", head, [ChatItem.title.set(title)], all_of(is_alive(), untitled)),
        # A title made from a withdrawn message would repeat it.
        Check("message", message, messages.is_in_place()),
        Put("event", event),
    ]
    return try_commit(writes, token=call.new_id(call.now), op="give_title")
