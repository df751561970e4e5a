"""Gives a local file to a chat: announces it, posts it with the form in the response, and waits until it is ready."""

import os
import time
from pathlib import Path
from typing import Any

from minichat.cli.api import Api

ASK_AGAIN_SECONDS = 0.3
ENDS = ("ready", "failed")


class Unusable(Exception):
    """The file cannot be read, or the deployment could not take it in; the text is a sentence for people."""


def give(api: Api, chat_id: str, path: Path) -> dict[str, Any]:
    """The attachment of the file, once it is ready. Its type follows from the name's extension.

    Raises Unusable, ApiRefused, Unreachable.
    """
    try:
        with path.expanduser().open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            announced = {"filename": path.name, "content_type": "application/octet-stream", "size_bytes": size}
            attachment = api.call("POST", "chats", chat_id, "attachments", "uploads", body=announced)
            api.post_form(attachment["upload"]["url"], attachment["upload"]["fields"], file)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}.") from None
    while attachment["status"] not in ENDS:
        time.sleep(ASK_AGAIN_SECONDS)
        attachment = api.call("GET", "chats", chat_id, "attachments", attachment["id"])
    if attachment["status"] == "failed":
        raise Unusable(f"{path.name} could not be taken in [{attachment['error_code']}].")
    return dict(attachment)
