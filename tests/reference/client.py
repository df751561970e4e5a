"""Modules of the Python client that are made from the OpenAPI document: its answers, events and refusals."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from minichat.http.document import document
from tests.reference.problems import refusals

FOLDER = "clients/python/src/minichat_client"
MODULES = ("types.py", "events.py", "problems.py")
_MADE = "\n\nMade from the code by `make docs`: change it there.\n"
_EVENT = '''
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a stream: its number in the turn, from 1."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event that a newer server tells and this client does not know."""

    name: str
    data: Any
'''
_SCALARS = {"integer": "int", "boolean": "bool", "number": "float"}
_FORMATS = {"date-time": "datetime", "date": "date"}


@cache
def modules() -> dict[str, str]:
    """The modules by their names."""
    made = document("/mini-chat")
    schemas = made["components"]["schemas"]
    frames = [schemas[_name(one)]["properties"] for one in schemas["StreamEvent"]["oneOf"]]
    # A ping is told to nobody.
    events = {one["event"]["const"]: _name(one["data"]) for one in frames if "id" in one}
    every = _reached(schemas, {*_answered(made["paths"]), *events.values()})
    types = {name: schemas[name] for name in sorted(every - {*events.values()})}
    told = {event: schemas[data] for event, data in events.items()}
    return dict(zip(MODULES, map(_formatted, (_types(types), _events(told), _problems())), strict=True))


def _answered(paths: dict[str, Any]) -> Iterator[str]:
    """The schemas of what operations answer; lists come item by item."""
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                for name in _references(response) if status.startswith("2") else ():
                    if not name.startswith("Stream") and "Selected" not in name:
                        yield name.removeprefix("Page_").rstrip("_")


def _types(schemas: dict[str, Any]) -> str:
    blocks = [
        f'"""What the server answers, from its OpenAPI document.{_MADE}"""\n',
        "from __future__ import annotations\n",
        "from dataclasses import dataclass\nfrom datetime import date, datetime\nfrom typing import Literal\n\n",
        *(_class(f"class {name}:", schema) for name, schema in schemas.items()),
    ]
    return "\n".join(blocks)


def _events(schemas: dict[str, Any]) -> str:
    used = sorted({name for schema in schemas.values() for name in _references(schema)})
    blocks = [
        f'"""What the stream of an answer tells, from the server\'s OpenAPI document.{_MADE}"""\n',
        "from dataclasses import dataclass\nfrom typing import Any, Literal\n",
        f"from minichat_client.types import {', '.join(used)}\n",
        _EVENT,
        *(_class(f"class {_camel(event)}Event(Event):", schema) for event, schema in schemas.items()),
        "EVENTS: dict[str, type[Event]] = {",
        *(f'    "{event}": {_camel(event)}Event,' for event in schemas),
        "}",
    ]
    return "\n".join(blocks)


def _problems() -> str:
    classes = [
        f'class {_camel(code)}(Refused):\n{_docstring(f"{status}: {cause}")}\n\n    code = "{code}"\n'
        for code, (status, cause) in sorted(refusals().items())
    ]
    return "\n".join(
        [
            f'"""One exception per code of a refusal.{_MADE}"""\n',
            "from minichat_client.errors import Refused\n",
            *classes,
            "BY_CODE: dict[str, type[Refused]] = {",
            *(f'    "{code}": {_camel(code)},' for code in sorted(refusals())),
            "}",
        ]
    )


def _class(head: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", ())
    members = [_member(name, about, optional=name not in needed) for name, about in schema["properties"].items()]
    decorator = "@dataclass(frozen=True, slots=True, kw_only=True)"
    return "\n".join([decorator, head, _docstring(schema["description"]), "", *members, "\n"])


def _member(name: str, schema: dict[str, Any], *, optional: bool) -> str:
    default = schema.get("default")
    kind = _type(schema, optional=optional and default is None)
    said = f"\n{_docstring(schema['description'])}" if "description" in schema else ""
    return f"    {name}: {kind}{f' = {default!r}' if optional else ''}{said}"


def _type(schema: dict[str, Any], *, optional: bool = False) -> str:
    given = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    (one,) = given
    told = _given_type(one)
    return f"{told} | None" if optional or "anyOf" in schema else told


def _given_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _name(schema)
    words = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if words:
        return f"Literal[{', '.join(map(repr, words))}]"
    if schema["type"] == "array":
        return f"list[{_type(schema['items'])}]"
    if schema["type"] == "object":
        return "dict[str, str]"
    return _SCALARS.get(schema["type"]) or _FORMATS.get(schema.get("format", ""), "str")


def _reached(schemas: dict[str, Any], wanted: set[str]) -> set[str]:
    found: set[str] = set()
    left = set(wanted)
    while left:
        name = left.pop()
        found.add(name)
        left |= set(_references(schemas[name])) - found
    return found


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield _name(part)
        for one in part.values():
            yield from _references(one)
    elif isinstance(part, list):
        for one in part:
            yield from _references(one)


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _docstring(text: str) -> str:
    """A docstring of a class or a member, in lines that are not too long."""
    lines = textwrap.wrap(f'"""{" ".join(text.split())}"""', width=116)
    if len(lines) > 1:
        lines = [*textwrap.wrap(f'"""{" ".join(text.split())}', width=100), '"""']
    return textwrap.indent("\n".join(lines), "    ")


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in words.split("_"))


def _formatted(source: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "made.py", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
