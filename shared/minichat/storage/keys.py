"""Every key of the two tables. The key of a tenant's item begins with the tenant.

    conversation table      pk                      sk
    chat head               T#<tenant>#C#<chat>     CHAT
    turn                    T#<tenant>#C#<chat>     TURN#<request_id>
    message                 T#<tenant>#C#<chat>     MSG#<message_id>
    message taken back      T#<tenant>#C#<chat>     WITHDRAWN#<message_id>
    part of a long text     T#<tenant>#C#<chat>     TEXT#<message_id>#<number>
    thread summary          T#<tenant>#C#<chat>     SUMMARY
    attachment              T#<tenant>#C#<chat>     ATT#<attachment_id>
    its small picture       T#<tenant>#C#<chat>     THUMB#<attachment_id>
    a chat's ready documents  T#<tenant>#C#<chat>   READY
    vector store            T#<tenant>#C#<chat>     VS#<provider>
    quota of a month        T#<tenant>#U#<user>     QUOTA#<first day>
    followers               T#<tenant>#U#<user>     FOLLOWERS
    stream part             T#<tenant>#C#<chat>     PART#<request_id>#<number of its last event>
    idempotency key         T#<tenant>#U#<user>     CREATED#<sha-256 of the key>
    ledger entry            T#<tenant>#L#<day>      <dedupe key of the usage event>
    usage of a day          T#<tenant>#USAGE        <day> | <day>#<user>
    API key                 T#<tenant>#APIKEY       <key id>
    rates of a tenant       T#<tenant>#RATES#<n>    RATES
    policy version          POLICY                  V#<version> | CURRENT
    provider entries        PROVIDERS               V#<version> | CURRENT
    a tenant's overrides    T#<tenant>#P#PROVIDERS  V#<version> | CURRENT
    a tenant's layer of it  T#<tenant>#P#POLICY     V#<version> | CURRENT
    a user's layer of it    T#<tenant>#U#<user>     LIMITS#V#<version> | LIMITS
    tenant's own policies   T#<tenant>#AUTHORIZATION  V#<version> | CURRENT
    grant for support       T#<tenant>#GRANTS       <grant id>
    erasure                 T#<tenant>#ERASE        <erasure id>
    export                  T#<tenant>#EXPORT       <export id>
    a user's last export    T#<tenant>#U#<user>     EXPORTED
    tenant that is erased   T#<tenant>#STOPPED      STOPPED
    run of reconciliation   RECONCILED              <when it began>
    what it found in a tenant  T#<tenant>#RECONCILED  <when it began>

    outbox table            T#<tenant>#C#<chat>     <event_id>

`<tenant>` and `<user>` are names as `domain.names.in_key` writes them: letters, digits and `_-.%~`, so that what stands
between the parts of a key is in none of them. Functions here take and give names as the issuer said them.

Message and event ids are UUIDs version 7, which sort by time: `MSG#` items come in the order of the conversation, and
one message is found by its id alone. Between them is only what a conversation shows: withdrawn messages and long texts
are elsewhere. Nothing sorts between the head and the messages, either: one query reads both.
"""

import hashlib
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from minichat.domain.identity import AttachmentId, ChatId, MessageId, RequestId, TenantId, UserId, micros
from minichat.domain.names import from_key, in_key

RUNNING_SHARDS = tuple(f"RUNNING#{number}" for number in range(4))
"""Hash keys of the index of running turns: 4 × 1000 write units a second before a partition throttles. They contain no
tenant, because the watchdog serves all tenants; the keys that the index holds begin with one."""

TEMPORARY_SHARDS = tuple(f"TEMPORARY#{number}" for number in range(4))
"""Hash keys of the index of temporary chats, as those of running turns."""

RATE_SHARDS = 4
"""Over how many items a tenant's turns are counted: a send reads all of them, and writes one."""

CHAT_SK = "CHAT"
EXPORTS = "exports"
"""The folder of a tenant's exports in the bucket, where those of chats have the chats' ids."""
MESSAGE_PREFIX = "MSG#"
TURN_PREFIX = "TURN#"
ATTACHMENT_PREFIX = "ATT#"
VECTOR_STORE_PREFIX = "VS#"
QUOTA_PREFIX = "QUOTA#"
# "~" sorts after every character of a UUID and after "#".
MESSAGE_END = "MSG#~"
TURN_END = "TURN#~"


