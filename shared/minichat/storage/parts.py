"""Stream parts: the events told to a client, stored in batches, so any instance can tell them again (architecture 4).

A batch costs its text and one byte per delta, or less: it is packed (zlib) where that helps. Parts are only ever added.
Two parts may overlap, if a write was repeated with more events; then they agree on the events they share.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from minichat.domain.identity import RequestId
from minichat.domain.stream import Told
from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.attributes import BinaryAttribute, NumberAttribute
from minichat.storage.items import ConversationItem, query
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Put

MAX_BYTES = 300_000
"""Size of one part: an item may have 400 KB with its keys (AWS limit)."""

PARTS_AT_ONCE = 20

_PLAIN, _PACKED = b"\0", b"\1"


class StreamPartItem(ConversationItem):
    """Events of one stream, from `first` to the number in its key, as storage.parts packs them."""

    first = NumberAttribute()
    events = BinaryAttribute(legacy_encoding=False)
    expires_at = NumberAttribute()


def puts(turn: Turn, first: int, events: Sequence[Told], *, kept: timedelta) -> list[Put]:
    """The writes that store events of a turn, numbered from `first`: usually one item."""
    expires_at = int((turn.started_at + kept).timestamp())
    writes: list[Put] = []
    while events:
        packed, count = _packed(events)
        key = _key(turn, first + count - 1)
        item = StreamPartItem(*key, first=first, events=packed, expires_at=expires_at)
        writes.append(Put(f"part {first}", item))
        first, events = first + count, events[count:]
    return writes


def after(turn: Turn, number: int, *, until: int | None = None) -> Iterator[tuple[int, Told]]:
    """Stored events of a turn with numbers above `number`, in order and without a gap, up to `until`."""
    more = True
    while more:
        events, more = page(turn, number, until=until)
        yield from events
        number += len(events)


def page(turn: Turn, number: int, *, until: int | None = None) -> tuple[list[tuple[int, Told]], bool]:
    """One query's share of `after`, and whether there are more: some twenty parts, a few megabytes at most."""
    if until is not None and number >= until:
        return [], False
    pk, start, last = keys.partition(turn.tenant_id, turn.chat_id), _key(turn, number + 1).sk, _key(turn, 10**10 - 1).sk
    found, more = query(pk, ConversationItem.sk.between(start, last), limit=PARTS_AT_ONCE)
    told: list[tuple[int, Told]] = []
    for raw in found:
        first, events = _unpacked(raw)
        if first > number + 1:
            return told, False
        new = events[number + 1 - first :]
        told += enumerate(new, number + 1)
        number += len(new)
        if until is not None and number >= until:
            return told[: len(told) - (number - until)], False
    return told, more


def are_kept(turn: Turn, now: datetime, *, kept: timedelta) -> bool:
    """Whether the turn's parts are unexpired, by the clock: DynamoDB removes them late, and not all at once."""
    return now < turn.started_at + kept


def _key(turn: Turn, number: int) -> Key:
    """The key of the part whose last event has this number. It names the teller: a former teller that wakes up late
    never writes among the present one's parts."""
    stream = turn.request_id if turn.teller is None else RequestId(f"{turn.request_id}.{turn.teller}")
    return keys.stream_part(turn.tenant_id, turn.chat_id, stream, number)


def _packed(events: Sequence[Told]) -> tuple[bytes, int]:
    """As many of the events as fit one item, packed, and their number."""
    lengths, texts, size = bytearray(), bytearray(), 0
    count = 0
    for event in events:
        is_delta = event.name == "delta"
        text = (
            event.data["content"] if is_delta else json.dumps([event.name, event.data], ensure_ascii=False)
        ).encode()
        if count and size + len(text) > MAX_BYTES:
            break
        lengths += _varint(len(text) * 2 + is_delta)
        texts += text
        size += len(text)
        count += 1
    plain = _varint(count) + bytes(lengths) + bytes(texts)
    packed = zlib.compress(plain)
    return (_PACKED + packed if len(packed) < len(plain) else _PLAIN + plain), count


def _unpacked(raw: Raw) -> tuple[int, list[Told]]:
    item = StreamPartItem.from_raw_data(dict(raw))
    plain = zlib.decompress(item.events[1:]) if item.events[:1] == _PACKED else item.events[1:]
    numbers = _varints(plain)
    count, at = next(numbers)
    lengths = []
    for _ in range(count):
        length, at = next(numbers)
        lengths.append(length)
    events = []
    for length in lengths:
        text = plain[at : at + length // 2].decode()
        at += length // 2
        if length % 2:
            events.append(Told("delta", {"type": "text", "content": text}))
        else:
            events.append(Told(*json.loads(text)))
    return int(item.first), events


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _varints(data: bytes) -> Iterator[tuple[int, int]]:
    """Each number in the data, and where the one after it begins."""
    number = shift = 0
    for at, byte in enumerate(data):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number, at + 1
            number = shift = 0
