"""EventBridge: copies of events in the envelope of CloudEvents 1.0, for consumers of others."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from minichat.domain.names import in_key
from minichat.settings import current

SOURCE = "minichat"
BUS_ENTRIES = 10
"""Entries of one PutEvents (AWS limit)."""
BUS_BYTES = 1_048_576
"""Bytes of all entries of a PutEvents together (AWS limit)."""
_REFUSED = frozenset({"ValidationException", "InvalidArgument", "MalformedDetail"})


@dataclass(frozen=True, slots=True)
class BusEvent:
    """An event as the bus gets it: its type, and the envelope around it, as JSON."""

    detail_type: str
    detail: str

    @property
    def size(self) -> int:
        """Bytes, as EventBridge counts them."""
        return len(SOURCE) + len(self.detail_type.encode()) + len(self.detail.encode())


def enveloped(event_id: str, tenant_id: str, event: Mapping[str, Any]) -> BusEvent:
    """The event in its envelope (CloudEvents 1.0): `id` and `source` together name it once."""
    event_type, chat_id = str(event["event_type"]), event.get("chat_id")
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/{SOURCE}/{in_key(tenant_id)}",
        "type": f"{SOURCE}.{event_type}",
        "time": event.get("timestamp"),
        "subject": chat_id,
        "datacontenttype": "application/json",
        "data": event,
    }
    said = {name: value for name, value in envelope.items() if value is not None}
    return BusEvent(event_type, json.dumps(said, ensure_ascii=False, separators=(",", ":")))


def put(bus: str, events: Sequence[BusEvent]) -> tuple[list[int], list[int]]:
    """Puts events onto the bus; the positions of those to try again, and of those that it will never take."""
    again: list[int] = []
    refused = [number for number, event in enumerate(events) if event.size > BUS_BYTES]
    for numbers in _batches(events):
        entries: list[Any] = [
            {"EventBusName": bus, "Source": SOURCE, "DetailType": one.detail_type, "Detail": one.detail}
            for one in (events[number] for number in numbers)
        ]
        try:
            answer = _client().put_events(Entries=entries)
        except (BotoCoreError, ClientError):
            again += numbers
            continue
        for number, told in zip(numbers, answer["Entries"], strict=True):
            if "ErrorCode" in told:
                (refused if told["ErrorCode"] in _REFUSED else again).append(number)
    return sorted(again), sorted(refused)


def _batches(events: Sequence[BusEvent]) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for number, event in enumerate(events):
        if event.size > BUS_BYTES:
            continue
        if batch and (len(batch) == BUS_ENTRIES or size + event.size > BUS_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += event.size
    if batch:
        yield batch


@cache
def _client() -> Any:
    settings = current()
    return boto3.client("events", region_name=settings.store.region, endpoint_url=settings.queues.endpoint)
