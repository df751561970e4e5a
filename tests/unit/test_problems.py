"""The table of problems is total: every refusal has its status, and every row of the contract its class."""

import json

import pytest
from starlette.requests import Request

from minichat.domain import errors
from minichat.http.problems import STATUS, of_error

# contract 2, as far as its operations exist; forbidden and feature_not_licensed share 403.
CONTRACT = {
    "invalid_request": 400,
    "invalid_cursor": 400,
    "invalid_turn_state": 400,
    "invalid_model": 400,
    "web_search_disabled": 400,
    "images_disabled": 400,
    "too_many_images": 400,
    "invalid_reaction_target": 400,
    "invalid_attachment": 400,
    "input_too_long": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "feature_not_licensed": 403,
    "being_erased": 403,
    "erasure_not_found": 404,
    "export_not_found": 404,
    "export_running": 409,
    "erasure_running": 409,
    "chat_not_found": 404,
    "turn_not_found": 404,
    "model_not_found": 404,
    "attachment_not_found": 404,
    "message_not_found": 404,
    "api_key_not_found": 404,
    "tenant_not_found": 404,
    "policy_not_found": 404,
    "providers_not_found": 404,
    "queue_not_found": 404,
    "policy_conflict": 409,
    "providers_conflict": 409,
    "grant_not_found": 404,
    "invalid_authorization": 400,
    "authorization_conflict": 409,
    "rate_limited": 429,
    "generation_in_progress": 409,
    "request_id_conflict": 409,
    "not_latest_turn": 409,
    "attachment_locked": 409,
    "idempotency_key_conflict": 409,
    "file_too_large": 413,
    "unsupported_file_type": 415,
    "unsupported_media": 415,
    "request_id_reused": 422,
    "context_budget_exceeded": 422,
    "quota_exceeded": 429,
    "service_unavailable": 503,
}


def _all(error: type[errors.ChatError]) -> set[type[errors.ChatError]]:
    return {error}.union(*(_all(child) for child in error.__subclasses__()))


def test_every_error_has_its_status() -> None:
    assert set(STATUS) == _all(errors.ChatError) - {errors.ChatError}


@pytest.mark.holds("contract.codes")
def test_codes_and_statuses_are_the_contracts() -> None:
    assert {(error.code, status) for error, status in STATUS.items()} == {*CONTRACT.items()}


def test_no_message_says_anything_internal() -> None:
    for error in STATUS:
        assert error.detail.endswith(".")
        assert not any(word in error.detail.lower() for word in ("dynamodb", "transaction", "exception", "openai"))


def test_what_may_be_tried_again_is_told_so_after_a_second_unless_it_says_longer() -> None:
    assert (errors.ServiceUnavailable().retry_after_seconds, errors.ServiceUnavailable(7).retry_after_seconds) == (1, 7)


def test_how_long_to_wait_is_told_in_the_document_and_the_header_or_in_neither() -> None:
    scope = {"type": "http", "path": "/chats", "headers": [], "query_string": b"", "state": {"trace_id": "t"}}
    later = of_error(Request(scope), errors.ServiceUnavailable(7))
    assert (json.loads(bytes(later.body))["retry_after_seconds"], later.headers["retry-after"]) == (7, "7")
    never = of_error(Request(scope), errors.ChatNotFound())
    assert "retry_after_seconds" not in json.loads(bytes(never.body))
    assert "retry-after" not in never.headers