class Key(NamedTuple):
    """Primary key of one item."""

    pk: str
    sk: str

    @property
    def raw(self) -> "Raw":
        """The key as DynamoDB writes it."""
        return {"pk": {"S": self.pk}, "sk": {"S": self.sk}}


Raw = Mapping[str, Mapping[str, Any]]
"""An item as DynamoDB writes it: a type and a value by attribute."""


def of(raw: Raw) -> Key:
    """The key of an item.

    Raises KeyError when it has none.
    """
    return Key(raw["pk"]["S"], raw["sk"]["S"])


def text(raw: Raw, name: str, default: str | None = None) -> str:
    """The text of an attribute; the default if it is absent or not a text.

    Raises KeyError without a default.
    """
    found: str = raw[name]["S"] if default is None else raw.get(name, {}).get("S", default)
    return found


def number(raw: Raw, name: str) -> int:
    """The whole number of an attribute; 0 if it is absent.

    Raises ValueError when it is not a whole number.
    """
    return int(raw.get(name, {}).get("N", 0))


def tenant_of(pk: str) -> TenantId:
    """The tenant of an item.

    Raises ValueError for an item of no tenant.
    """
    return TenantId(from_key(pk.removeprefix("T#").split("#")[0]))


def chat_of(pk: str) -> tuple[TenantId, ChatId]:
    """The chat of an item, and its tenant.

    Raises ValueError for an item of no chat.
    """
    tenant_id, chat_id = pk.removeprefix("T#").split("#C#")
    return TenantId(from_key(tenant_id)), ChatId(chat_id)


def is_of_chat(pk: str) -> bool:
    """Whether an item is one of a chat's."""
    return kind_of(pk) == "C"


def kind_of(pk: str) -> str:
    """What comes after the tenant in a key: `C`, `U`, `L`, `USAGE`, …; nothing in one of no tenant.

    A tenant or a user may be called by any of these words.
    """
    return "".join(pk.split("#")[2:3])


def user_of(pk: str) -> tuple[TenantId, UserId]:
    """The user of an item, and their tenant.

    Raises ValueError for an item of no user.
    """
    tenant_id, user_id = pk.removeprefix("T#").split("#U#")
    return TenantId(from_key(tenant_id)), UserId(from_key(user_id))


def user_of_usage(pk: str, sk: str) -> tuple[TenantId, str, UserId | None]:
    """The tenant of a total of usage, its day, and its user, None for all of the tenant's.

    Raises ValueError for an item that is none.
    """
    day, _, user_id = sk.partition("#")
    return tenant_of(pk), day, UserId(from_key(user_id)) if user_id else None


POLICY = "POLICY"
"""Partition of the policy, which belongs to the deployment, not to a tenant."""
POLICY_IN_FORCE = Key(POLICY, "CURRENT")


def policy_version(version: int) -> Key:
    """A version of the policy; versions sort by their number."""
    return Key(POLICY, f"V#{version:010d}")


def providers_in_force(tenant_id: TenantId | None) -> Key:
    """Which version of a tenant's overrides of providers is in force; without a tenant, of the deployment's entries."""
    return Key("PROVIDERS" if tenant_id is None else f"{prefix(tenant_id)}P#PROVIDERS", "CURRENT")


def providers_version(tenant_id: TenantId | None, version: int) -> Key:
    """A version of a tenant's overrides, or of the deployment's entries; versions sort by their number."""
    return Key(providers_in_force(tenant_id).pk, f"V#{version:010d}")


def tenant_policy(tenant_id: TenantId) -> Key:
    """Which version of a tenant's layer of the policy is in force."""
    return Key(f"{prefix(tenant_id)}P#POLICY", "CURRENT")


def tenant_policy_version(tenant_id: TenantId, version: int) -> Key:
    """A version of a tenant's layer of the policy."""
    return Key(f"{prefix(tenant_id)}P#POLICY", f"V#{version:010d}")


def user_policy(tenant_id: TenantId, user_id: UserId) -> Key:
    """A user's layer of the policy, and its version."""
    return Key(owner(tenant_id, user_id), "LIMITS")


