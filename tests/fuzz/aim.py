"""Things that are there: a chat with a turn, its messages and a file, for requests that would miss them all."""

import os
from uuid import UUID

import httpx2

BASE_URL, AUTHORIZATION = "FUZZ_BASE_URL", "FUZZ_AUTHORIZATION"
"""Environment variables: where the API is, and as whom to call it. Without them nothing is aimed."""


class Aim:
    """What one user has now; what was deleted meanwhile is made again."""

    def __init__(self, base_url: str, authorization: str) -> None:
        self._http = httpx2.Client(
            base_url=base_url, headers={"authorization": authorization}, timeout=60, trust_env=False
        )
        self._chat_id = ""

    @classmethod
    def given(cls) -> "Aim | None":
        """The aim of this process, if it has one."""
        found = os.environ.get(BASE_URL), os.environ.get(AUTHORIZATION)
        return None if found[0] is None or found[1] is None else cls(found[0], found[1])

    def at(self, names: dict[str, object]) -> dict[str, str]:
        """What is there in place of those of these parameters of a path that are ids."""
        wanted = {name for name, value in names.items() if _is_id(value)}
        if not wanted:
            return {}
        page = self._newest()
        found = {"request_id": page[0]["request_id"], "message_id": page[0]["id"]}
        if "attachment_id" in wanted:
            found["attachment_id"] = self._file()
        found["chat_id"] = self._chat_id
        return {name: value for name, value in found.items() if name in wanted}

    def _file(self) -> str:
        file = {"file": ("a.txt", b"a text", "text/plain")}
        answer = self._http.post(f"/chats/{self._chat_id}/attachments", files=file)
        if answer.status_code == 429:  # one chat has so many, and no more; a user's day has more than a run needs
            self._chat_id = ""
            self._newest()
            answer = self._http.post(f"/chats/{self._chat_id}/attachments", files=file)
        return str(answer.raise_for_status().json()["id"])

    def _newest(self) -> list[dict[str, str]]:
        """The chat's newest messages: a turn ends before it is aimed at."""
        query = {"limit": "2", "$select": "id,request_id,role", "$orderby": "created_at desc"}
        answer = self._http.get(f"/chats/{self._chat_id}/messages", params=query) if self._chat_id else None
        if answer is None or answer.status_code == 404:
            self._chat_id = str(self._http.post("/chats", json={}).raise_for_status().json()["id"])
        elif (page := answer.raise_for_status().json()["items"]) and page[0]["role"] == "assistant":
            return list(page)
        message = {"content": "[[say:Yes, of course.]][[delay:0]]"}
        self._http.post(f"/chats/{self._chat_id}/messages:stream", json=message).raise_for_status()
        return self._newest()


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False
