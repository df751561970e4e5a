"""The little of OData that lists understand: `$filter`, `$orderby`, `$select` (contract 1).

    filter      := term ("and" term)*
    term        := "(" filter ")" | field op literal | field "in" "(" literal ("," literal)* ")"
    field       := created_at (eq ne gt ge lt le) | role (eq ne in) | id (eq ne in)
    literal     := 'text' ('' is a quote) | uuid | RFC 3339 date-time

Anything else is refused with the option's name and the place: what is not understood must not silently match.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from minichat.domain.errors import FieldError, InvalidRequest

MAX_BYTES = 8192
MAX_VALUES = 100

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<mark>[(),])|(?P<word>[^\s(),']+))")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})", re.IGNORECASE)
_OPERATORS: dict[str, frozenset[str]] = {
    "created_at": frozenset({"eq", "ne", "gt", "ge", "lt", "le"}),
    "role": frozenset({"eq", "ne", "in"}),
    "id": frozenset({"eq", "ne", "in"}),
}
_COMPARE: dict[str, Callable[[Any, Sequence[Any]], bool]] = {
    "eq": lambda value, given: bool(value == given[0]),
    "ne": lambda value, given: bool(value != given[0]),
    "gt": lambda value, given: bool(value > given[0]),
    "ge": lambda value, given: bool(value >= given[0]),
    "lt": lambda value, given: bool(value < given[0]),
    "le": lambda value, given: bool(value <= given[0]),
    "in": lambda value, given: value in given,
}

Value = datetime | UUID | str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value, or several with `in`."""

    field: str
    op: str
    values: tuple[Value, ...]

    def canonical(self) -> str:
        """The comparison in its one spelling."""
        literals = ",".join(_literal(value) for value in self.values)
        return f"{self.field} {self.op} " + (f"({literals})" if self.op == "in" else literals)


@dataclass(frozen=True, slots=True)
class Filter:
    """Comparisons that must all hold."""

    comparisons: tuple[Comparison, ...] = ()

    def matches(self, created_at: datetime, role: str, message_id: UUID) -> bool:
        """Whether a message with these members is wanted."""
        members: dict[str, Value] = {"created_at": created_at, "role": role, "id": message_id}
        return all(_COMPARE[c.op](members[c.field], c.values) for c in self.comparisons)

    def canonical(self) -> str:
        """The filter in its one spelling, which parses to an equal filter."""
        return " and ".join(sorted(comparison.canonical() for comparison in self.comparisons))

    @property
    def not_before(self) -> datetime | None:
        """The latest instant before which nothing can match."""
        return max(self._instants("eq", "gt", "ge"), default=None)

    @property
    def not_after(self) -> datetime | None:
        """The earliest instant after which nothing can match."""
        return min(self._instants("eq", "lt", "le"), default=None)

    def _instants(self, *ops: str) -> list[datetime]:
        return [v for c in self.comparisons if c.op in ops for v in c.values if isinstance(v, datetime)]


@dataclass(frozen=True, slots=True)
class Order:
    """By time or by id, which agree; forwards or backwards."""

    field: str = "created_at"
    descending: bool = False

    def canonical(self) -> str:
        """The order in its one spelling."""
        return f"{self.field} {'desc' if self.descending else 'asc'}"


def parse_filter(text: str | None) -> Filter:
    """The filter of a `$filter`; blank means none.

    Raises InvalidRequest naming `$filter`, with what was wrong and where.
    """
    if text is None or not text.strip():
        return Filter()
    if len(text.encode(errors="replace")) > MAX_BYTES:
        _refuse("$filter", f"The filter is longer than {MAX_BYTES} bytes.", "FILTER_TOO_LONG")
    comparisons = tuple(_Parser(text).whole())
    if sum(len(comparison.values) for comparison in comparisons) > MAX_VALUES:
        _refuse("$filter", f"The filter has more than {MAX_VALUES} values.", "FILTER_TOO_COMPLEX")
    return Filter(comparisons)