def user_policy_version(tenant_id: TenantId, user_id: UserId, version: int) -> Key:
    """A version of a user's layer of the policy."""
    return Key(owner(tenant_id, user_id), f"LIMITS#V#{version:010d}")


def prefix(tenant_id: TenantId) -> str:
    """How every key of a tenant begins."""
    return f"T#{in_key(tenant_id)}#"


def partition(tenant_id: TenantId, chat_id: ChatId) -> str:
    """Where everything of one chat lives."""
    return f"{prefix(tenant_id)}C#{chat_id}"


def owner(tenant_id: TenantId, user_id: UserId) -> str:
    """Where a user's quota lives, and the user's entry in the index of chats."""
    return f"{prefix(tenant_id)}U#{in_key(user_id)}"


def owner_of_temporary(tenant_id: TenantId, user_id: UserId) -> str:
    """A user's entry in the index for temporary chats, which no list shows."""
    return f"{owner(tenant_id, user_id)}#TEMPORARY"


def chat(tenant_id: TenantId, chat_id: ChatId) -> Key:
    """The head of a chat."""
    return Key(partition(tenant_id, chat_id), CHAT_SK)


def turn(tenant_id: TenantId, chat_id: ChatId, request_id: RequestId) -> Key:
    """A turn: its key holds the request id, which makes a send idempotent."""
    return Key(partition(tenant_id, chat_id), f"{TURN_PREFIX}{request_id}")


