"""The little of OData that lists understand: `$filter`, `$orderby`, `$select` (contract 1).

    filter      := all ("or" all)*
    all         := term ("and" term)*
    term        := "not" term | "(" filter ")" | comparison | function
    comparison  := field op literal | field "in" "(" literal ("," literal)* ")"
    function    := ("contains" | "startswith" | "endswith") "(" field "," 'text' ")"
    literal     := 'text' ('' is a quote) | uuid | RFC 3339 date-time

Each list defines its fields and their operators (`http.listing`). Texts are compared exactly, case included. Anything
else is refused with the option's name and the position: an option that is not understood must not silently match.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn
from uuid import UUID

from minichat.domain.errors import FieldError, InvalidRequest

MAX_BYTES = 8192
MAX_VALUES = 100
MAX_DEPTH = 100

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<mark>[(),])|(?P<word>[^\s(),']+))")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})", re.IGNORECASE)
FUNCTIONS = frozenset({"contains", "startswith", "endswith"})
"""Functions of texts."""
_COMPARE: dict[str, Callable[[Any, Sequence[Any]], bool]] = {
    "eq": lambda value, given: bool(value == given[0]),
    "ne": lambda value, given: bool(value != given[0]),
    "gt": lambda value, given: bool(value > given[0]),
    "ge": lambda value, given: bool(value >= given[0]),
    "lt": lambda value, given: bool(value < given[0]),
    "le": lambda value, given: bool(value <= given[0]),
    "in": lambda value, given: value in given,
    "contains": lambda value, given: given[0] in value,
    "startswith": lambda value, given: bool(value.startswith(given[0])),
    "endswith": lambda value, given: bool(value.endswith(given[0])),
}

Value = datetime | UUID | str
Kind = Literal["instant", "id", "text"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a list can be filtered by: the kind of its literals, and its operators."""

    kind: Kind
    ops: frozenset[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value, or several with `in`."""

    field: str
    op: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """A term that must not hold."""

    term: "Term"


@dataclass(frozen=True, slots=True)
class Both:
    """Terms that must all hold; none of them is a `Both`."""

    terms: "tuple[Term, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """Terms of which one must hold; none of them is an `Either`."""

    terms: "tuple[Term, ...]"


Term = Comparison | Not | Both | Either


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of a list; the empty one matches everything."""

    term: Term = Both(())

    def matches(self, members: Mapping[str, Value]) -> bool:
        """Whether something with these members matches."""
        return _holds(self.term, members)

    def canonical(self) -> str:
        """The filter in canonical spelling, which parses to an equal filter."""
        return _spelled(self.term)

    @property
    def not_before(self) -> datetime | None:
        """A bound before which nothing can match, if the filter shows one."""
        return _bounds(self.term)[0]

    @property
    def not_after(self) -> datetime | None:
        """A bound after which nothing can match, if the filter shows one."""
        return _bounds(self.term)[1]


def _holds(term: Term, members: Mapping[str, Value]) -> bool:
    match term:
        case Comparison(field, op, values):
            return _COMPARE[op](members[field], values)
        case Not(inner):
            return not _holds(inner, members)
        case Both(terms):
            return all(_holds(one, members) for one in terms)
        case Either(terms):
            return any(_holds(one, members) for one in terms)


def _spelled(term: Term) -> str:
    match term:
        case Comparison(field, op, values):
            literals = ",".join(_literal(value) for value in values)
            if op in FUNCTIONS:
                return f"{op}({field},{literals})"
            return f"{field} {op} " + (f"({literals})" if op == "in" else literals)
        case Not(inner):
            return f"not ({_spelled(inner)})"
        case Both(terms):
            alike = (f"({_spelled(one)})" if isinstance(one, Either) else _spelled(one) for one in terms)
            return " and ".join(sorted(alike))
        case Either(terms):
            return " or ".join(sorted(_spelled(one) for one in terms))


def _bounds(term: Term) -> tuple[datetime | None, datetime | None]:
    match term:
        case Comparison(_, op, (datetime() as instant,)):
            return (
                instant if op in ("eq", "gt", "ge") else None,
                instant if op in ("eq", "lt", "le") else None,
            )
        case Both(terms):
            since, until = zip(*map(_bounds, terms), strict=True) if terms else ((), ())
            return max((one for one in since if one), default=None), min((one for one in until if one), default=None)
        case Either(terms):
            since, until = zip(*map(_bounds, terms), strict=True)
            # An alternative without a bound leaves the whole filter without one.
            return None if None in since else min(since), None if None in until else max(until)
        case _:
            return None, None


@dataclass(frozen=True, slots=True)
class Order:
    """By time or by id, which give the same order; ascending or descending."""

    field: str = "created_at"
    descending: bool = False

    def canonical(self) -> str:
        """The order in canonical spelling."""
        return f"{self.field} {'desc' if self.descending else 'asc'}"


def parse_filter(text: str | None, fields: Mapping[str, Field]) -> Filter:
    """The filter of a `$filter` over these fields; blank means none.

    Raises InvalidRequest naming `$filter`, with the fault and its position.
    """
    if text is None or not text.strip():
        return Filter()
    if len(text.encode(errors="replace")) > MAX_BYTES:
        _refuse("$filter", f"The filter is longer than {MAX_BYTES} bytes.", "FILTER_TOO_LONG")
    return Filter(_Parser(text, fields).whole())


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

    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        self._text = text.rstrip()
        self._fields = fields
        self._at = 0
        self._depth = 0
        self._values = 0

    def whole(self) -> Term:
        found = self._alternatives()
        if self._at < len(self._text):
            self._wrong("Expected 'and', 'or' or the end")
        return found

    def _alternatives(self) -> Term:
        terms = [self._conjunction()]
        while self._takes("or"):
            terms.append(self._conjunction())
        flat = [inner for one in terms for inner in (one.terms if isinstance(one, Either) else (one,))]
        return flat[0] if len(flat) == 1 else Either(tuple(flat))

    def _conjunction(self) -> Term:
        terms = [self._term()]
        while self._takes("and"):
            terms.append(self._term())
        flat = [inner for one in terms for inner in (one.terms if isinstance(one, Both) else (one,))]
        return flat[0] if len(flat) == 1 else Both(tuple(flat))

    def _term(self) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._wrong("Too deep")
        if self._takes("not"):
            found: Term = Not(self._term())
        elif self._takes("("):
            found = self._alternatives()
            self._expect(")")
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Comparison:
        name = self._next()
        if name in FUNCTIONS and any(name in field.ops for field in self._fields.values()):
            return self._function(name)
        field = self._field(name)
        op = self._next()
        if op not in field.ops - FUNCTIONS:
            self._wrong(f"{name} does not support {op!r}")
        if op != "in":
            return Comparison(name, op, (self._value(name),))
        self._expect("(")
        values = [self._value(name)]
        while self._takes(","):
            values.append(self._value(name))
        self._expect(")")
        return Comparison(name, op, tuple(values))

    def _function(self, op: str) -> Comparison:
        self._expect("(")
        name = self._next()
        if op not in self._field(name).ops:
            self._wrong(f"{name} does not support {op!r}")
        self._expect(",")
        value = self._value(name)
        self._expect(")")
        return Comparison(name, op, (value,))

    def _field(self, name: str) -> Field:
        if name not in self._fields:
            self._wrong(f"There is no field {name!r} to filter by")
        return self._fields[name]

    def _value(self, name: str) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            _refuse("$filter", f"The filter has more than {MAX_VALUES} values.", "FILTER_TOO_COMPLEX")
        token = self._next()
        quoted = token[1:-1].replace("''", "'") if token.startswith("'") else None
        try:
            match self._fields[name].kind:
                case "text" if quoted is not None:
                    return quoted
                case "id":
                    return UUID(token if quoted is None else quoted)
                case "instant" if _INSTANT.fullmatch(token):
                    return datetime.fromisoformat(token.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # not a UUID, or no such day
        return self._wrong(f"{token} is not a value of {name}")

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
