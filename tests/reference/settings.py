"""`settings.md`: every setting with its type, default and unit, from the models' JSON Schema."""

import json
import re
from collections.abc import Iterator
from typing import Any

from minichat.settings import PREFIX, Settings
from tests.reference.markdown import code, page, table

Schema = dict[str, Any]

UNITS = {
    "seconds": "seconds",
    "hours": "hours",
    "days": "days",
    "kb": "KiB",
    "mb": "MiB",
    "bytes": "bytes",
    "pct": "per cent",
    "pixels": "pixels",
    "attempts": "attempts",
    "calls": "calls",
    "connections": "connections",
    "documents": "documents",
    "images": "images",
    "messages": "messages",
    "turns": "turns",
    "retries": "retries",
    "tokens": "tokens",
}
"""What a number counts, by the first such word of its name; one without such a word says it in its description."""

_INTRODUCTION = f"""\
A setting is given by a variable, or in the JSON or YAML file that `{PREFIX}CONFIG` names; the variable wins. The
variable of `streaming.deadline_seconds` is `{PREFIX}STREAMING__DEADLINE_SECONDS`: capitals, and `__` between levels. A
value that begins with `{{` or `[` is JSON, so a whole group can be given at once. A wrong or unknown setting stops the
start and is named. Prices, models and limits of users are not settings: they are
[the policy](../turns-and-quota.md#5-policy)."""


def write() -> str:
    """The page."""
    blocks = ["# Settings", _INTRODUCTION]
    for path, group in _groups():
        blocks += [f"## {code(path)}", group["description"]] if path else []
        rows = [
            (code(f"{path}.{name}".lstrip(".")), _type(one), _default(name, one, group), _what(name, one))
            for name, one in _values(group)
        ]
        blocks += [table(("setting", "type", "default", "what"), rows)] if rows else []
    return page(*blocks)


def without_unit() -> list[str]:
    """The numbers of which nothing says what they count."""
    return [
        f"{path}.{name}"
        for path, group in _groups()
        for name, one in _values(group)
        if _is_number(one) and not _what(name, one)
    ]


def _groups() -> Iterator[tuple[str, Schema]]:
    """Each group with its path, outer ones first."""
    whole = Settings.model_json_schema(by_alias=False)
    return _below("", whole, whole["$defs"])


def _below(path: str, group: Schema, defined: dict[str, Schema]) -> Iterator[tuple[str, Schema]]:
    yield path, group
    for name, one in group["properties"].items():
        if (ref := _inner(one)) is not None:
            many = ".<name>" if "additionalProperties" in one else "[]" if "items" in one else ""
            yield from _below(f"{path}.{name}{many}".lstrip("."), defined[ref.rpartition("/")[2]], defined)


def _values(group: Schema) -> list[tuple[str, Schema]]:
    return [(name, one) for name, one in group["properties"].items() if _inner(one) is None]


def _inner(one: Schema) -> str | None:
    """The group that a member holds: itself, by names, or in a list; None for a value."""
    given = _given(one)
    within = given.get("additionalProperties", given.get("items"))
    ref: str | None = (within if isinstance(within, dict) else given).get("$ref")
    return ref


def _given(one: Schema) -> Schema:
    """What a member is where it is not null."""
    (given,) = (given for given in one.get("anyOf", [one]) if given.get("type") != "null")
    return dict(given)


def _is_number(one: Schema) -> bool:
    return _given(one).get("type") in ("integer", "number")


def _type(one: Schema) -> str:
    given = _given(one)
    if "enum" in given:
        return ", ".join(map(code, given["enum"]))
    kind = str(given["type"])
    if kind == "array":
        return f"list of {_type(given['items'])}"
    plain = {"string": "text", "boolean": "`true`, `false`", "object": "mapping of names to texts"}
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    told = [f"{word} {given[bound]:,}" for bound, word in bounds.items() if bound in given]
    secret = ["secret"] if given.get("writeOnly") else []
    return " ".join([*secret, plain.get(kind, kind), *told])


def _default(name: str, one: Schema, group: Schema) -> str:
    if name in group.get("required", ()):
        return ""
    default = one.get("default", {} if one.get("type") == "object" else None)
    return "none" if default is None else code(json.dumps(default, ensure_ascii=False))


def _what(name: str, one: Schema) -> str:
    return "; ".join(filter(None, (_unit(name) if _is_number(one) else "", one.get("description", ""))))


def _unit(name: str) -> str:
    unit = next((UNITS[word] for word in name.split("_") if word in UNITS), "")
    per = re.search(r"_per_([a-z]+)$", name)
    return f"{unit} per {per[1]}" if unit and per else unit
