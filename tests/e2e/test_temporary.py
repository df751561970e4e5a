"""A temporary chat from its creation to its end, in a stack of its own that keeps it for seconds."""

import time
from pathlib import Path

import httpx2

from minichat.settings import Store
from tests.conftest import running_stack
from tests.support.http.given_files import ended, refused, uploaded
from tests.support.storage.invariants import Tables

ENDS_SECONDS = 240
"""The watchdog comes once a minute, and a busy machine may be late for it."""


def test_a_temporary_chat_ends_by_itself_and_its_provider_keeps_nothing(tmp_path: Path) -> None:
    hurried = {"MINICHAT_RETENTION__TEMPORARY_CHATS_HOURS": "0.01"}
    with running_stack(tmp_path, environment=hurried) as stack, stack.user() as user:
        kept = user.new_chat()
        chat_id = user.new_chat(is_temporary=True)
        assert user.chat(chat_id)["is_temporary"] is True
        assert [chat["id"] for chat in user.http.get("/chats").json()["items"]] == [kept]
        assert ended(user, chat_id, uploaded(user, chat_id).json())["status"] == "ready"
        assert user.send(chat_id, "[[say:hello]]").text == "hello"
        until = time.monotonic() + ENDS_SECONDS
        while (answer := user.http.get(f"/chats/{chat_id}")).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.5)
        refused(answer, 404, "chat_not_found")
        control = f"{stack.about['provider_url']}/control/files"
        while httpx2.get(control, trust_env=False).json()["files"]:
            assert time.monotonic() < until
            time.sleep(0.5)
        outbox = Tables.of(Store(endpoint=stack.about["engine_url"])).outbox
        told = {one["type"]: one["payload"] for one in outbox if one["pk"].endswith(chat_id)}
        assert all('"reason":"temporary_expired"' in told[kind] for kind in ("chat_delete", "chat_cleanup"))
        assert user.chat(kept)["is_temporary"] is False
