"""One mutation, one transaction: writes with names, retries that cannot apply twice, and refusals that say why.

DynamoDB answers a cancelled transaction with one reason per write. A reason is either a refused condition (final: the
caller decides what it means from the old item) or a collision with another transaction or a throttle (passing: the
same transaction is sent again after a pause). While any reason is passing, the others are not yet the whole truth, so
the transaction is retried first. A call whose answer was lost is repeated too. A `ClientRequestToken` makes every
repetition, ours and botocore's, the same transaction: applied at most once within DynamoDB's ten minutes.
"""

import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError
from pynamodb.exceptions import PutError, PynamoDBException, TransactWriteError, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from minichat.domain.errors import ServiceUnavailable
from minichat.observability import count, measured, observe, tally
from minichat.storage.items import Raw, connection

PATIENCE_SECONDS = 8
"""How long a write is repeated before the caller is told to come back: contention on one chat passes much sooner."""
_at_most: ContextVar[float] = ContextVar("at_most", default=math.inf)
FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.5

_PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_PASSING_CALLS = frozenset(
    {
        "TransactionConflictException",
        "TransactionInProgressException",
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "InternalServerError",
    }
)
_CONFLICTS = frozenset({"TransactionConflict", "TransactionConflictException"})


class Refused(Exception):
    """The conditions of these writes did not hold; `old` has each one's item as it was, None where there was none."""

    def __init__(self, old: Mapping[str, Raw | None]) -> None:
        self.old = old
        super().__init__(", ".join(old))


class Rejected(RuntimeError):
    """DynamoDB understood a write and will never take it: too large, or wrongly made. Our bug, or a limit we missed."""


@dataclass(frozen=True, slots=True)
class Put:
    """Stores a whole item."""

    name: str
    item: Model
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Changes some attributes of the item that has this one's key."""

    name: str
    item: Model
    actions: Sequence[Action] = field(default_factory=tuple)
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Writes nothing: the item that has this one's key must meet the condition."""

    name: str
    item: Model
    condition: Condition


Write = Put | Update | Check


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Writes inside are repeated for so long at most: for whoever has many to make, and comes again."""
    token = _at_most.set(seconds)
    try:
        yield
    finally:
        _at_most.reset(token)


def commit(writes: Sequence[Write], *, token: str, op: str = "other") -> None:
    """Applies all writes or none. `token`, at most 36 characters, names this transaction among its repetitions; `op`
    says what it is for, in metrics.

    Raises Refused when a condition did not hold; ServiceUnavailable when DynamoDB did not answer or collisions did
    not end; Rejected when it never takes the transaction.
    """
    # TransactWrite sends checks, then puts, then updates, and reasons come in that order.
    names = [write.name for kind in (Check, Put, Update) for write in writes if isinstance(write, kind)]
    for _ in _attempts():
        try:
            with measured("transaction"):
                units = _send(writes, token)
        except TransactWriteError as error:
            if not _is_passing(error, op):
                _raise_refusal(error, names)
        else:
            observe("consumed_write_units", units, "Count", op=op)
            return
    raise ServiceUnavailable


def put_one(model: Model, *, op: str = "other") -> None:
    """Stores one item, whether it was there or not; `op` as for `commit`.

    Raises ServiceUnavailable as `commit` does.
    """
    for _ in _attempts():
        try:
            answer = model.save()
        except PutError as error:
            if not _is_passing(error, op):
                raise _rejected(error) from error
        else:
            observe("consumed_write_units", _units(answer), "Count", op=op)
            return
    raise ServiceUnavailable


def update_one(model: Model, actions: Sequence[Action], condition: Condition, *, op: str = "other") -> bool:
    """Changes one item under a condition and reads it back into `model`; False when the condition did not hold.

    `op` as for `commit`.

    Raises ServiceUnavailable as `commit` does.
    """
    for _ in _attempts():
        try:
            answer = model.update(actions=list(actions), condition=condition)
        except UpdateError as error:
            # Asked first: an answer that was lost has no code at all.
            if _is_passing(error, op):
                continue
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise _rejected(error) from error
        else:
            observe("consumed_write_units", _units(answer), "Count", op=op)
            return True
    raise ServiceUnavailable


class _Transaction(TransactWrite):
    """Remembers its answer, which pynamodb asks the consumed capacity for and then drops."""

    answer: Mapping[str, Any]

    def _commit(self) -> Any:
        self.answer = super()._commit()
        return self.answer


def _send(writes: Sequence[Write], token: str) -> float:
    """Sends the transaction once; the write units it took."""
    with _Transaction(connection=connection(), client_request_token=token) as transaction:
        for write in writes:
            match write:
                case Put(item=item, condition=condition):
                    transaction.save(item, condition=condition, return_values="ALL_OLD")
                case Check(item=item, condition=condition):
                    keys = item.pk, item.sk  # type: ignore[attr-defined]  # both tables have them
                    transaction.condition_check(type(item), *keys, condition=condition)
                case Update(item=item, actions=actions, condition=condition):
                    transaction.update(item, actions=list(actions), condition=condition, return_values="ALL_OLD")
    return _units(transaction.answer)


def _units(answer: Mapping[str, Any]) -> float:
    """The write units of an answer: of one table, or of each that a transaction wrote to."""
    consumed = answer.get("ConsumedCapacity", [])
    return sum(float(table["CapacityUnits"]) for table in (consumed if isinstance(consumed, list) else [consumed]))


def _is_passing(error: PynamoDBException, op: str) -> bool:
    """Whether the same write may succeed later; a collision with another transaction is counted."""
    if isinstance(error, TransactWriteError) and error.cancellation_reasons:
        codes = {reason.code for reason in error.cancellation_reasons if reason is not None}
        is_passing = bool(codes & _PASSING)
    elif isinstance(error.cause, BotoCoreError):
        return True
    else:
        codes = {str(error.cause_response_code)}
        is_passing = bool(codes & _PASSING_CALLS)
    if codes & _CONFLICTS:
        count("transaction_conflict_total", op=op)
    return is_passing


def _raise_refusal(error: TransactWriteError, names: Sequence[str]) -> None:
    reasons = error.cancellation_reasons
    old = {
        name: reason.raw_item
        for name, reason in zip(names, reasons, strict=False)
        if reason is not None and reason.code == "ConditionalCheckFailed"
    }
    if old:
        raise Refused(old) from error
    raise _rejected(error) from error


def _rejected(error: PynamoDBException) -> Rejected:
    return Rejected(str(error.cause_response_code))


def _attempts() -> Iterator[int]:
    """Counts attempts, pausing with jitter between them, for as long as it makes sense."""
    deadline = time.monotonic() + min(PATIENCE_SECONDS, _at_most.get())
    for attempt in itertools.count():
        yield attempt
        if time.monotonic() > deadline:
            return
        tally("write_repetitions")
        longest = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
        time.sleep(random.uniform(longest / 2, longest))  # noqa: S311  jitter, not a secret
