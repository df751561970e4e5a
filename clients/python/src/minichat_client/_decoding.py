"""JSON as the data classes of `types`: members that are not known are left out, so that a newer server does no harm."""

from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from minichat_client.errors import NotMiniChat

T = TypeVar("T")


def decoded(kind: type[T], said: Any, **more: Any) -> T:
    """The object that a JSON object says; `more` are members that are not in it.

    Raises NotMiniChat for what does not fit.
    """
    try:
        made: T = _object(kind, said, more)
    except (TypeError, ValueError) as error:
        raise NotMiniChat(f"The server answers something else than a {kind.__name__}: {error}.") from None
    return made


@cache
def _members(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    """Name, type, and whether it must be there, of each member of a data class."""
    hints = get_type_hints(kind)
    assert is_dataclass(kind)
    return tuple((one.name, hints[one.name], one.default is MISSING) for one in fields(kind))


def _object(kind: Any, said: Any, more: dict[str, Any]) -> Any:
    if not isinstance(said, dict):
        raise TypeError(f"{type(said).__name__} instead of an object")
    members = dict(more)
    for name, hint, needed in _members(kind):
        if name in said:
            members[name] = _value(hint, said[name])
        elif needed and name not in more:
            raise ValueError(f"no {name}")
    return kind(**members)


def _value(hint: Any, said: Any) -> Any:
    if get_origin(hint) is UnionType:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
        if said is None:
            return None
    if get_origin(hint) is list:
        return [_value(get_args(hint)[0], one) for one in said]
    if is_dataclass(hint):
        return _object(hint, said, {})
    if hint is datetime:
        return datetime.fromisoformat(said)
    return date.fromisoformat(said) if hint is date else said
