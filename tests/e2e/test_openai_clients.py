"""OpenAI's own clients for Python and JavaScript at our door: their helpers, errors, retries, cancel, background."""

import itertools
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest

from minichat.domain.api_key import RANDOM_BYTES, NewApiKey
from minichat.domain.identity import Call, Caller, TenantId, UserId
from minichat.moment import new_id, now
from minichat.services import api_keys
from minichat.settings import Store
from minichat.storage.items import connect
from tests.conftest import ROOT, another_server
from tests.support.http.client import Stack
from tests.support.http.openai_talk import seen_by
from tests.support.patience import PATIENCE

CUTS = int(os.environ.get("OPENAI_CUTS", "4"))
"""How often a stream is cut and resumed, at one of two servers or the other."""
MODEL = "gpt-4.1"


def door(base_url: str) -> str:
    return base_url.removesuffix("/v1") + "/openai/v1"


def client_of(base_url: str, key: str, **wanted: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=key, timeout=PATIENCE, **({"max_retries": 0} | wanted))


@pytest.fixture
def name() -> str:
    """A user that no other test is."""
    return uuid4().hex


@pytest.fixture
def client(stack: Stack, name: str) -> Iterator[openai.OpenAI]:
    with client_of(door(stack.base_url), stack.token("acme", name)) as made:
        yield made


@pytest.fixture(scope="module")
def second(stack: Stack) -> Iterator[another_server]:
    """Another instance of the same deployment, whose users may send once a minute."""
    with another_server(stack, MINICHAT_RATES__SENDS_PER_MINUTE="1") as server:
        yield server


class Losing(httpx2.BaseTransport):
    """A network on which the first answer is lost after the server has given it."""

    def __init__(self) -> None:
        self._real, self.lost = httpx2.HTTPTransport(), 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self._real.handle_request(request)
        if not self.lost:
            self.lost += 1
            answer.read()
            answer.close()
            raise httpx2.ReadError("the connection is gone", request=request)
        return answer

    def close(self) -> None:
        self._real.close()


def losing(stack: Stack, name: str) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(transport=Losing())
    return client_of(door(stack.base_url), stack.token("acme", name), max_retries=2, http_client=http)


def said_in(stack: Stack, name: str, conversation: Any) -> list[str]:
    with stack.user("acme", name) as user:
        return [one["content"] for one in user.messages(conversation.id.removeprefix("conv_"))]


def test_a_script_sees_here_what_it_sees_at_openais_own_api(stack: Stack, client: openai.OpenAI) -> None:
    here = seen_by(client, MODEL)
    with client_of(f"{stack.about['provider_url']}/v1", "none") as control:
        there = seen_by(control, MODEL)
    assert here == there
    assert here["final"] == ("word1 word2 word3 word4 word5", 120, 30)