def parse_orderby(text: str | None) -> Order:
    """The order of an `$orderby`; blank means `created_at asc`.

    Raises InvalidRequest naming `$orderby`.
    """
    if text is None or not text.strip():
        return Order()
    field, _, direction = " ".join(text.split()).partition(" ")
    if field not in ("created_at", "id") or direction not in ("", "asc", "desc"):
        _refuse("$orderby", "Order by created_at or id, asc or desc.", "INVALID_ORDERBY")
    return Order(field, direction == "desc")


def parse_select(text: str | None, members: frozenset[str]) -> frozenset[str] | None:
    """The members that a `$select` names; None when there is none.

    Raises InvalidRequest naming `$select`.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in members:
            _refuse("$select", f"There is no member {name!r}.", "INVALID_SELECT")
    if len(set(names)) < len(names):
        _refuse("$select", "A member is named twice.", "INVALID_SELECT")
    return frozenset(names)


def refuse_unknown_options(names: Iterable[str], allowed: frozenset[str]) -> None:
    """Refuses `$` options that this list does not understand.

    Raises InvalidRequest naming each one.
    """
    unknown = sorted({name for name in names if name.startswith("$") and name not in allowed})
    if unknown:
        raise InvalidRequest(
            *(
                FieldError(name, f"The option {name} is not supported here.", "UNSUPPORTED_QUERY_PARAM")
                for name in unknown
            )
        )


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._at = 0
        self._depth = 0

    def whole(self) -> list[Comparison]:
        found = self._conjunction()
        if self._at < len(self._text):
            self._wrong("Expected 'and' or the end")
        return found

    def _conjunction(self) -> list[Comparison]:
        found = self._term()
        while self._takes("and"):
            found += self._term()
        return found

    def _term(self) -> list[Comparison]:
        if not self._takes("("):
            return [self._comparison()]
        self._depth += 1
        if self._depth > MAX_VALUES:
            self._wrong("Too many parentheses")
        found = self._conjunction()
        self._expect(")")
        return found

    def _comparison(self) -> Comparison:
        field = self._next()
        if field not in _OPERATORS:
            self._wrong(f"There is no field {field!r} to filter by")
        op = self._next()
        if op not in _OPERATORS[field]:
            self._wrong(f"{field} does not support {op!r}")
        if op != "in":
            return Comparison(field, op, (self._value(field),))
        self._expect("(")
        values = [self._value(field)]
        while self._takes(","):
            values.append(self._value(field))
        self._expect(")")
        return Comparison(field, op, tuple(values))

    def _value(self, field: str) -> Value:
        token = self._next()
        quoted = token[1:-1].replace("''", "'") if token.startswith("'") else None
        try:
            if field == "role" and quoted is not None:
                return quoted
            if field == "id":
                return UUID(token if quoted is None else quoted)
            if field == "created_at" and _INSTANT.fullmatch(token):
                return datetime.fromisoformat(token.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # not a UUID, or no such day
        return self._wrong(f"{token} is not a value of {field}")

    def _peek(self) -> tuple[str, int]:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            return "", self._at
        return match[match.lastgroup or 0], match.end()

    def _next(self) -> str:
        token, end = self._peek()
        if not token:
            self._wrong("Something is missing")
        self._at = end
        return token

    def _takes(self, wanted: str) -> bool:
        token, end = self._peek()
        if token == wanted:
            self._at = end
        return token == wanted

    def _expect(self, wanted: str) -> None:
        if not self._takes(wanted):
            self._wrong(f"Expected {wanted!r}")

    def _wrong(self, what: str) -> NoReturn:
        _refuse("$filter", f"{what}, at character {self._at}.", "INVALID_FILTER")


def _literal(value: Value) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, UUID):
        return str(value)
    return "'" + value.replace("'", "''") + "'"


def _refuse(field: str, message: str, code: str) -> NoReturn:
    raise InvalidRequest(FieldError(field, message, code))
