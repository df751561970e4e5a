"""A stream as Lambda reads it: shard by shard, in batches that are retried, split, and finally given up."""

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from minichat.events import sqs
from minichat.local.lambda_events import GivenUp, Record, batches, stream_record
from minichat.local.mappings import Handler, Mapping, invoke
from minichat.moment import now
from minichat.observability import logger
from minichat.settings import current

IDLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that a mapping reads."""

    client: Any
    arn: str

    def shards(self) -> list[Record]:
        """All of its shards; DescribeStream returns a hundred at a time."""
        found: list[Record] = []
        after: dict[str, str] = {}
        while True:
            said = self.client.describe_stream(StreamArn=self.arn, **after)["StreamDescription"]
            found += said["Shards"]
            if not (last := said.get("LastEvaluatedShardId")):
                return found
            after = {"ExclusiveStartShardId": last}


def follow(stream: Stream, mapping: Mapping, handler: Handler, stop: threading.Event) -> None:
    """Serves each shard of a stream in a thread of its own, children after their parents, until it is stopped.

    A hot shard splits, and every shard is replaced within hours: records are ordered only within a shard, and from a
    parent to its children (DynamoDB Developer Guide, "Change data capture for DynamoDB Streams").
    """
    begun: set[str] = set()
    over: set[str] = set()
    while True:
        for shard in ready(stream.shards(), begun, over):
            begun.add(shard)
            in_a_thread(_serve_shard, mapping, handler, stream, _Reading(shard, over, stop))
        if stop.wait(IDLE_SECONDS):
            return


def ready(shards: Iterable[Record], begun: set[str], over: set[str]) -> list[str]:
    """Shards that nobody reads yet and whose parent, if it still exists, has been read to its end."""
    parents = {shard["ShardId"]: shard.get("ParentShardId") for shard in shards}
    return [
        shard
        for shard, parent in parents.items()
        if shard not in begun and (parent is None or parent in over or parent not in parents)
    ]


@dataclass(frozen=True, slots=True)
class _Reading:
    shard: str
    over: set[str]
    stop: threading.Event


def _serve_shard(mapping: Mapping, handler: Handler, stream: Stream, reading: _Reading) -> None:
    """Serves a shard until it is closed and read to its end."""
    place = _Place(mapping.places, stream.arn, reading.shard)
    iterator = _iterator(stream, reading.shard, place.read(), mapping.properties.get("StartingPosition"))
    while iterator is not None and not reading.stop.is_set():
        answer = stream.client.get_records(ShardIterator=iterator, Limit=mapping.properties["BatchSize"])
        records = [stream_record(record, stream.arn) for record in answer["Records"]]
        hand_out(mapping, handler, reading.shard, [one for one in records if matches(one, pattern(mapping))])
        if records:
            place.write(records[-1]["dynamodb"]["SequenceNumber"])
        else:
            reading.stop.wait(IDLE_SECONDS)
        iterator = answer.get("NextShardIterator")
    if iterator is None:
        reading.over.add(reading.shard)


def hand_out(mapping: Mapping, handler: Handler, shard: str, records: Sequence[Record]) -> None:
    """Delivers records of a shard, `ParallelizationFactor` batches at once, in order for each item only."""
    factor = mapping.properties.get("ParallelizationFactor", 1)
    lanes: list[list[Record]] = [[] for _ in range(factor)]
    for record in records:
        lanes[zlib.crc32(json.dumps(record["dynamodb"]["Keys"]["pk"]).encode()) % factor].append(record)

    def serve(lane: Sequence[Record]) -> None:
        for batch in batches(lane, mapping.properties["BatchSize"]):
            deliver(mapping, handler, batch, shard=shard, attempts=mapping.properties["MaximumRetryAttempts"])

    with ThreadPoolExecutor(factor) as pool:
        list(pool.map(serve, filter(None, lanes)))


def deliver(mapping: Mapping, handler: Handler, records: list[Record], *, shard: str, attempts: int) -> None:
    """Calls the function until every record is delivered, or given up as the mapping says.

    A split counts as an attempt, as AWS documents no exception for it.
    """
    pause, invoked = 0.1, 0
    while records := _young(mapping, shard, records, invoked):
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        failed = invoke(mapping, handler, records, numbers)
        invoked += 1
        if failed == []:
            return
        if failed is None and len(records) > 1 and mapping.properties.get("BisectBatchOnFunctionError"):
            middle = len(records) // 2
            deliver(mapping, handler, records[:middle], shard=shard, attempts=attempts - 1)
            deliver(mapping, handler, records[middle:], shard=shard, attempts=attempts - 1)
            return
        if failed:
            records = records[min(numbers.index(number) for number in failed) :]
        if attempts <= 0:
            _give_up(GivenUp(mapping.function, shard, records, "RetryAttemptsExhausted", invoked))
            return
        attempts -= 1
        time.sleep(pause)
        pause = min(pause * 2, 5)


def _young(mapping: Mapping, shard: str, records: list[Record], invoked: int) -> list[Record]:
    """The records that the mapping's age limit allows; gives the others up."""
    longest = mapping.properties.get("MaximumRecordAgeInSeconds", -1)
    oldest = now().timestamp() - longest if longest >= 0 else float("-inf")
    old = [record for record in records if record["dynamodb"]["ApproximateCreationDateTime"] < oldest]
    if old:
        _give_up(GivenUp(mapping.function, shard, old, "RecordAgeExceeded", invoked))
    return [record for record in records if record not in old] if old else records