def message(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> Key:
    """A message."""
    return Key(partition(tenant_id, chat_id), f"{MESSAGE_PREFIX}{message_id}")


def withdrawn(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> Key:
    """A message whose turn was deleted or replaced."""
    return Key(partition(tenant_id, chat_id), f"WITHDRAWN#{message_id}")


def message_text(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId, number: int) -> Key:
    """A numbered part of the text of a message that is too long for one item."""
    return Key(partition(tenant_id, chat_id), f"TEXT#{message_id}#{number:04d}")


def summary(tenant_id: TenantId, chat_id: ChatId) -> Key:
    """The summary of the older part of a chat."""
    return Key(partition(tenant_id, chat_id), "SUMMARY")


def stream_part(tenant_id: TenantId, chat_id: ChatId, request_id: RequestId, last: int) -> Key:
    """A batch of events that a client was told, by the number of the last one."""
    return Key(partition(tenant_id, chat_id), f"PART#{request_id}#{last:010d}")


def attachment(tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId) -> Key:
    """A file that a user gave to a chat."""
    return Key(partition(tenant_id, chat_id), f"{ATTACHMENT_PREFIX}{attachment_id}")


def thumbnail(tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId) -> Key:
    """The small picture of an attachment that is an image."""
    return Key(partition(tenant_id, chat_id), f"THUMB#{attachment_id}")


def documents(tenant_id: TenantId, chat_id: ChatId) -> Key:
    """A chat's ready documents, with their ids at their providers."""
    return Key(partition(tenant_id, chat_id), "READY")


def upload(tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId) -> str:
    """Where a file waits in the bucket of uploads until it is taken in."""
    return f"{in_key(tenant_id)}/{chat_id}/{attachment_id}"


def vector_store(tenant_id: TenantId, chat_id: ChatId, provider: str) -> Key:
    """The one vector store that a chat has at a provider."""
    return Key(partition(tenant_id, chat_id), f"{VECTOR_STORE_PREFIX}{provider}")


def quota(tenant_id: TenantId, user_id: UserId, month: str) -> Key:
    """What a user has reserved and spent in the month that begins on that day, and in each of its days."""
    return Key(owner(tenant_id, user_id), f"{QUOTA_PREFIX}{month}")


def followers(tenant_id: TenantId, user_id: UserId) -> Key:
    """The places of those who follow a user's running turns."""
    return Key(owner(tenant_id, user_id), "FOLLOWERS")


def ledger_entry(tenant_id: TenantId, day: str, dedupe_key: str) -> Key:
    """What one turn used, on the day on which it was settled."""
    return Key(f"{prefix(tenant_id)}L#{day}", dedupe_key)


def usage(tenant_id: TenantId, day: str, user_id: UserId | None = None) -> Key:
    """What a tenant, or one of its users, used on a day."""
    return Key(f"{prefix(tenant_id)}USAGE", day if user_id is None else f"{day}#{in_key(user_id)}")


def api_key(tenant_id: TenantId, key_id: str) -> Key:
    """An API key; the key itself says which tenant's it is."""
    return Key(f"{prefix(tenant_id)}APIKEY", key_id)


def authorization_in_force(tenant_id: TenantId) -> Key:
    """Which version of the tenant's own policies (Cedar) is in force."""
    return Key(f"{prefix(tenant_id)}AUTHORIZATION", "CURRENT")


def authorization_version(tenant_id: TenantId, version: int) -> Key:
    """A version of the tenant's own policies."""
    return Key(f"{prefix(tenant_id)}AUTHORIZATION", f"V#{version:010d}")


def grant(tenant_id: TenantId, grant_id: str) -> Key:
    """Leave for somebody of support to read for a while."""
    return Key(f"{prefix(tenant_id)}GRANTS", grant_id)


def erasure(tenant_id: TenantId, erasure_id: str) -> Key:
    """The erasure of a user, or of the whole tenant: how far it is, and what it has left as proof."""
    return Key(f"{prefix(tenant_id)}ERASE", erasure_id)


def export(tenant_id: TenantId, export_id: str) -> Key:
    """The export of a chat, a user or the whole tenant: how far it is, and which files it has."""
    return Key(f"{prefix(tenant_id)}EXPORT", export_id)


def last_export(tenant_id: TenantId, user_id: UserId) -> Key:
    """Which export a user asked for last."""
    return Key(owner(tenant_id, user_id), "EXPORTED")


def export_folder(tenant_id: TenantId, export_id: str = "") -> str:
    """Where the files of an export are in the bucket of uploads; without an id, those of all of a tenant's."""
    return f"{in_key(tenant_id)}/{EXPORTS}/{export_id}/" if export_id else f"{in_key(tenant_id)}/{EXPORTS}/"


def stopped(tenant_id: TenantId) -> Key:
    """There while the tenant is erased: it takes no new work."""
    return Key(f"{prefix(tenant_id)}STOPPED", "STOPPED")


def reconciled(tenant_id: TenantId | None, at: datetime) -> Key:
    """What the reconciliation that began at an instant found in a tenant; without a tenant, in the deployment."""
    return Key("RECONCILED" if tenant_id is None else f"{prefix(tenant_id)}RECONCILED", f"{micros(at):016d}")


def created(tenant_id: TenantId, user_id: UserId, idempotency_key: str) -> Key:
    """What a user's idempotency key created; hashed, because the caller chose it."""
    return Key(owner(tenant_id, user_id), f"CREATED#{hashlib.sha256(idempotency_key.encode()).hexdigest()}")


def outbox(tenant_id: TenantId, chat_id: ChatId, event_id: str) -> Key:
    """An event of a chat, in order."""
    return Key(partition(tenant_id, chat_id), event_id)


def listed_at(tenant_id: TenantId, chat_id: ChatId, updated_at: datetime) -> str:
    """Sort key of the owner's index: newest last, the chat's id as tie-break. The tenant is in the hash key."""
    del tenant_id
    return f"{micros(updated_at):016d}#{chat_id}"


def running_shard(tenant_id: TenantId, request_id: RequestId) -> str:
    """Hash key of the index of running turns; a turn is in it only while it runs."""
    return RUNNING_SHARDS[zlib.crc32(f"{tenant_id}{request_id}".encode()) % len(RUNNING_SHARDS)]


def tenant_rates(tenant_id: TenantId) -> list[Key]:
    """The shards of a tenant's counters of turns."""
    return [Key(f"{prefix(tenant_id)}RATES#{number}", "RATES") for number in range(RATE_SHARDS)]


def tenant_rates_shard(tenant_id: TenantId, request_id: RequestId) -> Key:
    """The one that counts a turn."""
    return tenant_rates(tenant_id)[zlib.crc32(request_id.encode()) % RATE_SHARDS]


def temporary_shard(tenant_id: TenantId, chat_id: ChatId) -> str:
    """Hash key of the index of temporary chats; a chat is in it until it is deleted."""
    return TEMPORARY_SHARDS[zlib.crc32(f"{tenant_id}{chat_id}".encode()) % len(TEMPORARY_SHARDS)]
