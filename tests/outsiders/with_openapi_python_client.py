"""A conversation with the client that openapi-python-client makes. Arguments: the address, a token."""

import json
import sys
from http import HTTPStatus
from typing import Any

from made.api.chats import create_chat, delete_chat, get_chat
from made.api.messages import list_messages
from made.api.turns import resume_turn, retry_turn, send_message
from made.client import AuthenticatedClient
from made.models import ChatDetail, CreateChat, Problem, SendMessageBody


def told(stream: object) -> list[dict[str, Any]]:
    """The data of each event: to this client a stream is text, which it gives whole."""
    assert isinstance(stream, str), stream
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def text(events: list[dict[str, Any]]) -> str:
    """What the answer says."""
    return "".join(data.get("content", "") for data in events)


def main() -> None:
    """Holds the conversation, and prints what came of it."""
    _, base_url, token = sys.argv
    client = AuthenticatedClient(base_url=base_url, token=token)
    chat = create_chat.sync(client=client, body=CreateChat(title="The moon"))
    assert isinstance(chat, ChatDetail), chat
    sent = told(send_message.sync(chat.id, client=client, body=SendMessageBody(content="[[say:Far away.]]")))
    request_id = sent[0]["request_id"]
    resumed = told(resume_turn.sync(chat.id, request_id, client=client, last_event_id=1))
    retried = told(retry_turn.sync(chat.id, request_id, client=client))
    page = list_messages.sync(chat.id, client=client)
    assert page is not None
    assert not isinstance(page, Problem), page
    gone = delete_chat.sync_detailed(chat.id, client=client)
    refused = get_chat.sync(chat.id, client=client)
    assert gone.status_code == HTTPStatus.NO_CONTENT
    assert isinstance(refused, Problem), refused
    said = {"said": text(sent), "resumed": text(resumed), "retried": text(retried)}
    messages = [message.content for message in page.items]
    print(json.dumps({**said, "messages": messages, "gone": gone.status_code, "refused": refused.code}))


main()
