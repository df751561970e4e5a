"""A client of Mini Chat: answers stream, and a stream survives.

from minichat_client import DeltaEvent, MiniChat

with MiniChat("http://127.0.0.1:8080/mini-chat/v1", token) as client:
    chat = client.create_chat(title="Capitals")
    for event in client.send(chat, "The capital of France?"):
        if isinstance(event, DeltaEvent):
            print(event.content, end="")
"""

from minichat_client.answers import Answer, AsyncAnswer
from minichat_client.client import AsyncMiniChat, MiniChat
from minichat_client.errors import AnswerFailed, AttachmentFailed, MiniChatError, NotMiniChat, Refused, Unreachable
from minichat_client.events import (
    CitationsEvent,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    StreamStartedEvent,
    ToolEvent,
    UnknownEvent,
)
from minichat_client.pages import AsyncPages, Pages

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AnswerFailed",
    "AsyncAnswer",
    "AsyncMiniChat",
    "AsyncPages",
    "AttachmentFailed",
    "CitationsEvent",
    "DeltaEvent",
    "DoneEvent",
    "ErrorEvent",
    "Event",
    "MiniChat",
    "MiniChatError",
    "NotMiniChat",
    "Pages",
    "Refused",
    "StreamStartedEvent",
    "ToolEvent",
    "UnknownEvent",
    "Unreachable",
]
