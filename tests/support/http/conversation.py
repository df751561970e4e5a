"""A whole conversation over HTTP, the same wherever the API runs, told line by line with its times."""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.http.client import Answer, User

Found = TypeVar("Found")


def hold(user: User) -> str:
    """Makes a chat, sends, reads, resumes, retries, edits and deletes; returns the id of the chat, which stays."""
    chat = _told("POST /chats", lambda: user.new_chat(title="Capitals"))
    sent = _told("POST …/messages:stream", lambda: user.send(chat, "[[say:Paris it is.]] The capital of France?"))
    assert (sent.names, sent.text) == (["stream_started", "delta", "done"], "Paris it is.")
    assert _told("GET …/turns/{id}", lambda: user.turn(chat, sent.request_id).json()["state"]) == "done"
    again = _told("GET …/turns/{id}/stream", lambda: user.resume(chat, sent.request_id, after=1))
    assert (again.names, again.text) == (["delta", "done"], "Paris it is.")
    retried = _told("POST …/turns/{id}/retry", lambda: user.retry(chat, sent.request_id))
    assert (retried.names, retried.text) == (sent.names, sent.text)
    edited = _told("PATCH …/turns/{id}", lambda: user.edit(chat, retried.request_id, "[[say:Rome.]] And of Italy?"))
    assert (edited.names, edited.text) == (sent.names, "Rome.")
    assert _told("DELETE …/turns/{id}", lambda: user.delete(chat, retried.request_id).status_code) == 409
    assert _said(user, chat) == ["[[say:Rome.]] And of Italy?", "Rome."]
    assert _told("DELETE …/turns/{id}", lambda: user.delete(chat, edited.request_id).status_code) == 204
    assert _said(user, chat) == []
    return chat


def _said(user: User, chat: str) -> list[str]:
    return _told("GET …/messages", lambda: [message["content"] for message in user.messages(chat)])


def _told(what: str, call: Callable[[], Found]) -> Found:
    began = time.monotonic()
    found = call()
    said = f"{found.status} {found.names} {found.text!r} {found.problem or ''}" if isinstance(found, Answer) else found
    print(f"  {time.monotonic() - began:6.2f} s  {what:24} {said}", flush=True)
    return found