@pytest.mark.holds("contract.openai")
def test_a_conversation_goes_on_from_its_latest_response_alone(stack: Stack, client: openai.OpenAI, name: str) -> None:
    first = client.responses.create(model=MODEL, input="[[say:Paris.]] The capital of France?")
    then = client.responses.create(
        input="[[say:Rome.]] And of Italy?", previous_response_id=first.id, instructions="Be brief."
    )
    last = client.responses.create(input="[[instructions]]", conversation=first.conversation.id)  # type: ignore[union-attr]
    assert (then.previous_response_id, last.conversation) == (first.id, first.conversation)
    assert "Be brief." not in last.output_text, "instructions are for one answer"
    assert said_in(stack, name, first.conversation)[1::2] == ["Paris.", "Rome.", last.output_text]
    for wanted, param, code in (
        ({"previous_response_id": first.id}, "previous_response_id", "not_latest_turn"),
        ({"previous_response_id": "resp_" + "0" * 64}, "previous_response_id", "previous_response_not_found"),
        ({"conversation": f"conv_{'0' * 32}"}, "conversation", "conversation_not_found"),
        ({"previous_response_id": last.id, "model": "gpt-4.1-mini"}, "model", "invalid_value"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(input="More?", **wanted)  # type: ignore[call-overload]
        assert (refused.value.param, refused.value.code) == (param, code)
    client.responses.delete(last.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(last.id)
    assert client.responses.create(input="[[say:Yes.]]", previous_response_id=then.id).output_text == "Yes."


def test_what_is_not_kept_is_in_no_list_and_has_the_quota_of_every_turn(
    stack: Stack, client: openai.OpenAI, name: str
) -> None:
    talk: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    with stack.user("acme", name) as user:
        one = client.responses.create(model=MODEL, input=[*talk, {"role": "user", "content": "[[say:Well.]]"}])
        used = user.http.get("/quota/status").json()["tiers"][-1]["periods"][0]["used_credits_micro"]
        assert (one.to_dict()["store"], one.conversation, used > 0) == (False, None, True)
        assert user.http.get("/chats").json()["items"] == []
        chat = user.chat(one.id[5:37])
        assert (chat["is_temporary"], chat["message_count"]) == (True, 2)
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(input="More?", previous_response_id=one.id)
        assert refused.value.code == "previous_response_not_found"
        assert client.responses.retrieve(one.id).output_text == "Well."


@pytest.mark.holds("contract.openai")
def test_errors_are_the_clients_own_classes_and_name_the_parameter(
    stack: Stack, client: openai.OpenAI, second: another_server, name: str
) -> None:
    cases: list[tuple[type[openai.APIStatusError], str | None, str, Callable[[], Any]]] = [
        (openai.BadRequestError, "temperature", "unsupported_value",
         lambda: client.responses.create(model=MODEL, input="a", temperature=0.3)),
        (openai.BadRequestError, "tools[0]", "unsupported_parameter",
         lambda: client.responses.create(model=MODEL, input="a", tools=[{"type": "local_shell"}])),
        (openai.NotFoundError, "model", "model_not_found", lambda: client.responses.create(model="m", input="a")),
        (openai.NotFoundError, "model", "model_not_found", lambda: client.models.retrieve("m")),
        (openai.BadRequestError, None, "context_length_exceeded", lambda: client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "a " * 500_000}] * 5)),
        (openai.NotFoundError, None, "not_found", lambda: client.embeddings.create(model=MODEL, input="a")),
        (openai.NotFoundError, None, "turn_not_found", lambda: client.responses.retrieve("resp_1")),
    ]  # fmt: skip
    for kind, param, code, call in cases:
        with pytest.raises(kind) as refused:
            call()
        assert (refused.value.param, refused.value.code) == (param, code)
        assert refused.value.request_id
    with client_of(door(stack.base_url), "nobody") as nobody, pytest.raises(openai.AuthenticationError):
        nobody.models.list()
    with client_of(door(second.base_url), stack.token("acme", name)) as hasty:
        hasty.responses.create(model=MODEL, input="[[say:a]]")
        with pytest.raises(openai.RateLimitError) as limited:
            hasty.responses.create(model=MODEL, input="[[say:a]]")
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60
    body: Any = limited.value.body
    assert (body["code"], body["scope"]) == ("rate_limit_exceeded", "sends_per_minute")
    with stack.user("acme", name) as user:
        assert len(user.http.get("/chats").json()["items"]) == 1, "a refusal leaves no chat behind"


def test_another_tenants_response_is_not_there(stack: Stack, client: openai.OpenAI) -> None:
    mine = client.responses.create(model=MODEL, input="[[say:Mine.]]")
    with client_of(door(stack.base_url), stack.token("other", "eve")) as eve:
        for call in (eve.responses.retrieve, eve.responses.cancel, eve.responses.delete):
            with pytest.raises(openai.NotFoundError):
                call(mine.id)
        with pytest.raises(openai.BadRequestError, match="is not there"):
            eve.responses.create(input="a", previous_response_id=mine.id)


def test_a_request_whose_answer_was_lost_is_the_same_turn_when_its_client_sends_it_again(
    stack: Stack, client: openai.OpenAI, name: str
) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    with losing(stack, name) as first:
        one = first.responses.create(model=MODEL, input="[[say:Once.]]", extra_headers=key)
    with losing(stack, name) as then:
        # The client sends no key of its own: its count and the conversation say that it is the same.
        two = then.responses.create(input="[[say:Twice.]]", previous_response_id=one.id)
    with (
        losing(stack, name) as streamed,
        streamed.responses.stream(input="[[words:3]]", previous_response_id=two.id, model=MODEL) as stream,
    ):
        three = stream.get_final_response()
    assert said_in(stack, name, one.conversation)[1::2] == ["Once.", "Twice.", "word1 word2 word3"]
    assert three.previous_response_id == two.id
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        client.responses.create(model=MODEL, input="Something else", extra_headers=key)
    assert reused.value.code == "request_id_reused"
    again = client.responses.create(model=MODEL, input="[[say:Once.]]", extra_headers=key, stream=True)
    assert list(again)[-1].response.id == one.id  # type: ignore[union-attr]


