"""What of the table's items is about a person, or about a tenant at all: what an erasure has to do with each.

chat      the head of a chat: the chat is deleted, its cleanup is waited for, then all of its items go
of_chat   goes with its chat; without a head, by itself
usage     a ledger entry or a day's total: kept, under a pseudonym
names     something of the tenant's, or of another user, that names the person: it names the pseudonym then
remove    goes at once
export    an export with data of theirs: its files go, then it goes
late      goes once no chat is left: the end of a turn still writes it
last      goes with the end of the erasure: until then it refuses everything new
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from minichat.domain.api_key import SERVICE
from minichat.domain.erasure import PSEUDONYM
from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import in_key
from minichat.storage import keys
from minichat.storage.keys import Key, Raw

Fate = Literal["chat", "of_chat", "usage", "names", "remove", "export", "late", "last"]

NAMED_BY = ("published_by", "created_by", "revoked_by", "requested_by")
"""Attributes that say who did something for the tenant."""
_KINDS = {
    "CHAT": "chats",
    "TURN": "turns",
    "MSG": "messages",
    "WITHDRAWN": "messages",
    "TEXT": "parts_of_texts",
    "SUMMARY": "summaries",
    "PART": "parts_of_streams",
    "ATT": "attachments",
    "THUMB": "thumbnails",
    "READY": "lists_of_documents",
    "VS": "vector_stores",
    "QUOTA": "quota_months",
    "FOLLOWERS": "followers",
    "CREATED": "idempotency_keys",
    "LIMITS": "limits",
    "APIKEY": "api_keys",
    "GRANTS": "grants",
    "RATES": "rates",
    "AUTHORIZATION": "authorizations",
    "POLICY": "policies",
    "PROVIDERS": "provider_entries",
    "EXPORT": "exports",
    "EXPORTED": "last_exports",
    "RECONCILED": "reports",
}


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose data: a user's, or, without one, all of a tenant's."""

    tenant_id: TenantId
    user_id: UserId | None = None

    def is_named(self, raw: Raw, attribute: str) -> bool:
        """Whether an attribute names the user; of a tenant, anybody who is not erased already."""
        return self.is_theirs(keys.text(raw, attribute, ""))

    def is_theirs(self, name: str | None) -> bool:
        """Whether it is the user's name; of a tenant, anybody's who is not erased already."""
        if self.user_id is not None:
            return name == self.user_id
        return bool(name) and not str(name).startswith(PSEUDONYM)


def kind_of(key: Key) -> str:
    """What an item is, in the words of a manifest."""
    place = keys.kind_of(key.pk)
    if place == "P":
        return _KINDS.get(key.pk.rpartition("#")[2], "others")
    return _KINDS.get(key.sk.split("#")[0] if place in ("C", "U") else place, "others")


def fate(raw: Raw, whose: Whose) -> Fate | None:
    """What becomes of an item; None where it is another's, or nobody's."""
    key = keys.of(raw)
    place = keys.kind_of(key.pk)
    if place in ("ERASE", "STOPPED"):
        return None
    if place == "C":
        return _of_chat(raw, key.sk, whose)
    if place in ("L", "USAGE"):
        user_id = keys.text(raw, "user", "") if place == "L" else keys.user_of_usage(*key)[2]
        return "usage" if whose.is_theirs(user_id) else None
    if place == "U":
        return _of_account(raw, key, whose)
    if place == "EXPORT":
        return _of_export(raw, whose)
    return "remove" if whose.user_id is None else _of_tenant(raw, place, whose)


def _of_chat(raw: Raw, sk: str, whose: Whose) -> Fate | None:
    # Of a chat that has lost its head, a user is known by the turns and the files.
    if whose.user_id is not None and not whose.is_named(raw, "user"):
        return None
    return "chat" if sk == keys.CHAT_SK else "of_chat"


def _of_account(raw: Raw, key: Key, whose: Whose) -> Fate | None:
    if whose.user_id is None:
        return "late" if key.sk.startswith(keys.QUOTA_PREFIX) else "remove"
    if key.pk != keys.owner(whose.tenant_id, whose.user_id):
        return "names" if names(raw, whose) else None
    return "last" if key.sk == "LIMITS" or key.sk.startswith(keys.QUOTA_PREFIX) else "remove"


def _of_export(raw: Raw, whose: Whose) -> Fate | None:
    # One of the whole tenant has something of everybody.
    if whose.user_id is None or keys.text(raw, "user", "") in ("", whose.user_id):
        return "export"
    return "names" if names(raw, whose) else None


def _of_tenant(raw: Raw, place: str, whose: Whose) -> Fate | None:
    assert whose.user_id is not None
    if place == "APIKEY" and whose.user_id == f"{SERVICE}{keys.text(raw, 'account', '')}":
        return "remove"
    if place == "RECONCILED":
        return "remove"  # its packed findings may name anybody
    if place == "GRANTS" and any(whose.is_named(raw, name) for name in ("user_id", "granted_by")):
        return "remove"
    return "names" if names(raw, whose) else None


def names(raw: Raw, whose: Whose) -> list[str]:
    """The attributes of an item that name the person."""
    return [name for name in NAMED_BY if whose.is_named(raw, name)]


def mentions(raw: Raw, user_id: UserId) -> list[str]:
    """Every attribute of an item, keys among them, that is a user's name, or has it as one part of a key."""
    said = {user_id, in_key(user_id)}
    return sorted(name for name, value in raw.items() if any(said & {text, *text.split("#")} for text in texts(value)))


def texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON, or as DynamoDB writes it."""
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from texts(inner)
        case list() | tuple():
            for inner in value:
                yield from texts(inner)
