"""pynamodb's models, and the requests of a transaction, without what pynamodb works out anew for each item.

Which attributes a class has, and how they are called and stored, does not change while a process lives: it is worked
out once for each class. What is sent is byte for byte what pynamodb sends (`tests/unit/test_models.py` compares them);
it takes a seventh of the calls of a send away (docs/decisions/0031-cpu-of-a-send.md).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Self

from pynamodb.attributes import Attribute, ListAttribute, MapAttribute, VersionAttribute
from pynamodb.exceptions import AttributeNullError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path, Value
from pynamodb.expressions.update import Action, AddAction, DeleteAction, RemoveAction, SetAction
from pynamodb.expressions.util import substitute_names
from pynamodb.models import Model

_CLAUSES: dict[type[Action], str] = {SetAction: "SET", RemoveAction: "REMOVE", AddAction: "ADD", DeleteAction: "DELETE"}


class LeanModel(Model):
    """A model whose attributes are single values without defaults, as all of ours are."""

    def __init__(
        self, hash_key: Any = None, range_key: Any = None, _user_instantiated: bool = True, **attributes: Any
    ) -> None:
        if hash_key is not None:
            attributes[str(self._hash_keyname)] = hash_key
        if range_key is not None:
            attributes[str(self._range_keyname)] = range_key
        if unknown := attributes.keys() - self.get_attributes().keys():
            raise ValueError(f"{type(self).__name__} has no {', '.join(unknown)}")
        self.attribute_values = attributes

    @classmethod
    def from_raw_data(cls, data: dict[str, Any]) -> Self:
        """The item that was read."""
        item = cls()
        item._container_deserialize(data)
        return item

    def _container_serialize(self, null_check: bool = True) -> dict[str, dict[str, Any]]:
        values, stored = self.attribute_values, {}
        for name, stored_name, kind, attribute in _attributes(type(self)):
            if (value := values.get(name)) is not None:
                stored[stored_name] = {kind: attribute.serialize(value)}
            elif null_check and not attribute.null:
                raise AttributeNullError(name)
        return stored

    def _container_deserialize(self, attribute_values: dict[str, dict[str, Any]]) -> None:
        known, values = _by_stored_name(type(self)), {}
        for stored_name, stored in attribute_values.items():
            if stored_name in known and stored and "NULL" not in stored:
                name, attribute = known[stored_name]
                values[name] = attribute.deserialize(attribute.get_value(stored))
        self.attribute_values = values


@cache
def _attributes(model: type[Model]) -> list[tuple[str, str, str, Attribute[Any]]]:
    """The attributes of a class, its keys first: names, stored names, and types. One entry for each class of items."""
    found = model.get_attributes()
    for name, attribute in found.items():
        has_default = attribute.default is not None or attribute.default_for_new is not None
        if has_default or isinstance(attribute, ListAttribute | MapAttribute | VersionAttribute):
            raise TypeError(f"{model.__name__}.{name}: {type(attribute).__name__} is more than a lean model knows")
    keys_first = sorted(found, key=lambda name: not (found[name].is_hash_key or found[name].is_range_key))
    return [(name, found[name].attr_name, found[name].attr_type, found[name]) for name in keys_first]


@cache
def _by_stored_name(model: type[Model]) -> dict[str, tuple[str, Attribute[Any]]]:
    return {stored_name: (name, attribute) for name, stored_name, _, attribute in _attributes(model)}


def put_request(item: LeanModel, condition: Condition | None) -> dict[str, Any]:
    """`Put` of a TransactWriteItems: it stores the item, and a refusal tells the old one."""
    return _request(item, {"Item": item.serialize(null_check=True)}, condition, tells_old=True)


def update_request(item: LeanModel, actions: Sequence[Action], condition: Condition | None) -> dict[str, Any]:
    """`Update` of a TransactWriteItems: it changes the item with this one's key, and a refusal tells the old one."""
    return _request(item, _key(item), condition, actions, tells_old=True)


def key_request(item: LeanModel, condition: Condition) -> dict[str, Any]:
    """`Delete` or `ConditionCheck` of a TransactWriteItems: nothing but a key and a condition."""
    return _request(item, _key(item), condition)


def _key(item: LeanModel) -> dict[str, Any]:
    pk, sk = _attributes(type(item))[:2]
    return {"Key": {name: {kind: item.attribute_values[member]} for member, name, kind, _ in (pk, sk)}}


def _request(
    item: LeanModel,
    what: dict[str, Any],
    condition: Condition | None,
    actions: Sequence[Action] = (),
    *,
    tells_old: bool = False,
) -> dict[str, Any]:
    names, values = dict[str, str](), dict[str, Any]()
    request = {"TableName": item.Meta.table_name, **what}
    if condition is not None:
        request["ConditionExpression"] = _written(condition, names, values)
    if tells_old:
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if actions:
        request["UpdateExpression"] = " ".join(_clauses(actions, names, values))
    if names:
        request["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in names.items()}
    if values:
        request["ExpressionAttributeValues"] = values
    return request


def _clauses(actions: Sequence[Action], names: dict[str, str], values: dict[str, Any]) -> list[str]:
    of_kind: dict[str, list[Action]] = {keyword: [] for keyword in _CLAUSES.values()}
    for action in actions:
        of_kind[_CLAUSES[type(action)]].append(action)
    return [
        f"{keyword} {', '.join([_written(action, names, values) for action in found])}"
        for keyword, found in of_kind.items()
        if found
    ]


def _written(part: Any, names: dict[str, str], values: dict[str, Any]) -> str:
    """A condition, an action or an operand, with placeholders, which are added to the names and values."""
    kind = type(part)
    if kind is Value:
        placeholder = f":{len(values)}"
        values[placeholder] = part.value
        return placeholder
    if kind is Path:
        name = part.path[0]
        if len(part.path) > 1 or "[" in name:
            return str(substitute_names(part.path, names))
        return names.setdefault(name, f"#{len(names)}")
    inner = [_written(value, names, values) for value in part.values]
    return str(part.format_string.format(*inner, operator=getattr(part, "operator", None)))