def _give_up(given_up: GivenUp) -> None:
    url = current().queues.dead_letters["outbox-relay"]
    sqs.client().send_message(QueueUrl=url, MessageBody=json.dumps(given_up.told()))


class _Place:
    """How far a shard has been delivered."""

    def __init__(self, folder: Path, arn: str, shard: str) -> None:
        self._file = folder / f"{shard}.place"
        self._arn = arn

    def read(self) -> str | None:
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        # Engines that keep nothing on disk make a new stream, with places of its own.
        return str(said["place"]) if said["stream"] == self._arn else None

    def write(self, number: str) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps({"stream": self._arn, "place": number}), encoding="utf-8")
        draft.replace(self._file)


def _iterator(stream: Stream, shard: str, after: str | None, start: str | None) -> str | None:
    where: dict[str, str] = {"ShardIteratorType": start or "TRIM_HORIZON"}
    if after is not None:
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
    try:
        answer = stream.client.get_shard_iterator(StreamArn=stream.arn, ShardId=shard, **where)
    except ClientError:
        if after is None:
            raise
        # The records after that place were trimmed, or the engine forgot them.
        return _iterator(stream, shard, None, start)
    iterator: str | None = answer.get("ShardIterator")
    return iterator


def pattern(mapping: Mapping) -> dict[str, Any]:
    """The filter of a mapping: only a single filter that compares values for equality is supported.

    Raises ValueError for any other: an ignored filter would let everything through.
    """
    filters = mapping.properties.get("FilterCriteria", {}).get("Filters", [])
    if len(filters) > 1:
        raise ValueError("the local stack understands one filter of a mapping")
    wanted: dict[str, Any] = json.loads(filters[0]["Pattern"]) if filters else {}
    return wanted


def matches(told: Any, wanted: dict[str, Any]) -> bool:
    """Whether each member that the filter names is one of its values."""
    for name, allowed in wanted.items():
        if isinstance(allowed, dict):
            if not matches(told.get(name, {}), allowed):
                return False
        elif any(isinstance(value, dict) for value in allowed):
            raise ValueError(f"the local stack compares values of a filter only by their equality, not by {allowed}")
        elif told.get(name) not in allowed:
            return False
    return True


def in_a_thread(serve: Callable[..., None], mapping: Mapping, *arguments: object) -> None:
    """Serves in a thread until the source ends, and restarts after each failure."""

    def serve_on() -> None:
        while True:
            try:
                serve(mapping, *arguments)
            except (ClientError, BotoCoreError):
                logger.exception("an event source does not answer", extra={"function": mapping.function})
                time.sleep(1)
            else:
                return

    threading.Thread(target=serve_on, name=mapping.function, daemon=True).start()
