"""Tenants and users of any name, in the running stack: everything works for them, and nobody meets another."""

import json
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from minichat.auth_settings import Auth
from minichat.events.audit_sink import records
from minichat.local.issuer import Issuer
from tests.support.events.consumers import minichat
from tests.support.http.client import Stack, User
from tests.support.http.given_files import PDF, announced, posted
from tests.support.patience import PATIENCE

NAMES = [
    ("a#U#x", "b"),
    ("a", "x#U#b"),
    ("org_9ybsU1dN2dKfDkBi", "auth0|5f7c8ec7c33c6c004bbafe82"),
    ("org_9ybsU1dN2dKfDkBi", "AUTH0|5f7c8ec7c33c6c004bbafe82"),
    ("../a", "/"),
    ("名" * 255, "\U0010ffff" * 255),
    ("\0:%23~ é", "e\u0301"),
    ("\0:%23~ é", "\u00e9"),
]
"""Some would meet if they were parts of keys as they are, or if their case or form did not count."""


def _as(stack: Stack, tenant: str, user: str) -> User:
    issuer, auth = Issuer(stack.state), Auth()
    more = {auth.tenant_claim: tenant, auth.subject_claim: user}
    return User(
        stack.base_url, issuer.token("", "", now=datetime.now(UTC), lifetime=timedelta(hours=1), auth=auth, **more)
    )


def test_users_of_any_name_chat_and_attach_and_each_has_only_their_own(stack: Stack) -> None:
    chats, began = {}, datetime.now(UTC)
    with ExitStack() as leaving:
        users = {names: leaving.enter_context(_as(stack, *names)) for names in NAMES}
        for number, (names, user) in enumerate(users.items()):
            chats[names] = user.new_chat(title=f"chat {number}")
            assert user.send(chats[names], f"[[say:answer {number}]]").text == f"answer {number}"
        for names in (NAMES[0], NAMES[5]):  # through object storage and its notifications
            made = announced(users[names], chats[names]).json()
            assert posted(made["upload"], PDF) == 204
            path = f"/chats/{chats[names]}/attachments/{made['id']}"
            asked = time.monotonic()
            while (status := users[names].http.get(path, headers={"prefer": "wait=15"}).json()["status"]) != "ready":
                assert (status in {"pending", "uploaded"}, time.monotonic() - asked < PATIENCE) == (True, True)
        for names, user in users.items():
            page = user.http.get("/chats", params={"limit": 1}).json()
            assert [one["id"] for one in page["items"]] == [chats[names]]
            assert user.http.get("/quota/status").json()["counts"]
            for others, chat_id in chats.items():
                seen = user.http.get(f"/chats/{chat_id}").status_code
                assert seen == (200 if others == names else 404)
    assert _turns_when_all_are_told(stack) == Counter(dict.fromkeys(NAMES, 1))
    tenant = "名" * 255
    days = ("--from", f"{began:%Y-%m-%d}", "--to", f"{datetime.now(UTC):%Y-%m-%d}")
    booked: set[str] = set()
    while not booked:  # the ledger and the audit trail are told side by side
        used = minichat(stack, "usage", "--tenant", tenant, *days, "--by", "user", "--format", "json")
        assert used.returncode == 0, used.stderr
        booked = {row["user"] for row in json.loads(used.stdout)}
    assert booked == {"\U0010ffff" * 255}
    checked = minichat(stack, "reconcile", "--tenant", tenant)
    assert checked.returncode == 0, checked.stdout


def _turns_when_all_are_told(stack: Stack) -> Counter[tuple[str, str]]:
    """How many turns the audit trail has, by tenant and user, once it has as many as there are."""
    deadline = time.monotonic() + PATIENCE
    while True:
        told = records(Path(stack.state) / "audit")
        found = [one for one in told if (one["tenant_id"], one.get("user_id")) in NAMES]
        if len(found) >= len(NAMES) or time.monotonic() > deadline:
            return Counter((one["tenant_id"], one["user_id"]) for one in found)
        time.sleep(0.2)
