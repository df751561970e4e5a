"""What schemathesis is told of this API: which texts are filters, and which refusals of valid requests are fair.

A request that the document allows may still be refused for what is stored or configured: such refusals have words of
their own. `invalid_request` is what the document forbids, and nothing else.
"""

import json
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import Failure

from minichat.domain.text import is_blank
from tests.fuzz.aim import Aim

OF_STATE = {"unknown", "too_large", "expired", "files_unavailable", "code_interpreter_unavailable"}
"""Codes of fields that are wrong for what is stored: an event that a stream has not, a model that takes no files."""

OF_OTHERS = {"span"}
"""Codes of fields that are wrong for what another one says, which a document cannot express."""

_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(
    lambda text: "'" + text.replace("'", "''") + "'"
)
_INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(
    lambda instant: instant.isoformat()
)
_IDS = st.uuids().map(str)
_COMPARISONS, _EQUALITY = ("eq", "ne", "gt", "ge", "lt", "le"), ("eq", "ne")


def _compared(field: str, ops: tuple[str, ...], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda op, value: f"{field} {op} {value}", st.sampled_from(ops), values)


def _among(field: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, min_size=1, max_size=3).map(lambda some: f"{field} in ({','.join(some)})")


def _joined(terms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        terms.map(lambda term: f"not ({term})"),
        st.builds(lambda one, word, other: f"({one} {word} {other})", terms, st.sampled_from(("and", "or")), terms),
    )


def _filters(instant: str, text: str, *others: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    terms = st.one_of(
        _compared(instant, _COMPARISONS, _INSTANTS),
        _compared(text, _EQUALITY, _TEXTS),
        _among(text, _TEXTS),
        _compared("id", _EQUALITY, _IDS),
        _among("id", _IDS),
        *others,
    )
    return st.recursive(terms, _joined, max_leaves=4)


_FUNCTIONS = st.builds(
    lambda name, text: f"{name}(title,{text})", st.sampled_from(("contains", "startswith", "endswith")), _TEXTS
)
schemathesis.openapi.format("filter-of-chats", _filters("updated_at", "title", _FUNCTIONS))
schemathesis.openapi.format(
    "visible-text", st.text(st.characters(codec="utf-8")).filter(lambda text: not is_blank(text))
)
schemathesis.openapi.format("filter-of-messages", _filters("created_at", "role"))
_aim = Aim.given()


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Describes streams as schemathesis reads them: event by event, the data of each a text that has JSON."""
    del context
    schemas = raw_schema["components"]["schemas"]
    names = raw_schema["components"]["schemas"]["StreamEvent"]["discriminator"]["mapping"].values()
    stream = {"schema": {"oneOf": [_as_it_came(schemas[ref.rpartition("/")[2]]) for ref in names]}}
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                if "text/event-stream" in response.get("content", {}):
                    response["content"]["text/event-stream"] = stream


def _as_it_came(event: dict[str, Any]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": event["properties"]["data"]}
    return {**event, "properties": {**event["properties"], "data": data}}


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Aims the request at what is there, where the run does so."""
    del ctx, kwargs
    if _aim is not None and case.path_parameters:
        case.path_parameters |= _aim.at(case.path_parameters)


@schemathesis.check
def what_the_document_allows_is_valid(ctx: Any, response: Any, case: Any) -> None:
    """A request that the document allows is never `invalid_request`."""
    del ctx
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    problem = json.loads(response.content)
    wrong = {error["code"] for error in problem.get("errors", ())}
    if problem["code"] == "invalid_request" and not (wrong and wrong <= OF_STATE | OF_OTHERS):
        raise Failure(operation=case.operation.label, title="Refused, though allowed", message=problem["detail"])
