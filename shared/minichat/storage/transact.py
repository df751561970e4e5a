"""One mutation, one transaction: writes with names, retries that cannot apply twice, and refusals that say why.

DynamoDB answers a cancelled transaction with one reason per write. A reason is either a refused condition (final: the
caller decides what it means from the old item) or a collision with another transaction or a throttle (passing: the
same transaction is sent again after a pause). While any reason is passing, the others are not yet the whole truth, so
the transaction is retried first. A call whose answer was lost is repeated too. A `ClientRequestToken` makes every
repetition the same transaction: applied at most once within DynamoDB's ten minutes.

When no answer comes for as long as the patience lasts, the transaction may have taken effect or not. Then the table is
asked for something that only this transaction makes: an event, as a rule, whose id nobody else has.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError
from pynamodb.exceptions import PutError, PynamoDBException, TransactWriteError, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat import greenlets
from minichat.domain.errors import ChatError, ServiceUnavailable
from minichat.observability import count, measured, observe, spend, tally
from minichat.pauses import growing, jittered
from minichat.storage.items import OutboxItem, ask, consumed, is_there
from minichat.storage.keys import Raw
from minichat.storage.models import LeanModel, key_request, put_request, update_request

PATIENCE_SECONDS = 8
"""How long a write is repeated before the caller is told to come back: contention on one chat passes much sooner.

The last attempt begins within it and may hang as long as the client's timeouts allow (5 s), and so may the question
that follows: 18 s at worst, within the 20 s of the API's function and the 29 s of its gateway.
"""
LEAST_ATTEMPTS = 2
"""However long the first one hangs: one whose answer was lost is worth nothing until it is asked for again."""
LOOKS_AFTER = 3
"""Attempts in vain, a fifth of a second: then a writer looks whether another has won. Of many that collide with each
other, each could spend its patience on a transaction that was decided long ago."""
_at_most: ContextVar[float] = ContextVar("at_most", default=math.inf)
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5

_PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_PASSING_CALLS = frozenset(
    {
        "TransactionConflictException",
        "TransactionInProgressException",
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
    }
)
_SERVER_ERROR = 500
"""Status from which on a failure is DynamoDB's own: it may pass, and what was asked for may have been done."""
_NEVER_SENT = (ConnectTimeoutError, EndpointConnectionError)
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
    item: LeanModel
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Changes some attributes of the item that has this one's key."""

    name: str
    item: LeanModel
    actions: Sequence[Action] = field(default_factory=tuple)
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes the item that has this one's key, as far as the condition holds. Its old item is not told."""

    name: str
    item: LeanModel
    condition: Condition


@dataclass(frozen=True, slots=True)
class Check:
    """Writes nothing: the item that has this one's key must meet the condition."""

    name: str
    item: LeanModel
    condition: Condition


Write = Put | Update | Delete | Check
_ORDER: dict[type[Write], int] = {Check: 0, Delete: 1, Put: 2, Update: 3}
"""In which order the writes of a transaction are sent."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Writes inside are repeated for so long at most: for whoever has many to make, and comes again."""
    token = _at_most.set(seconds)
    try:
        yield
    finally:
        _at_most.reset(token)


