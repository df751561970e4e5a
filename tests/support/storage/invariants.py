"""The invariants of turns-and-quota 10, read from the tables themselves and not through the product's code."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import boto3

from minichat.settings import Store

Item = dict[str, Any]

_SUM = r"turns|fly|(total|premium)(_r)?|\d\d[tpwcfiub]"

_COSTS_NOTHING = {"upload_abandoned", "upload_failed", "vector_store_failed"}


@dataclass(frozen=True)
class Tables:
    """Everything that is in both tables of a store."""

    conversations: list[Item]
    outbox: list[Item]

    @classmethod
    def of(cls, store: Store) -> "Tables":
        """Reads both tables whole."""
        client = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region)
        return cls(_whole(client.Table(store.conversation_table)), _whole(client.Table(store.outbox_table)))

    def chats(self) -> dict[str, "ChatItems"]:
        """The items of each chat, by partition."""
        found: dict[str, ChatItems] = {}
        for item in self.conversations:
            if "#C#" in item["pk"]:
                chat = found.setdefault(item["pk"], ChatItems({}, {}, {}, {}, {}))
                kind, _, rest = item["sk"].partition("#")
                if kind == "CHAT":
                    chat.head.update(item)
                elif kind == "SUMMARY":
                    chat.summary.update(item)
                elif kind == "TURN":
                    chat.turns[rest] = item
                elif kind in {"MSG", "WITHDRAWN"} and "#" not in rest:
                    chat.messages[rest] = item
                elif kind == "ATT":
                    chat.attachments[rest] = item
        return found


@dataclass(frozen=True)
class ChatItems:
    """One chat: its head, its turns by request id, its messages by id, taken back or not, its summary, its attachments
    by id."""

    head: Item
    turns: dict[str, Item]
    messages: dict[str, Item]
    summary: Item
    attachments: dict[str, Item]


def violations(tables: Tables) -> list[str]:
    """Every way in which the tables break an invariant, in words; none in a sound store where nothing runs."""
    found: list[str] = []
    for pk, chat in tables.chats().items():
        of_chat = (*_of_chat(chat), *_of_places(chat), *_of_summary(chat), *_of_attachments(chat))
        found += [f"{pk}: {problem}" for problem in of_chat]
    found += _of_events(tables)
    found += _of_quota(tables)
    return found


def _of_chat(chat: ChatItems) -> list[str]:
    found = []
    running = [rid for rid, turn in chat.turns.items() if turn["state"] == "running"]
    if len(running) > 1:
        found.append(f"invariant 1: {len(running)} turns are running")
    if chat.head.get("running") not in (running if running else (None,)):
        found.append(f"invariant 1: the head names {chat.head.get('running')} as running, {running} run")
    if any(("running_shard" in turn) != (turn["state"] == "running") for turn in chat.turns.values()):
        found.append("a turn is in the index of running turns and does not run, or the other way round")
    alive = {rid: turn for rid, turn in chat.turns.items() if "deleted_at" not in turn}
    # By their messages: a turn's own instants are those of its process, whose clock another's may be ahead of.
    newest = max(alive, key=lambda rid: alive[rid]["user_msg"], default=None)
    if chat.head.get("latest") != newest:
        found.append(f"invariant 4: the head names {chat.head.get('latest')} as latest, {newest} is")
    visible = [message for message in chat.messages.values() if "deleted_at" not in message]
    if chat.head["messages"] != len(visible):
        found.append(f"invariant 5: message_count is {chat.head['messages']}, {len(visible)} are visible")
    if {message["request"] for message in visible} - set(alive):
        found.append("a visible message belongs to a deleted turn")
    order = [chat.messages[mid]["created_at"] for mid in sorted(chat.messages)]
    if order != sorted(order) or len(set(order)) < len(order):
        found.append("messages sorted by id are not sorted by time")
    for rid, turn in alive.items():
        if turn.get("prev") not in {None, *alive}:
            found.append(f"turn {rid} follows a turn that is deleted")
    return found


def _of_places(chat: ChatItems) -> list[str]:
    found = []
    if any(message["sk"].startswith("WITHDRAWN#") != ("deleted_at" in message) for message in chat.messages.values()):
        found.append("a message that was taken back is among the others, or the other way round")
    kept = Counter(message["request"] for message in chat.messages.values())
    if any(kept[rid] != turn["messages"] for rid, turn in chat.turns.items()):
        found.append("a turn has other messages than it says: one was lost, or is there twice")
    return found


def _of_summary(chat: ChatItems) -> list[str]:
    found = []
    used = None if "stale" in chat.summary else chat.summary.get("up_to")
    if chat.head.get("sum") != used:
        found.append(f"the head names {chat.head.get('sum')} as summarized up to, the summary {used}")
    if used is not None and "deleted_at" in chat.messages[used]:
        found.append("the summary covers a turn that is deleted")
    return found


def _of_attachments(chat: ChatItems) -> list[str]:
    found = []
    visible = [message for message in chat.messages.values() if "deleted_at" not in message]
    sent_with = Counter(one for message in visible for one in message.get("att", "").split())
    if gone := set(sent_with) - set(chat.attachments):
        found.append(f"messages refer to {gone}, which are not there")
    for attachment_id, item in chat.attachments.items():
        says, referred = item.get("refs", 0), sent_with[attachment_id]
        if says != referred:
            found.append(f"attachment {attachment_id} counts {says} messages, {referred} refer to it")
        if referred and ("deleted_at" in item or item.get("status") != "ready"):
            found.append(f"a message refers to {attachment_id}, which is deleted or not ready")
    return found


def _of_events(tables: Tables) -> list[str]:
    found = []
    ended = Counter(
        turn["id"] for chat in tables.chats().values() for turn in chat.turns.values() if turn["state"] != "running"
    )
    keys = [item["dedupe"].split("/") for item in tables.outbox if item["queue"] == "usage"]
    # What the system does by itself has a type where a turn has its id.
    usage = Counter(done for _, done, _ in keys if done not in {"thread_summary_update", "chat_title", "doc_summary"})
    audit = sum(item["type"] in ("turn_completed", "turn_failed") for item in tables.outbox)
    if Counter({turn_id.replace("-", ""): count for turn_id, count in ended.items()}) != usage:
        found.append(f"invariant 2: {ended.total()} turns ended, {usage.total()} usage events left")
    if audit != ended.total():
        found.append(f"invariant 2: {ended.total()} turns ended, {audit} audit events left")
    return found


def _of_quota(tables: Tables) -> list[str]:
    turns_say: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for pk, chat in tables.chats().items():
        for turn in chat.turns.values():
            reserved = turn["r_micro"] if turn["state"] == "running" else 0
            committed = reserved + turn.get("committed", 0)
            sums = turns_say[f"{pk.split('#C#')[0]}#U#{turn['user']}", f"QUOTA#{turn['r_month']}"]
            day = turn["r_day"][-2:]
            sums.update({"turns": 1, "total": committed, "total_r": reserved, f"{day}t": committed})
            sums["fly"] += turn.get("r_fly", 0) * (turn["state"] == "running")
            for counter, tool in (("w", "web"), ("c", "code"), ("f", "file")):
                calls = turn.get(f"{'r' if turn['state'] == 'running' else 't'}_{tool}", 0)
                sums[f"{day}{counter}"] += calls
            sums[f"{day}i"] += turn.get("r_img", 0) * (turn.get("settled") != "released")
            if turn["r_premium"]:
                sums.update({"premium": committed, "premium_r": reserved, f"{day}p": committed})
        for attachment_id, file in chat.attachments.items():
            if "user" in file and file.get("error") not in _COSTS_NOTHING:
                made = datetime.fromtimestamp((UUID(attachment_id).int >> 80) / 1000, UTC)
                sums = turns_say[f"{pk.split('#C#')[0]}#U#{file['user']}", f"QUOTA#{made:%Y-%m}-01"]
                sums.update({f"{made:%d}u": 1, f"{made:%d}b": file["size"]})
    found = []
    for item in tables.conversations:
        if item["sk"].startswith("QUOTA#"):
            sums = turns_say.pop((item["pk"], item["sk"]), Counter())
            says = {name: int(value) for name, value in item.items() if re.fullmatch(_SUM, name)}
            if any(says.get(name, 0) != sums[name] for name in says | sums):
                found.append(f"invariant 3: {item['sk']} of {item['pk']} says {says}, the turns say {dict(sums)}")
    return found + [f"invariant 3: {key} is missing" for key, sums in turns_say.items() if any(sums.values())]


def _whole(table: Any) -> list[Item]:
    items: list[Item] = []
    start: dict[str, Any] = {}
    while True:
        page = table.scan(ConsistentRead=True, **start)
        items += page["Items"]
        if "LastEvaluatedKey" not in page:
            return items
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
