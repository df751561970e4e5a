"""Our models and requests against pynamodb's own: what is stored, asked and read is the same."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pynamodb import attributes as theirs
from pynamodb.attributes import ListAttribute
from pynamodb.exceptions import AttributeNullError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from minichat.storage.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.models import LeanModel, key_request, put_request, update_request


class _Here:
    table_name = "some table"
    region = "eu-central-1"


class TheirItem(Model):
    class Meta(_Here):
        pass

    pk = theirs.UnicodeAttribute(hash_key=True)
    sk = theirs.UnicodeAttribute(range_key=True)
    text = theirs.UnicodeAttribute()
    number = theirs.NumberAttribute(attr_name="n", null=True)
    is_so = theirs.BooleanAttribute(attr_name="so", null=True)
    packed = theirs.BinaryAttribute(attr_name="zip", null=True, legacy_encoding=False)
    beside = theirs.UnicodeAttribute(null=True)


class OurItem(LeanModel):
    class Meta(_Here):
        pass

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    text = UnicodeAttribute()
    number = NumberAttribute(attr_name="n", null=True)
    is_so = BooleanAttribute(attr_name="so", null=True)
    packed = BinaryAttribute(attr_name="zip", null=True, legacy_encoding=False)
    beside = UnicodeAttribute(null=True)


ITEMS: list[dict[str, Any]] = [
    {"text": ""},
    {"text": "Grüße", "number": 0, "is_so": False, "packed": b"\x00\xff", "beside": None},
    {"text": "x", "number": -(10**30), "is_so": True},
    {"text": "x", "number": 0.1, "beside": "y"},
]
CONDITIONS: list[Callable[[Any], Condition]] = [
    lambda item: item.pk.does_not_exist(),
    lambda item: item.pk.exists() & (item.number <= 5) & item.beside.does_not_exist(),
    lambda item: (item.number.does_not_exist() | (item.number == 7)) & (item.text != "x") & item.is_so.exists(),
    lambda item: item.number.between(1, 2.5) & item.text.is_in("a", "b") & ~item.text.startswith("c"),
    lambda _: (Path("21t") <= 3) | Path(["inner", "part"]).exists() | (Path("list[2]") == "x"),
]
ACTIONS: list[Callable[[Any], list[Action]]] = [
    lambda item: [item.text.set("Grüße")],
    lambda item: [item.number.add(-3), item.text.set("a"), item.beside.remove(), item.is_so.set(False)],
    lambda item: [item.number.set(item.number + 1), item.text.set(item.beside | "none"), Path("21t").add(4)],
    lambda item: [item.beside.set(None), item.packed.set(b"\x00")],
]


def as_pynamodb_sends(add: Callable[[TransactWrite], object]) -> str:
    """The request that pynamodb makes of one write."""
    transaction = TransactWrite(connection=TheirItem._get_connection().connection)
    add(transaction)
    lists = (transaction._condition_check_items, transaction._delete_items)
    (request,) = [*lists[0], *lists[1], *transaction._put_items, *transaction._update_items]
    return written(request)


def written(request: dict[str, Any]) -> str:
    """A request as text: the order of its members counts."""
    return json.dumps(request, default=repr)


@pytest.mark.parametrize("values", ITEMS)
@pytest.mark.parametrize("condition", [None, *CONDITIONS])
def test_an_item_is_stored_as_pynamodb_stores_it(
    values: dict[str, Any], condition: Callable[[Any], Condition] | None
) -> None:
    of_theirs = None if condition is None else condition(TheirItem)
    of_ours = None if condition is None else condition(OurItem)
    item = TheirItem("p", "s", **values)
    asked = as_pynamodb_sends(lambda to: to.save(item, condition=of_theirs, return_values="ALL_OLD"))
    assert written(put_request(OurItem("p", "s", **values), of_ours)) == asked


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("condition", [None, *CONDITIONS])
def test_an_item_is_changed_as_pynamodb_changes_it(
    actions: Callable[[Any], list[Action]], condition: Callable[[Any], Condition] | None
) -> None:
    of_theirs = None if condition is None else condition(TheirItem)
    of_ours = None if condition is None else condition(OurItem)
    item = TheirItem("p", "s")
    asked = as_pynamodb_sends(lambda to: to.update(item, actions(TheirItem), of_theirs, return_values="ALL_OLD"))
    assert written(update_request(OurItem("p", "s"), actions(OurItem), of_ours)) == asked


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_item_is_deleted_and_checked_as_by_pynamodb(condition: Callable[[Any], Condition]) -> None:
    made = written(key_request(OurItem("p", "s"), condition(OurItem)))
    assert made == as_pynamodb_sends(lambda to: to.delete(TheirItem("p", "s"), condition=condition(TheirItem)))
    assert made == as_pynamodb_sends(lambda to: to.condition_check(TheirItem, "p", "s", condition(TheirItem)))


@pytest.mark.parametrize("values", ITEMS)
def test_an_item_is_read_as_pynamodb_reads_it(values: dict[str, Any]) -> None:
    stored = TheirItem("p", "s", **values).serialize()
    stored |= {"unknown": {"S": "of another version"}, "beside": {"NULL": True}}
    ours, theirs_ = OurItem.from_raw_data(dict(stored)), TheirItem.from_raw_data(dict(stored))
    assert ours.attribute_values == theirs_.attribute_values
    assert ours.serialize() == theirs_.serialize()


def test_an_item_without_a_needed_attribute_is_not_stored() -> None:
    with pytest.raises(AttributeNullError, match="text"):
        put_request(OurItem("p", "s"), None)


def test_an_item_has_no_attributes_that_its_class_does_not_have() -> None:
    with pytest.raises(ValueError, match="spelled"):
        OurItem("p", "s", spelled="wrong")


def test_a_class_with_more_than_single_values_is_refused_when_it_is_first_used() -> None:
    class WithList(OurItem):
        several: ListAttribute[Any] = ListAttribute(null=True)

    class WithDefault(OurItem):
        usual = UnicodeAttribute(default="as always")

    for model in (WithList, WithDefault):
        with pytest.raises(TypeError, match="more than a lean model knows"):
            model("p", "s", text="x").serialize()
