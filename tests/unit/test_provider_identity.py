"""What providers are told of who asks: opaque hashes within each one's limits, and never an id of ours."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.turn import Turn
from minichat.local.dialects.dialect import wrong_identity
from minichat.providers import anthropic_messages, bedrock_converse, identity, openai_chat, openai_responses
from minichat.providers.prompt import Prompt
from tests.support.domain.builders import a_caller, a_turn
from tests.support.providers.calls import a_prompt

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "long enough, and nobody else's"
BODIES: dict[str, Callable[[Prompt], dict[str, Any]]] = {
    "openai_responses": openai_responses.body,
    "openai_chat": lambda prompt: openai_chat.body(prompt, "max_tokens"),
    "anthropic_messages": anthropic_messages.body,
    "bedrock_converse": bedrock_converse.body,
}


def of(turn: Turn, secret: str = SECRET, trace_id: str = TRACE) -> Prompt:
    return identity.told(a_prompt("hello"), identity.Asker.of_turn(turn, trace_id), secret)


def somebody() -> Turn:
    ids = {
        "tenant_id": TenantId(str(uuid4())),
        "chat_id": ChatId(str(uuid4())),
        "requester_user_id": UserId(str(uuid4())),
    }
    return replace(a_turn(a_caller()), **ids)  # type: ignore[arg-type]


def test_the_same_user_is_the_same_word_and_nobody_else_is() -> None:
    ann = somebody()
    said = of(ann)
    again = of(replace(ann, chat_id=ChatId(str(uuid4()))))
    assert (again.user, again.metadata["tenant"]) == (said.user, said.metadata["tenant"])
    assert again.metadata["chat"] != said.metadata["chat"]
    # The same user id in another tenant is another user.
    elsewhere = of(replace(ann, tenant_id=TenantId(str(uuid4()))))
    assert not {elsewhere.user, *elsewhere.metadata.values()} & {said.user, said.metadata["tenant"]}
    assert of(ann, secret="another deployment's").user != said.user


def test_without_a_secret_nobody_is_told_of_but_the_trace() -> None:
    prompt = of(somebody(), secret="")
    assert (prompt.user, prompt.metadata) == (None, {})
    assert TRACE in str(prompt.traceparent)


@pytest.mark.parametrize("kind", BODIES)
def test_no_id_of_ours_leaves_and_every_provider_takes_what_does(kind: str) -> None:
    turn = somebody()
    prompt = of(turn)
    body = BODIES[kind](prompt)
    sent = json.dumps([body, prompt.traceparent])
    for secret in (turn.tenant_id, turn.chat_id, turn.requester_user_id, turn.request_id, turn.turn_id):
        assert secret not in sent
        assert secret.replace("-", "") not in sent
    assert prompt.metadata["chat"] in sent or kind in {"openai_chat", "anthropic_messages"}
    assert str(prompt.user) in sent
    assert wrong_identity(body, prompt.traceparent) is None


def test_the_call_is_a_span_of_its_own_in_the_trace_of_the_request() -> None:
    first, second = of(somebody()).traceparent, of(somebody()).traceparent
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", str(first))
    assert first != second
    without = of(somebody(), trace_id="")
    assert without.traceparent is None
    assert "trace_id" not in without.metadata


@pytest.mark.parametrize(
    ("body", "traceparent"),
    [
        ({"input": "", "user": "x" * 65}, None),
        ({"input": "", "metadata": {str(number): "x" for number in range(17)}}, None),
        ({"input": "", "metadata": {"k": "x" * 513}}, None),
        ({"input": "", "metadata": {"k" * 65: "x"}}, None),
        ({"messages": [], "metadata": {"k": "x"}}, None),
        ({"messages": [], "metadata": {"user_id": "x", "tenant": "y"}}, None),
        ({"messages": [], "metadata": {"user_id": "x" * 257}}, None),
        ({"messages": [], "requestMetadata": {"k": "a{b}"}}, None),
        ({"messages": [], "requestMetadata": {"k": "x" * 257}}, None),
        ({"input": ""}, f"00-{TRACE}-0000000000000000-01"),
        ({"input": ""}, TRACE),
    ],
)
def test_the_stand_in_refuses_what_its_provider_refuses(body: dict[str, Any], traceparent: str | None) -> None:
    assert wrong_identity(body, traceparent) is not None
