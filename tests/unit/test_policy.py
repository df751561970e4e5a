"""A policy in a deployment: what models inherit, when they come, and what a policy may not ask for."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from minichat.domain.errors import ModelNotFound
from minichat.domain.policy import Deployment, EstimationBudgets, LimitsByUser, Model, Policy
from minichat.http.response_models import model_view
from minichat.settings import Settings
from tests.support.domain.builders import NOW, a_model, a_policy, some_limits

ENDPOINTS = Settings().endpoints


def deployed(policy: Policy, now: datetime = NOW, **said: Any) -> Policy:
    values: dict[str, Any] = {
        "budgets": EstimationBudgets(),
        "web_search_context_size": "low",
        "max_input_tokens": None,
    }
    return policy.in_deployment(Deployment(**(values | said)), now)


@pytest.mark.holds("turns.inherit")
def test_a_model_inherits_what_it_does_not_say() -> None:
    policy = a_policy(
        a_model(id="own", estimation_budgets={"bytes_per_token": 3}, web_search_context_size="high"), a_model(id="none")
    )
    counts = deployed(
        policy,
        budgets=EstimationBudgets(bytes_per_token=2, fixed_overhead=7),
        web_search_context_size="medium",
    )
    own, none = counts.model("own"), counts.model("none")
    assert (own.estimation_budgets.bytes_per_token, own.estimation_budgets.fixed_overhead) == (3, 7)
    assert (none.estimation_budgets.bytes_per_token, none.estimation_budgets.fixed_overhead) == (2, 7)
    assert (own.web_search_context_size, none.web_search_context_size) == ("high", "medium")


@pytest.mark.parametrize(("most", "expected"), [(None, 50_000), (10_000, 10_000), (90_000, 50_000)])
def test_a_deployment_may_take_less_input_than_a_model(most: int | None, expected: int) -> None:
    assert deployed(a_policy(a_model()), max_input_tokens=most).model("small").max_input_tokens == expected


@pytest.mark.holds("turns.available-from")
def test_a_model_cannot_be_chosen_before_its_day() -> None:
    policy = a_policy(a_model(), a_model(id="next", general_config={"available_from": NOW.isoformat()}))
    assert deployed(policy, NOW).model("next").id == "next"
    with pytest.raises(ModelNotFound):
        deployed(policy, NOW - timedelta(seconds=1)).model("next")


def test_a_day_without_a_zone_begins_in_utc() -> None:
    model = a_model(general_config={"available_from": "2030-01-31"})
    assert model.general_config.available_from == datetime(2030, 1, 31, tzinfo=UTC)


def test_the_names_of_older_files_load_and_a_name_given_twice_does_not() -> None:
    older = {
        "bytes_per_token_conservative": 3,
        "fixed_overhead_tokens": 1,
        "tool_surcharge_tokens": 2,
        "web_search_surcharge_tokens": 4,
        "code_interpreter_surcharge_tokens": 5,
    }
    budgets = EstimationBudgets.model_validate(older)
    assert budgets == EstimationBudgets(
        bytes_per_token=3, fixed_overhead=1, tool_surcharge=2, web_search_surcharge=4, code_interpreter_surcharge=5
    )
    assert EstimationBudgets.model_validate_json(budgets.model_dump_json()) == budgets
    with pytest.raises(ValidationError):
        EstimationBudgets.model_validate({"fixed_overhead": 1, "fixed_overhead_tokens": 1})


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"tool_support": {"image_generation": True}}, "tool_support.image_generation"),
        ({"tool_support": {"mcp": True}}, "tool_support.mcp"),
        ({"features": {"streaming": False}}, "features.streaming"),
        ({"supported_endpoints": ["chat_completions"]}, "supported_endpoints"),
        ({"supported_endpoints": {"responses": False, "embeddings": True}}, "supported_endpoints"),
    ],
)
@pytest.mark.holds("turns.unusable")
def test_what_no_answer_can_use_is_refused_with_its_path(said: dict[str, Any], path: str) -> None:
    policy = a_policy(a_model(), a_model(id="other", general_config=said))
    with pytest.raises(ValueError, match=f"^model_catalog.1.general_config.{path}: "):
        policy.served_by(ENDPOINTS)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"features": {"streaming": True, "structured_output": True, "vision": True}},
        {"tool_support": {"image_generation": False, "mcp": False, "web_search": True}},
        {"supported_endpoints": []},
        {"supported_endpoints": ["responses", "chat_completions"]},
        {"supported_endpoints": {"responses": True, "embeddings": False}},
    ],
)
def test_what_a_model_merely_has_besides_is_taken(said: dict[str, Any]) -> None:
    policy = a_policy(a_model(general_config=said))
    assert policy.served_by(ENDPOINTS) is policy
    assert Policy.model_validate_json(policy.model_dump_json(exclude_unset=True)) == policy


@pytest.mark.parametrize("name", ["id", "provider_model_id", "provider_id", "display_name"])
def test_what_a_model_is_called_by_is_never_empty(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        a_model(**{name: ""})


def test_the_smallest_policy_is_one_and_nothing_of_it_can_be_less() -> None:
    ones = {name: 1 for name, field in Model.model_fields.items() if field.annotation is int} | {"max_tool_calls": 0}
    letters = dict.fromkeys(("id", "provider_model_id", "provider_id", "display_name"), "x")
    budgets = dict.fromkeys(EstimationBudgets.model_fields, 0) | {"bytes_per_token": 1}
    smallest = a_policy(
        a_model(**ones, **letters, estimation_budgets=budgets, general_config={"max_file_size_mb": 1}),
        user_limits=LimitsByUser(default=some_limits(total=0, premium=0)),
    )
    assert Policy.model_validate_json(smallest.model_dump_json(exclude_unset=True)) == smallest
    for name, least in ones.items():
        with pytest.raises(ValidationError, match=name):
            a_model(**{name: least - 1})
    for name, least in budgets.items():
        with pytest.raises(ValidationError, match=name):
            EstimationBudgets.model_validate({name: least - 1})
    with pytest.raises(ValidationError, match="max_file_size_mb"):
        a_model(general_config={"max_file_size_mb": 0})
    for name, less in (("policy_version", 0), ("model_catalog", ())):
        with pytest.raises(ValidationError, match=name):
            Policy.model_validate(smallest.model_dump() | {name: less})
    with pytest.raises(ValidationError, match="limit_daily_credits_micro"):
        some_limits(total=-1)


def test_an_icon_is_shown_and_nothing_of_the_provider() -> None:
    shown = model_view(a_model(icon="https://icons.example/small.svg")).model_dump(mode="json")
    assert shown["icon"] == "https://icons.example/small.svg"
    assert "icon" not in model_view(a_model()).model_dump()
    assert "small-1" not in json.dumps(shown)
