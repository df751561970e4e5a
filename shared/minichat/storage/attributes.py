"""How values are stored, and attributes whose place in an expression is worked out once.

pynamodb makes a path of an attribute, and asks of what type a value is, for each condition and each action anew.
"""

import json
from dataclasses import astuple
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from pynamodb import attributes
from pynamodb.attributes import Attribute
from pynamodb.constants import NUMBER, STRING
from pynamodb.expressions.condition import Comparison, Exists, NotExists
from pynamodb.expressions.operand import Path, Value, _Operand
from pynamodb.expressions.update import AddAction, RemoveAction, SetAction

from minichat.domain.answer_end import CompletionSignal
from minichat.domain.identity import AttachmentId, from_micros, micros
from minichat.domain.spent import Spent
from minichat.domain.turn import ToolCalls

T = TypeVar("T")


class _Placed(Attribute[T]):
    """An attribute that knows its path, and that the values it is compared with and set to are of its own type."""

    @cached_property
    def _path(self) -> Path:
        return Path(self)

    def _operand(self, value: Any) -> Any:
        if value is None or isinstance(value, _Operand | Attribute):
            return self._path._to_operand(value)
        return Value({self.attr_type: self.serialize(value)})

    def set(self, value: Any) -> SetAction | RemoveAction:
        """The action that sets it; None is a value, too: DynamoDB's null."""
        return SetAction(self._path, self._operand(value))

    def add(self, *values: Any) -> AddAction:
        """The action that adds a number."""
        (value,) = values
        return AddAction(self._path, self._operand(value))

    def remove(self) -> RemoveAction:
        """The action that removes it."""
        return RemoveAction(self._path)

    def exists(self) -> Exists:
        """The condition that it is there."""
        return Exists(self._path)  # type: ignore[no-untyped-call]  # the library left it untyped

    def does_not_exist(self) -> NotExists:
        """The condition that it is not there."""
        return NotExists(self._path)  # type: ignore[no-untyped-call]  # as above

    def __eq__(self, other: Any) -> Comparison:  # type: ignore[override]  # as in pynamodb, a condition
        return Comparison("=", self._path, self._operand(other))  # type: ignore[no-untyped-call]  # as above

    __hash__ = None  # type: ignore[assignment]  # as in pynamodb: what is equal to it is a condition

    def __le__(self, other: Any) -> Comparison:
        return Comparison("<=", self._path, self._operand(other))  # type: ignore[no-untyped-call]  # as above


class UnicodeAttribute(_Placed[str], attributes.UnicodeAttribute):
    """A text."""


class BooleanAttribute(_Placed[bool], attributes.BooleanAttribute):
    """Yes or no."""


class BinaryAttribute(_Placed[bytes], attributes.BinaryAttribute):
    """Bytes."""


class NumberAttribute(_Placed[float]):
    """A number, stored as pynamodb's own attribute stores it: but whole ones, as nearly all are, need no JSON."""

    attr_type = NUMBER

    def serialize(self, value: float) -> str:
        return str(value) if type(value) is int else json.dumps(value)

    def deserialize(self, value: str) -> Any:
        try:
            return int(value)
        except ValueError:
            return json.loads(value)


class InstantAttribute(_Placed[datetime]):
    """A UTC instant as microseconds since 1970: nine bytes, exact, and it sorts."""

    attr_type = NUMBER

    def serialize(self, value: datetime) -> str:
        return str(micros(value))

    def deserialize(self, value: str) -> datetime:
        return from_micros(int(value))


class IdsAttribute(_Placed[tuple[AttachmentId, ...]]):
    """Ids in their order, as one text: none of them has a space in it."""

    attr_type = STRING

    def serialize(self, value: tuple[AttachmentId, ...]) -> str:
        return " ".join(value)

    def deserialize(self, value: str) -> tuple[AttachmentId, ...]:
        return tuple(AttachmentId(one) for one in value.split(" "))


class SignalAttribute(_Placed[CompletionSignal]):
    """Why an answer is not whole, as one text: its kind, and its reason if it has one."""

    attr_type = STRING

    def serialize(self, value: CompletionSignal) -> str:
        return value.kind if value.reason is None else f"{value.kind} {value.reason}"

    def deserialize(self, value: str) -> CompletionSignal:
        kind, _, reason = value.partition(" ")
        return CompletionSignal(kind, reason or None)  # type: ignore[arg-type]  # only `serialize` writes it


class CallsAttribute(_Placed[ToolCalls]):
    """How often each tool was called, as one text: the numbers in the order of `ToolCalls`."""

    attr_type = STRING

    def serialize(self, value: ToolCalls) -> str:
        return " ".join(map(str, astuple(value)))

    def deserialize(self, value: str) -> ToolCalls:
        return ToolCalls(*map(int, value.split()))


class SpentAttribute(_Placed[Spent]):
    """What a turn cost to run, as one text: the numbers in the order of `Spent`."""

    attr_type = STRING

    def serialize(self, value: Spent) -> str:
        return " ".join(map(str, astuple(value)))

    def deserialize(self, value: str) -> Spent:
        return Spent(*map(int, value.split()))
