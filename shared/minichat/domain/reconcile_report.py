"""What a run of the reconciliation found, as it is kept for who looks after the deployment or a tenant: pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

FindingKind = Literal["quota", "ledger", "left_over", "unreadable", "undecided"]
MOST_FINDINGS = 200
"""Findings that a report names; of the others there is only the count."""


@dataclass(frozen=True, slots=True)
class ReconcileFinding:
    """One thing that is not as it should be, or that could not be judged: where it is, and nothing of what anybody
    wrote. `tenant_id` is None where none could be named."""

    kind: FindingKind
    tenant_id: str | None
    where: str
    says: str | None = None
    should_say: str | None = None


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """When a run of the deployment's began, how long it took, how much it compared, and how much of it it repaired."""

    at: datetime
    seconds: float
    turns: int
    accounts: int
    entries: int
    repaired: int


@dataclass(frozen=True, slots=True)
class Findings:
    """How many there are of each kind, and the first of them."""

    counts: dict[FindingKind, int]
    first: tuple[ReconcileFinding, ...]


def summed(found: Sequence[ReconcileFinding]) -> Findings:
    """What a report says of all that was found."""
    return Findings(dict(Counter(one.kind for one in found)), tuple(found[:MOST_FINDINGS]))