def commit(
    writes: Sequence[Write],
    *,
    token: str,
    op: str = "other",
    took_effect: Callable[[], bool] | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Applies all writes or none. `token`, at most 36 characters, names this transaction among its repetitions; `op`
    says what it is for, in metrics.

    `took_effect` is asked when no answer came; without it the first event among the writes is looked for. `check` is
    for writes that many try at once: it reads, and raises when another has won. It is called while collisions go on or
    answers are lost, and before giving up.

    Raises what `check` raises; Refused when a condition did not hold; ServiceUnavailable when DynamoDB did not answer
    or collisions did not end, and as far as can be known nothing was done; Rejected when it never takes the
    transaction.
    """
    # A repetition is the same transaction only with its writes in the same order, and reasons come in that order.
    writes = sorted(writes, key=lambda write: _ORDER[type(write)])
    names = [write.name for write in writes]
    attempts = _Attempts(op)
    took_effect = took_effect or _its_event(writes)
    for attempt in attempts:
        if check is not None and attempt >= LOOKS_AFTER:
            if _was_won_by_it(check, took_effect if attempts.unsure else bool):
                return
            if attempts.are_over:
                break
        try:
            with measured("transaction"):
                units = _send(writes, token)
        except TransactWriteError as error:
            if not attempts.may_pass(error):
                _raise_refusal(error, names)
        else:
            _took(units, op)
            return
    if attempts.unsure and took_effect():
        return
    if check is not None:
        check()
    raise ServiceUnavailable from attempts.failure


def _was_won_by_it(check: Callable[[], None], took_effect: Callable[[], bool]) -> bool:
    """Whether `check` found what an attempt of this very transaction did, whose answer was lost.

    Raises what `check` raises when it is another's: then no attempt that is still on its way can win any more.
    """
    try:
        check()
    except ServiceUnavailable:
        raise
    except ChatError:
        if not took_effect():
            raise
        return True
    return False


def try_commit(writes: Sequence[Write], *, token: str, op: str) -> bool:
    """Applies all writes; False when nothing was done because a condition did not hold, whichever it was.

    Otherwise as `commit`.
    """
    try:
        commit(writes, token=token, op=op)
    except Refused:
        return False
    return True


def put_one(model: LeanModel, *, op: str = "other") -> None:
    """Stores one item, whether it was there or not; `op` as for `commit`.

    Raises ServiceUnavailable when DynamoDB did not answer; the item may be stored all the same.
    """
    attempts = _Attempts(op)
    for _ in attempts:
        try:
            answer = model.save()
        except PutError as error:
            if not attempts.may_pass(error):
                raise _rejected(error) from error
        else:
            _took(consumed(answer), op)
            return
    raise ServiceUnavailable from attempts.failure


def update_one(model: LeanModel, actions: Sequence[Action], condition: Condition, *, op: str = "other") -> bool:
    """Changes one item under a condition and reads it back into `model`; False when the condition did not hold.

    A single write has no token: when the answer to it was lost and its repetition is refused, what refuses it may be
    its own first attempt. So either the condition still holds after it, or the caller looks who it was.
    `op` as for `commit`.

    Raises ServiceUnavailable when DynamoDB did not answer; the item may be changed all the same.
    """
    attempts = _Attempts(op)
    for _ in attempts:
        try:
            answer = model.update(actions=list(actions), condition=condition)
        except UpdateError as error:
            # Asked first: an answer that was lost has no code at all.
            if attempts.may_pass(error):
                continue
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise _rejected(error) from error
        else:
            _took(consumed(answer), op)
            return True
    raise ServiceUnavailable from attempts.failure


def _its_event(writes: Sequence[Write]) -> Callable[[], bool]:
    event = next((write.item for write in writes if isinstance(write.item, OutboxItem)), None)
    return bool if event is None else partial(is_there, event)


def _send(writes: Sequence[Write], token: str) -> float:
    """Sends the transaction once; the write units it took."""
    asked = {"ClientRequestToken": token, "TransactItems": [_request(write) for write in writes]}
    return consumed(ask("TransactWriteItems", asked, TransactWriteError))


def _request(write: Write) -> dict[str, Any]:
    match write:
        case Put(item=item, condition=condition):
            return {"Put": put_request(item, condition)}
        case Update(item=item, actions=actions, condition=condition):
            return {"Update": update_request(item, actions, condition)}
        case Delete(item=item, condition=condition):
            return {"Delete": key_request(item, condition)}
        case Check(item=item, condition=condition):
            return {"ConditionCheck": key_request(item, condition)}


def _took(units: float, op: str) -> None:
    observe("consumed_write_units", units, "Count", op=op)
    spend(op, units)


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


class _Attempts:
    """The attempts at one write, pausing with jitter between them, for as long as it makes sense.

    `unsure` once an attempt has ended without saying whether it did anything; `failure` is how the last one ended.
    """

    def __init__(self, op: str) -> None:
        self.unsure = False
        self.failure: PynamoDBException | None = None
        self._op = op
        self._deadline = time.monotonic() + min(PATIENCE_SECONDS, _at_most.get())

    @property
    def are_over(self) -> bool:
        """Whether it is too late for another."""
        return time.monotonic() > self._deadline

    def __iter__(self) -> Iterator[int]:
        attempt = 0
        pauses = growing(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while attempt < LEAST_ATTEMPTS or not self.are_over:
            if attempt:
                tally("write_repetitions")
                greenlets.sleep(jittered(next(pauses)))
            yield attempt
            attempt += 1

    def may_pass(self, error: PynamoDBException) -> bool:
        """Whether the same write may succeed later; a collision with another transaction is counted."""
        self.failure = error
        if isinstance(error, TransactWriteError) and error.cancellation_reasons:
            codes = {reason.code for reason in error.cancellation_reasons if reason is not None}
            passes = bool(codes & _PASSING)
        elif isinstance(error.cause, BotoCoreError):
            self.unsure |= not isinstance(error.cause, _NEVER_SENT)
            return True
        else:
            codes = {str(error.cause_response_code)}
            failed = _status(error) >= _SERVER_ERROR
            self.unsure |= failed
            passes = failed or bool(codes & _PASSING_CALLS)
        if codes & _CONFLICTS:
            count("transaction_conflict_total", op=self._op)
        return passes


def _status(error: PynamoDBException) -> int:
    # pynamodb leaves the status out of the error that it makes of botocore's.
    origin = None if error.cause is None else error.cause.__cause__
    answer: Mapping[str, Any] = origin.response if isinstance(origin, ClientError) else {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
