"""A file of this machine given to a chat: announced, posted by the form that this is answered with, and waited for."""

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
    """The attachment that the file has become, once it is ready. Its type is told by its name's extension.

    Raises Unusable, Refused, Unreachable.
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
