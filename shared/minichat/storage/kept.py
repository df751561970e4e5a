"""How much a turn keeps in the table."""

from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.items import MessageItem, batch_get
from minichat.storage.sizes import size_of


def kept_bytes(turn: Turn) -> int:
    """Bytes of a turn and its messages, texts in items of their own included, taken back or not.

    Its stream and its events expire by themselves, and chat and quota are not its alone. Raises ServiceUnavailable.
    """
    wanted = [keys.turn(turn.tenant_id, turn.chat_id, turn.request_id)]
    for message_id in (turn.user_message_id, turn.assistant_message_id):
        where = turn.tenant_id, turn.chat_id, message_id
        wanted += [keys.message(*where), keys.withdrawn(*where)]
    texts = MessageItem.text_bytes.attr_name
    return sum(size_of(raw) + int(raw.get(texts, {"N": "0"})["N"]) for raw in batch_get(wanted).values())
