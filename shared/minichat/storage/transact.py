"""One mutation, one transaction: writes with names, retries that cannot apply twice, and refusals that say why.

DynamoDB answers a cancelled transaction with one reason per write. A reason is either a refused condition (final: the
caller decides what it means from the old item) or a collision with another transaction or a throttle (passing: the
same transaction is sent again after a pause). While any reason is passing, the others are not yet the whole truth, so
the transaction is retried first. A call whose answer was lost is repeated too. A `ClientRequestToken` makes every
repetition, ours and botocore's, the same transaction: applied at most once within DynamoDB's ten minutes.
"""

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError
from pynamodb.exceptions import PutError, PynamoDBException, TransactWriteError, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from minichat.domain.errors import ServiceUnavailable
from minichat.observability import measured, tally
from minichat.storage.items import Raw, connection

PATIENCE_SECONDS = 8
"""How long a write is repeated before the caller is told to come back: contention on one chat passes much sooner."""
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


Write = Put | Update


def commit(writes: Sequence[Write], *, token: str) -> None:
    """Applies all writes or none. `token`, at most 36 characters, names this transaction among its repetitions.

    Raises Refused when a condition did not hold; ServiceUnavailable when DynamoDB did not answer or collisions did
    not end; Rejected when it never takes the transaction.
    """
    # TransactWrite sends puts before updates, and reasons come in that order.
    names = [w.name for w in writes if isinstance(w, Put)] + [w.name for w in writes if isinstance(w, Update)]
    for _ in _attempts():
        try:
            with measured("transaction"):
                _send(writes, token)
        except TransactWriteError as error:
            if not _is_passing(error):
                _raise_refusal(error, names)
        else:
            return
    raise ServiceUnavailable


def put_one(model: Model) -> None:
    """Stores one item, whether it was there or not.

    Raises ServiceUnavailable as `commit` does.
    """
    for _ in _attempts():
        try:
            model.save()
        except PutError as error:
            if not _is_passing(error):
                raise _rejected(error) from error
        else:
            return
    raise ServiceUnavailable


def update_one(model: Model, actions: Sequence[Action], condition: Condition) -> bool:
    """Changes one item under a condition and reads it back into `model`; False when the condition did not hold.

    Raises ServiceUnavailable as `commit` does.
    """
    for _ in _attempts():
        try:
            model.update(actions=list(actions), condition=condition)
        except UpdateError as error:
            # Asked first: an answer that was lost has no code at all.
            if _is_passing(error):
                continue
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise _rejected(error) from error
        else:
            return True
    raise ServiceUnavailable


def _send(writes: Sequence[Write], token: str) -> None:
    with TransactWrite(connection=connection(), client_request_token=token) as transaction:
        for write in writes:
            match write:
                case Put(item=item, condition=condition):
                    transaction.save(item, condition=condition, return_values="ALL_OLD")
                case Update(item=item, actions=actions, condition=condition):
                    transaction.update(item, actions=list(actions), condition=condition, return_values="ALL_OLD")


def _is_passing(error: PynamoDBException) -> bool:
    if isinstance(error, TransactWriteError) and error.cancellation_reasons:
        return any(reason is not None and reason.code in _PASSING for reason in error.cancellation_reasons)
    return isinstance(error.cause, BotoCoreError) or error.cause_response_code in _PASSING_CALLS


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
    deadline = time.monotonic() + PATIENCE_SECONDS
    for attempt in itertools.count():
        yield attempt
        if time.monotonic() > deadline:
            return
        tally("write_repetitions")
        longest = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
        time.sleep(random.uniform(longest / 2, longest))  # noqa: S311  jitter, not a secret
