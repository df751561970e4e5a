"""How values other than text and numbers are stored."""

import json
from dataclasses import astuple
from datetime import datetime
from typing import Any

from pynamodb.attributes import Attribute
from pynamodb.constants import NUMBER, STRING

from minichat.domain.answer_end import CompletionSignal
from minichat.domain.identity import AttachmentId, from_micros, micros
from minichat.domain.turn import ToolCalls


class NumberAttribute(Attribute[float]):
    """A number, stored as pynamodb's own attribute stores it: but whole ones, as nearly all are, need no JSON."""

    attr_type = NUMBER

    def serialize(self, value: float) -> str:
        return str(value) if type(value) is int else json.dumps(value)

    def deserialize(self, value: str) -> Any:
        try:
            return int(value)
        except ValueError:
            return json.loads(value)


class InstantAttribute(Attribute[datetime]):
    """A UTC instant as microseconds since 1970: nine bytes, exact, and it sorts."""

    attr_type = NUMBER

    def serialize(self, value: datetime) -> str:
        return str(micros(value))

    def deserialize(self, value: str) -> datetime:
        return from_micros(int(value))


class IdsAttribute(Attribute[tuple[AttachmentId, ...]]):
    """Ids in their order, as one text: none of them has a space in it."""

    attr_type = STRING

    def serialize(self, value: tuple[AttachmentId, ...]) -> str:
        return " ".join(value)

    def deserialize(self, value: str) -> tuple[AttachmentId, ...]:
        return tuple(AttachmentId(one) for one in value.split(" "))


class SignalAttribute(Attribute[CompletionSignal]):
    """Why an answer is not whole, as one text: its kind, and its reason if it has one."""

    attr_type = STRING

    def serialize(self, value: CompletionSignal) -> str:
        return value.kind if value.reason is None else f"{value.kind} {value.reason}"

    def deserialize(self, value: str) -> CompletionSignal:
        kind, _, reason = value.partition(" ")
        return CompletionSignal(kind, reason or None)  # type: ignore[arg-type]  # only `serialize` writes it


class CallsAttribute(Attribute[ToolCalls]):
    """How often each tool was called, as one text: the numbers in the order of `ToolCalls`."""

    attr_type = STRING

    def serialize(self, value: ToolCalls) -> str:
        return " ".join(map(str, astuple(value)))

    def deserialize(self, value: str) -> ToolCalls:
        return ToolCalls(*map(int, value.split()))
