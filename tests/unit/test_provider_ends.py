"""How answers end, whichever API tells it: by which words, who refused, and what was used until then."""

import json
import logging
from typing import Any

import pytest

from minichat.domain.usage import Usage
from minichat.local.dialects.bedrock import frame
from minichat.providers import anthropic_messages, bedrock_converse, openai_chat
from minichat.providers.chunks import Completed, Failed, ProviderChunk, TextDelta
from minichat.providers.finish_reasons import Ends
from tests.support.providers.tongues import TONGUES, USED, Tongue, case, converse, event, read


@pytest.fixture(params=TONGUES, ids=lambda tongue: tongue.kind)
def tongue(request: pytest.FixtureRequest) -> Tongue:
    found: Tongue = request.param
    return found


def test_an_end_that_is_a_failure_is_one_in_the_prepared_answer() -> None:
    told, last = case("an-end-that-is-a-failure.chat.sse")
    assert told == TextDelta("Half an ans")
    assert isinstance(last, Failed)
    assert last.code == "provider_error"


def chat_that_ends(reason: Any, *, usage: bool = True) -> list[ProviderChunk]:
    choice = {"index": 0, "delta": {"content": "Half"}, "finish_reason": reason}
    counted = event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}) if usage else b""
    return read(openai_chat.reader(), event({"choices": [choice]}), counted, event("[DONE]"))


@pytest.mark.parametrize("reason", ["error", "ERROR", "abort", "insufficient_system_resource", "network_error"])
def test_a_failure_as_the_reason_of_an_end_has_its_usage(reason: str) -> None:
    last = chat_that_ends(reason)[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.usage, last.refused) == ("provider_error", USED, False)


@pytest.mark.parametrize("reason", [None, "", 0])
def test_a_reason_that_says_nothing_is_none(reason: Any) -> None:
    assert isinstance(chat_that_ends(reason)[-1], Failed)


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos", "eos_token"])
def test_the_good_ends_are_known_by_their_names(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(chat_that_ends(reason)[-1], Completed)
    assert not caplog.records


def test_an_end_that_nobody_knows_is_a_good_one_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    invented = "invented_tomorrow"
    ends = [
        chat_that_ends(invented),
        read(
            anthropic_messages.reader(),
            event({"type": "message_delta", "delta": {"stop_reason": invented}}),
            event({"type": "message_stop"}),
        ),
        read(bedrock_converse.reader(), converse("messageStop", stopReason=invented)),
    ]
    with caplog.at_level(logging.WARNING):
        assert [type(chunks[-1]) for chunks in ends] == [Completed] * 3
    assert [vars(record)["reason"] for record in caplog.records] == [invented] * 3


def test_an_unknown_end_reaches_the_log_without_keys(caplog: pytest.LogCaptureFixture) -> None:
    chat_that_ends("sk-proj-0123456789abcdef " + "x" * 500)
    (record,) = caplog.records
    assert "0123456789abcdef" not in vars(record)["reason"]
    assert len(vars(record)["reason"]) <= 200


def test_who_says_no_before_the_first_event_refuses_and_who_has_begun_breaks_off(tongue: Tongue) -> None:
    pings = () if tongue.kind == "bedrock_converse" else (event({"type": "ping"}, "ping"), b": nothing\n\n")
    (first,) = read(tongue.reader(), *pings, tongue.failure)
    assert isinstance(first, Failed)
    assert (first.refused, first.reached) == (True, True)
    *_, later = read(tongue.reader(), tongue.text("a"), tongue.failure)
    assert isinstance(later, Failed)
    assert (later.refused, later.reached) == (False, True)
    (silent,) = read(tongue.reader())
    assert isinstance(silent, Failed)
    assert not silent.refused


def test_a_document_that_says_no_is_a_refusal() -> None:
    said: dict[str, dict[str, Any]] = {
        "openai_responses": {"error": {"code": "rate_limit_exceeded", "message": "Slow down."}},
        "openai_chat": {"error": {"code": "rate_limit_exceeded", "message": "Slow down."}},
        "anthropic_messages": {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}},
        "bedrock_converse": {"__type": "ThrottlingException", "message": "Slow down."},
    }
    for tongue in TONGUES:
        (last,) = read(tongue.reader(), json.dumps(said[tongue.kind]).encode())
        assert isinstance(last, Failed)
        assert (last.code, last.refused) == ("rate_limited", True)


def test_bedrocks_begun_answer_is_one_from_its_first_frame() -> None:
    failure = frame({":message-type": "exception", ":exception-type": "throttlingException"}, b"{}")
    (last,) = read(bedrock_converse.reader(), converse("messageStart", role="assistant"), failure)
    assert isinstance(last, Failed)
    assert (last.code, last.refused) == ("rate_limited", False)


def usage_of_messages(*told: dict[str, Any]) -> Usage:
    first, later = told[0], told[1:] or (None,)
    begins = event({"type": "message_start", "message": {"usage": first}})
    deltas = [event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}) for usage in later]
    *_, last = read(anthropic_messages.reader(), begins, *deltas, event({"type": "message_stop"}))
    assert isinstance(last, Completed)
    return last.usage


def test_counts_of_a_message_only_grow_and_null_says_nothing() -> None:
    begun = {"input_tokens": 11, "output_tokens": 1, "cache_read_input_tokens": 4}
    assert usage_of_messages(begun, {"input_tokens": 0, "output_tokens": 7}) == Usage(15, 7, 4)
    assert usage_of_messages(begun, {"input_tokens": None, "output_tokens": 7}) == Usage(15, 7, 4)
    assert usage_of_messages({"input_tokens": 0, "output_tokens": 0}, {**begun, "output_tokens": 7}) == Usage(15, 7, 4)


def test_what_is_written_to_the_cache_is_told_together_or_by_its_time_to_live() -> None:
    parts = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 2}
    told = {"input_tokens": 11, "output_tokens": 7, "cache_creation": parts}
    assert usage_of_messages(told) == Usage(16, 7, 0, 5)
    assert usage_of_messages({**told, "cache_creation_input_tokens": 5}) == Usage(16, 7, 0, 5)
    assert usage_of_messages({**told, "cache_creation": None}) == Usage(11, 7)


def test_a_chats_last_known_usage_counts() -> None:
    counted = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}
    nothing = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": None}}
    *_, last = read(openai_chat.reader(), event(counted), TONGUES[1].end, event(nothing))
    assert isinstance(last, Completed)
    *_, last = read(openai_chat.reader(), event(counted), event(nothing))
    assert isinstance(last, Completed)
    assert last.usage == Usage(11, 3)


@pytest.mark.parametrize("ends", [openai_chat.ENDS, anthropic_messages.ENDS, bedrock_converse.ENDS])
def test_a_word_ends_an_answer_in_one_way(ends: Ends) -> None:
    words = [*ends.good, *ends.cut, *ends.failed]
    assert len(words) == len(set(words))
    assert all(word == word.casefold() for word in words)
