"""Looks for what is left of a user, or of a tenant: in every item of the table, the bucket, at providers, in queues.

It shares no decision with the erasure but one: which items of the ledger name nobody.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from minichat.domain.cleanup import CleanupStatus
from minichat.domain.names import in_key
from minichat.events import dead_letters
from minichat.events.dead_letters import DeadLetter
from minichat.settings import Settings
from minichat.storage import attachments, keys, objects, outbox, persons, scan, unreadable
from minichat.storage.keys import Raw
from minichat.storage.persons import Whose
from minichat.storage.unreadable import Unreadable

Place = Literal["table", "outbox", "bucket", "provider", "queue", "dead letters"]


@dataclass(frozen=True, slots=True)
class Residue:
    """Something of theirs: where, what it is, and what of it shows that; until when, if it goes by itself."""

    place: Place
    what: str
    why: str
    until: datetime | None = None


def residue(whose: Whose, settings: Settings, now: datetime) -> Iterator[Residue]:
    """Everything that is left, as it is found. Reads both tables whole, and looks at each message of each queue, which
    counts as a delivery; without a bucket or queues in the settings there are none to look at.

    Raises ServiceUnavailable.
    """
    # Whose a chat or an export is, by its id; an export of the whole tenant is nobody's alone.
    owners: dict[str, str] = {}
    for raw in scan.items():
        if scan.is_of(raw, whose.tenant_id):
            yield from _of_item(raw, whose, owners)
    yield from _of_outbox(whose, now)
    if settings.attachments.bucket:
        yield from _of_bucket(whose, owners)
    for name, url in settings.queues.urls.items():
        yield from _of_queue("queue", name, url, whose)
    for name, url in settings.queues.dead_letters.items():
        yield from _of_queue("dead letters", name, url, whose)


def _of_item(raw: Raw, whose: Whose, owners: dict[str, str]) -> Iterator[Residue]:
    key = keys.of(raw)
    if keys.is_of_chat(key.pk) and key.sk == keys.CHAT_SK:
        owners[keys.chat_of(key.pk)[1]] = keys.text(raw, "user", "")
    if keys.kind_of(key.pk) == "EXPORT":
        owners[key.sk] = keys.text(raw, "user", "")
    fate = persons.fate(raw, whose)
    mentioned = [] if whose.user_id is None else persons.mentions(raw, whose.user_id)
    if fate is None and not mentioned:
        return
    yield Residue("table", f"{key.pk} {key.sk}", ", ".join(mentioned) or "the tenant's")
    if key.sk.startswith(keys.ATTACHMENT_PREFIX):
        file = unreadable.read(raw, attachments.from_raw)
        if isinstance(file, Unreadable) or (file.cleanup.status is not CleanupStatus.DONE and _is_at_provider(file)):
            yield Residue("provider", f"{key.pk} {key.sk}", "its file is not cleaned up")
    if key.sk.startswith(keys.VECTOR_STORE_PREFIX) and "gone_at" not in raw:
        yield Residue("provider", f"{key.pk} {key.sk}", "a vector store that is not gone")


def _is_at_provider(file: Any) -> bool:
    return file.provider_file_id is not None or file.unnoted_since is not None


def _of_outbox(whose: Whose, now: datetime) -> Iterator[Residue]:
    for raw in scan.outbox(now - outbox.KEPT, now + outbox.KEPT):
        key = keys.of(raw)
        if scan.is_of(raw, whose.tenant_id) and _says(keys.text(raw, "payload", ""), whose):
            yield Residue("outbox", f"{key.pk} {key.sk}", keys.text(raw, "type", ""), outbox.kept_until(raw))


def _of_bucket(whose: Whose, owners: dict[str, str]) -> Iterator[Residue]:
    for name in objects.listed(f"{in_key(whose.tenant_id)}/"):
        _, kind, about = name.split("/")[:3]
        owner = owners.get(about if (is_export := kind == keys.EXPORTS) else kind)
        what = "an export" if is_export else "a chat"
        if whose.user_id is None:
            yield Residue("bucket", name, "the tenant's")
        elif owner is None:
            yield Residue("bucket", name, f"of {what} that is not there")
        elif owner == whose.user_id or (is_export and not owner):
            yield Residue("bucket", name, f"{what} with theirs")


def _of_queue(place: Place, name: str, url: str, whose: Whose) -> Iterator[Residue]:
    letters: list[DeadLetter] = []
    try:
        # All are received before one is let go, or it would come again.
        letters += dead_letters.waiting(url)
        for letter in letters:
            about = letter.attributes
            if about.get("tenant_id") == in_key(whose.tenant_id) and _says(letter.body, whose):
                yield Residue(place, f"{name} {about.get('event_id', '-')}", about.get("event_type", "-"))
    finally:
        for letter in letters:
            dead_letters.release(url, letter)


def _says(body: str, whose: Whose) -> bool:
    """Whether a text in an event is the user's name; of a tenant, every event is its own."""
    if whose.user_id is None:
        return True
    try:
        return whose.user_id in persons.texts(json.loads(body))
    except ValueError:
        return whose.user_id in body
