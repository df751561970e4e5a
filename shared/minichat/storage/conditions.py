"""Building blocks of write conditions. Each clause is named where it is written, beside its reason.

Most include `is_there`: an update creates a missing item.
"""

from functools import reduce
from operator import and_, or_
from typing import Any

from pynamodb.attributes import Attribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path


def all_of(*clauses: Condition) -> Condition:
    """The condition that every one of these holds."""
    return reduce(and_, clauses)


def any_of(*clauses: Condition) -> Condition:
    """The condition that at least one of these holds."""
    return reduce(or_, clauses)


def is_still(attribute: Attribute[Any], seen: object) -> Condition:
    """The condition that an attribute is as it was seen; None means it was absent."""
    condition: Condition = attribute.does_not_exist() if seen is None else attribute == seen
    return condition


def still_counts(number: Attribute[float] | Path, seen: int) -> Condition:
    """The condition that a sum is as it was seen; an absent sum counts as zero."""
    return any_of(number == seen, *([] if seen else [number.does_not_exist()]))


def at_most(number: Attribute[Any] | Path, bound: object) -> Condition:
    """The condition that a number, or an instant, is not above a bound; an absent one is not."""
    return any_of(number.does_not_exist(), number <= bound)
