"""What reads cost, by AWS's rule: of a consistent read one unit per started four kilobytes.

Of a query that is all that it went over, together; of a batch each item by itself, and one that is not there is one
unit. Engines of this machine count by rules of their own.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from minichat.storage.sizes import size_of
from tests.support.storage.faults import hook

UNIT_BYTES = 4096


@dataclass
class Reads:
    """The read units of each call, in order, and the sort keys of the items that came back."""

    units: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def sum(self) -> int:
        """All of them together."""
        return sum(self.units)


@contextmanager
def counted_reads() -> Iterator[Reads]:
    """The reads of the conversation table that happen inside."""
    reads = Reads()

    def queried(parsed: dict[str, Any], **_: Any) -> None:
        # Nothing is filtered: what came back is what was gone over.
        items = parsed.get("Items", [])
        reads.keys += [item["sk"]["S"] for item in items]
        reads.units.append(max(math.ceil(sum(map(size_of, items)) / UNIT_BYTES), 1))

    def asked(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["asked for"] = sum(len(wanted["Keys"]) for wanted in params["RequestItems"].values())

    def fetched(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        items = [item for found in parsed.get("Responses", {}).values() for item in found]
        reads.keys += [item["sk"]["S"] for item in items]
        there = sum(math.ceil(size_of(item) / UNIT_BYTES) for item in items)
        reads.units.append(there + context["asked for"] - len(items))

    with (
        hook("after-call.dynamodb.Query", queried),
        hook("before-parameter-build.dynamodb.BatchGetItem", asked),
        hook("after-call.dynamodb.BatchGetItem", fetched),
    ):
        yield reads