def test_a_background_response_is_followed_from_any_event_at_any_server(
    stack: Stack, second: another_server, client: openai.OpenAI, name: str
) -> None:
    hold = uuid4().hex
    begun = client.responses.create(
        model=MODEL, input=f"[[words:12]][[tool:web_search]][[hold:{hold}]]", background=True,
        tools=[{"type": "web_search"}],
    )  # fmt: skip
    assert (begun.status, begun.output) == ("in_progress", [])
    with closing(client.responses.retrieve(begun.id, stream=True)) as following:
        events = [next(following) for _ in range(5)]
        stack.release(hold)
        events += list(following)
    whole = [event.to_dict() for event in events]
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    final = client.responses.retrieve(begun.id)
    text = " ".join(f"word{number}" for number in range(1, 13))
    assert (final.status, final.output_text) == ("completed", text)
    with client_of(door(second.base_url), stack.token("acme", name)) as elsewhere:
        for after in range(0, len(whole), max(len(whole) // CUTS, 1)):
            for one in (client, elsewhere):
                rest = one.responses.retrieve(begun.id, stream=True, starting_after=after)
                assert [event.to_dict() for event in rest] == whole[after + 1 :]


def test_a_stream_that_is_cut_again_and_again_is_told_whole_and_each_event_once(
    stack: Stack, second: another_server, client: openai.OpenAI, name: str
) -> None:
    words = 3 * CUTS
    begun = client.responses.create(model=MODEL, input=f"[[words:{words}]][[delay:20]]", background=True)
    told: list[dict[str, Any]] = []
    with client_of(door(second.base_url), stack.token("acme", name)) as elsewhere:
        for cut in range(10 * words):
            one = (client, elsewhere)[cut % 2]
            after = {"starting_after": told[-1]["sequence_number"]} if told else {}
            with closing(one.responses.retrieve(begun.id, stream=True, **after)) as following:
                told += [event.to_dict() for event in itertools.islice(following, 3)]
            if told and told[-1]["type"] == "response.completed":
                break
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert "".join(event.get("delta", "") for event in told) == " ".join(f"word{at}" for at in range(1, words + 1))


def test_a_response_is_cancelled_and_keeps_what_was_said(stack: Stack, client: openai.OpenAI) -> None:
    begun = client.responses.create(model=MODEL, input=f"[[words:3]][[hold:{uuid4().hex}]]", background=True)
    following = client.responses.retrieve(begun.id, stream=True)
    assert next(event for event in following if event.type == "response.output_text.delta")
    ended = client.responses.cancel(begun.id)
    assert (ended.status, ended.output_text) == ("cancelled", "word1 ")
    last = list(following)[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")  # type: ignore[union-attr]
    assert client.responses.cancel(begun.id).status == "cancelled"


def test_an_api_key_needs_the_scopes_of_what_it_does(stack: Stack) -> None:
    connect(Store(endpoint=stack.about["environment"]["MINICHAT_STORE__ENDPOINT"]))
    boss = Call(Caller(TenantId("acme/door"), UserId("boss")), now(), new_id)
    wishes = [
        NewApiKey("CRM", scopes, boss.now + timedelta(hours=1))
        for scopes in (("turn:send",), ("turn:send", "chat:create"))
    ]
    texts = [api_keys.create(boss, wish, secrets.token_bytes(RANDOM_BYTES))[1] for wish in wishes]
    with client_of(door(stack.base_url), texts[0]) as half, pytest.raises(openai.PermissionDeniedError) as refused:
        half.responses.create(model=MODEL, input="[[say:a]]")
    body: Any = refused.value.body
    assert (body["code"], body["action"]) == ("forbidden", "chat:create")
    with client_of(door(stack.base_url), texts[1]) as service:
        assert service.responses.create(model=MODEL, input="[[say:a]]").output_text == "a"
        with pytest.raises(openai.PermissionDeniedError):
            service.models.list()


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed
    assert client.models.retrieve(MODEL).id == MODEL


def test_the_client_for_javascript_sees_the_same_and_resumes_retries_and_cancels(
    stack: Stack, modules: Path, name: str
) -> None:
    def seen(base_url: str, key: str, where: str) -> Any:
        script = str(ROOT / "tests" / "clients" / "openai_talk.mjs")
        command = ["node", script, str(modules), base_url, key, MODEL, where]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    at_door = seen(door(stack.base_url), stack.token("acme", name), "here")
    assert at_door["talk"] == seen(f"{stack.about['provider_url']}/v1", "none", "there")["talk"]
    assert at_door["talk"]["final"] == ["completed", "word1 word2 word3 word4 word5", 120]
    found = at_door["here"]
    conversation, text = found.pop("conversation")
    assert found == {
        "begun": "in_progress",
        "resumed": True,
        "cancelled": "cancelled",
        "once": True,
        "models": True,
        "refused": {
            "name": "BadRequestError", "status": 400, "code": "unsupported_value", "param": "temperature",
        },
        "unknown": {"name": "NotFoundError", "status": 404, "code": "turn_not_found", "param": None},
    }  # fmt: skip
    with stack.user("acme", name) as user:
        said = [one["content"] for one in user.messages(conversation.removeprefix("conv_"))]
    assert (said[1::2], text) == (["Paris.", "Rome."], "Rome.")
