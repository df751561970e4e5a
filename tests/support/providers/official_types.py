"""Examples of what a provider may send, made of its own package's types, and a record of which of it was read.

A path names a place in an example: `choices[].delta.content`; where a list may hold several kinds of things, one of
each is there, and the path names it: `output[message].content[refusal].refusal`.
"""

import types
from collections.abc import Container, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from botocore.model import ListShape, Shape, StringShape, StructureShape
from pydantic import BaseModel

Reasons = dict[str, tuple[str, ...]]
"""What is left out, by the reason why."""

NOT_ASKED = "no request of ours asks for it"
REPEATED = "repeats what was told before"
THINKING = "what a model thinks is not what it says"
PROGRESS = "a tool goes on; its start and its end are told"
ABOUT_THE_REQUEST = "says again what was asked"
ABOUT_THE_CALL = "for operators of the provider"
IDENTIFIES = "identifies, orders or names what is known by its event"
SUMMED = "a part of a number that is read, or their sum"
PAID_ELSEWHERE = "the provider's bill; searches are counted by their events"
NOT_TEXT = "no text, usage, end or failure"

SCALARS: dict[Any, Any] = {str: "text", int: 1, float: 1.5, bool: True}


class Seen(dict[str, Any]):
    """An object that notes which of its members somebody asked for."""

    def __init__(self, path: str, members: dict[str, Any], read: set[str]) -> None:
        super().__init__(members)
        self.path = path
        self._read = read

    def get(self, key: str, default: Any = None) -> Any:
        """The member, whose path is noted."""
        self._read.add(f"{self.path}.{key}")
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._read.add(f"{self.path}.{key}")
        return super().__getitem__(key)


class Examples:
    """Makes examples; places in `left_out` are not entered. `made` are the paths of everything else, leaf by leaf."""

    def __init__(self, left_out: Container[str]) -> None:
        self._left_out = left_out
        self.made: set[str] = set()
        self.passed_over: set[str] = set()
        self.read: set[str] = set()

    def of(self, annotation: Any, path: str) -> Any:
        """An example of a type of Python's, as pydantic models use them."""
        if path in self._left_out:
            self.passed_over.add(path)
            return {}
        annotation = _plain(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = annotation.model_fields.items()
            return Seen(path, {name: self.of(field.annotation, f"{path}.{name}") for name, field in fields}, self.read)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is list:
            return [self.of(one, f"{path}[{kind}]") for kind, one in _variants(arguments[0])]
        if origin in (Union, types.UnionType):
            return self.of(next(_alternatives(annotation)), path)
        self.made.add(path)
        return arguments[0] if origin is Literal else SCALARS.get(annotation, "text")

    def each(self, path: str, model: type[BaseModel], changing: str | None) -> Iterator[Seen]:
        """Examples of a model, one for each kind of thing that the changing one of its fields may hold."""
        types = {name: field.annotation for name, field in model.model_fields.items()}
        variants = list(_variants(types.pop(changing))) if changing else []
        fixed = {name: self.of(annotation, f"{path}.{name}") for name, annotation in types.items()}
        for kind, one in variants:
            yield Seen(path, fixed | {str(changing): self.of(one, f"{path}.{changing}[{kind}]")}, self.read)
        if not variants:
            yield Seen(path, fixed, self.read)

    def of_shape(self, shape: Shape, path: str) -> Any:
        """An example of a shape of botocore's; of a union every member is there."""
        if path in self._left_out:
            self.passed_over.add(path)
            return {}
        if isinstance(shape, StructureShape) and shape.members:
            members = {name: self.of_shape(member, f"{path}.{name}") for name, member in shape.members.items()}
            return Seen(path, members, self.read)
        if isinstance(shape, ListShape):
            return [self.of_shape(shape.member, f"{path}[]")]
        self.made.add(path)
        if isinstance(shape, StringShape):
            return shape.enum[0] if shape.enum else "text"
        return 1

    @property
    def unread(self) -> set[str]:
        """Places that hold something and that nobody asked for."""
        return self.made - self.read


def literals(annotation: Any) -> set[str]:
    """The words that a type allows."""
    return {word for one in _alternatives(annotation) if get_origin(one) is Literal for word in get_args(one)}


def kinds(union: Any) -> dict[str, type[BaseModel]]:
    """The models of a union by their `type`."""
    return dict(_variants(union))


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _alternatives(annotation: Any) -> Iterator[Any]:
    """What a type may be, but for nothing."""
    annotation = _plain(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _alternatives(one)
    elif annotation is not type(None):
        yield annotation


def _variants(annotation: Any) -> Iterator[tuple[str, Any]]:
    """The models that a type may be, by their `type`; a type that is but one thing has no name."""
    found = list(_alternatives(annotation))
    if len(found) == 1 and "type" not in getattr(found[0], "model_fields", {}):
        yield "", found[0]
        return
    for one in found:
        if isinstance(one, type) and issubclass(one, BaseModel):
            for kind in literals(one.model_fields["type"].annotation):
                yield kind, one


def accounted(offered: set[str], read: set[str], left_out: Reasons) -> None:
    """Everything that is offered is read or left out, and nothing is both or neither there."""
    passed_over = {name for names in left_out.values() for name in names}
    assert offered - read - passed_over == set(), "neither read nor left out"
    assert passed_over - offered == set(), "left out, and no longer there"
    assert passed_over & read == set(), "left out, and read all the same"


def places(left_out: Reasons) -> set[str]:
    return {place for found in left_out.values() for place in found}


def entirely(examples: Examples, left_out: Reasons) -> None:
    """Everything that the examples hold was read, but for what is left out."""
    assert examples.unread == set(), "neither read nor left out"
    assert places(left_out) - examples.passed_over == set(), "left out, and no longer there"


def merged(*all_reasons: Reasons) -> Reasons:
    together: Reasons = {}
    for reasons in all_reasons:
        for why, what in reasons.items():
            together[why] = together.get(why, ()) + what
    return together
