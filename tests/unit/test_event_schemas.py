"""What consumers of others are promised: schemas that are those of the models, and events that are as they say."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from pydantic import TypeAdapter

from minichat.events.base import Event, Queue
from minichat.events.payloads import ChatDeleted, whole
from minichat.local.event_schemas import EXAMPLES, FOLDER, QUEUES, documents

ROOT = Path(__file__).parents[2]
EVENTS = [(queue, event) for queue, events in EXAMPLES.items() for event in events]


def schema(queue: str) -> dict[str, Any]:
    """The schema as it is published."""
    read: dict[str, Any] = json.loads((ROOT / FOLDER / f"{queue}.schema.json").read_text())
    return read


def test_published_schemas_are_those_of_the_models() -> None:
    assert {path.name: path.read_text() for path in (ROOT / FOLDER).glob("*.schema.json")} == documents(), (
        "stale: run `make docs`"
    )


def test_every_queue_has_a_schema_and_every_event_an_example() -> None:
    assert set(QUEUES) == set(get_args(Queue))
    for queue in QUEUES:
        Draft202012Validator.check_schema(schema(queue))
    kinds = {kind for model in _models() for kind in _kinds(model)}
    assert {event.event_type for _, event in EVENTS} == kinds


def _models() -> list[type[Event]]:
    found, left = [], [Event]
    while left:
        subclasses = left.pop().__subclasses__()
        left += subclasses
        found += [model for model in subclasses if "event_type" in model.__annotations__]
    return found


def _kinds(model: type[Event]) -> tuple[str, ...]:
    kinds: tuple[str, ...] = get_args(model.model_fields["event_type"].annotation)
    return kinds


@pytest.mark.parametrize(("queue", "event"), EVENTS, ids=[event.event_type for _, event in EVENTS])
def test_an_event_is_as_its_schema_says_and_comes_back_whole(queue: str, event: Event) -> None:
    assert event.queue == queue
    validator = Draft202012Validator(schema(queue))
    body = json.loads(event.payload())
    validator.validate(body)
    assert TypeAdapter(QUEUES[queue]).validate_python(body) == event
    # Additions are allowed; what is required is required.
    validator.validate(body | {"added_later": [1]})
    for name in body:
        with pytest.raises(ValidationError):
            validator.validate({key: value for key, value in body.items() if key != name})


@pytest.mark.parametrize(("queue", "event"), EVENTS, ids=[event.event_type for _, event in EVENTS])
def test_an_event_leaves_with_every_member_that_its_outbox_item_left_out(queue: str, event: Event) -> None:
    del queue
    left = whole(event.event_type, event.stored())
    assert json.loads(left) == json.loads(event.payload())
    assert type(event).model_fields.keys() <= json.loads(left).keys()


def test_what_another_version_stored_leaves_with_all_that_it_says() -> None:
    event, *_ = EXAMPLES["chat-cleanup"]
    newer = json.loads(event.stored()) | {"added_later": {"deep": [{"a": None}]}}
    assert json.loads(whole(event.event_type, json.dumps(newer))) == newer | {"reason": "chat_soft_delete"}
    for unread in (
        ("invented_tomorrow", '{"event_type":"invented_tomorrow"}'),
        (event.event_type, "{"),
        (event.event_type, "{}"),
        (event.event_type, '{"a":' * 5000 + "1" + "}" * 5000),
    ):
        assert whole(*unread) == unread[1]


@given(st.text(st.characters(codec="utf-8")))
def test_no_text_makes_a_body_that_sqs_refuses(text: str) -> None:
    event = ChatDeleted(
        tenant_id="t", timestamp=datetime.now(UTC), requester_type="user", chat_id="c", actor_user_id=text
    )
    body = event.payload()
    assert all(c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" for c in body)
    assert json.loads(body)["actor_user_id"] == text
