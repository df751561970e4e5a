"""`minichat dev --config` with an entry of each kind: an answer streams, and an error tells nobody what was said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minichat.local.dialects.dialect import SECRETS
from minichat.services.policy_in_force import SHIPPED_POLICY
from tests.conftest import running_stack
from tests.support.http.client import Stack, User
from tests.support.providers.files import a_scripted_provider
from tests.support.providers.kinds import KINDS, Kind

KEY = "kept/secret:of+no=known.form"


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with an entry and a model of each kind, named after it."""
    folder = tmp_path_factory.mktemp("kinds")
    with a_scripted_provider(folder) as url:
        entry = {"base_url": url, "allow_insecure": True, "retries": 0}
        auth = {"secret": {"source": "env", "name": "EVERY_KINDS_KEY"}}
        entries = {kind.name: {"kind": kind.name, "auth": auth, **entry, **kind.said} for kind in KINDS}
        config, policy = folder / "settings.json", folder / "policy.json"
        config.write_text(json.dumps({"providers": entries}))
        policy.write_text(json.dumps(a_policy()))
        arguments = ("--config", str(config), "--policy", str(policy))
        with running_stack(folder / "state", *arguments, environment={"EVERY_KINDS_KEY": KEY}) as stack:
            yield stack


def a_policy() -> dict[str, Any]:
    """The shipped policy with a model for each kind of provider instead of its own."""
    shipped: dict[str, Any] = json.loads(SHIPPED_POLICY.read_text())
    model = next(model for model in shipped["model_catalog"] if model["tier"].lower() == "standard")
    names = [kind.name for kind in KINDS]
    catalog = [{**model, "id": name, "provider_id": name, "preference": {}} for name in names]
    return {**shipped, "model_catalog": catalog}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def ann(every_kind: Stack) -> Iterator[User]:
    with every_kind.user() as one:
        yield one


def test_an_answer_streams_from_every_kind(ann: User, kind: Kind) -> None:
    chat_id = ann.new_chat(model=kind.name)
    answer = ann.send(chat_id, "[[words:3]][[usage:100,20]]")
    assert (answer.names, answer.text) == (["stream_started", "delta", "done"], "word1 word2 word3")
    done = answer.events[-1].data
    assert done["usage"] == {"input_tokens": 100, "output_tokens": 20, "model": kind.name}
    # The conversation is understood, too: roles alternate, and the earlier answer is in it.
    assert ann.send(chat_id, "[[say:again]]").text == "again"


def test_a_chat_goes_on_at_a_strict_server_after_a_turn_without_an_answer(ann: User, kind: Kind) -> None:
    chat_id = ann.new_chat(model=kind.name)
    assert ann.send(chat_id, "[[say:]]").names[-1] == "done"
    for text in ("fine", "again"):
        answer = ann.send(chat_id, f"[[strict]][[say:{text}]]")
        assert (answer.names[-1], answer.text) == ("done", text)


def test_a_search_of_the_web_is_told_and_what_it_found_is_cited(ann: User, kind: Kind) -> None:
    web_search = {"web_search": {"enabled": True}}
    answer = ann.send(ann.new_chat(model=kind.name), "[[words:3]][[tool:web_search]]", **web_search)
    assert answer.names == ["stream_started", "tool", "tool", "delta", "citations", "done"]
    (page,) = answer.events[-2].data["items"]
    assert (page["source"], page["url"]) == ("web", "https://example.com/found")
    assert page["span"] == {"start": 0, "end": len(answer.text)}


@pytest.mark.parametrize(
    ("script", "code"), [("[[failed:server_error]]", "provider_error"), ("[[status:400]]", "validation_error")]
)
def test_a_providers_words_reach_neither_client_nor_event_nor_log(
    every_kind: Stack, ann: User, kind: Kind, script: str, code: str
) -> None:
    chat_id = ann.new_chat(model=kind.name)
    answer = ann.send(chat_id, f"[[words:2]]{script}")
    assert answer.events[-1].name == "error"
    assert answer.events[-1].data["code"] == code
    status = ann.turn(chat_id, answer.request_id)
    log = (every_kind.state / "logs" / "server.log").read_text()
    assert "provider failed" in log
    events = audited(every_kind.state / "audit", answer.request_id)
    told = f"{answer.events} {status.text} {log} {events}"
    assert not [secret for secret in (*SECRETS, KEY) if secret in told]


def audited(trail: Path, request_id: str) -> str:
    """What the audit trail has of a turn, once it is there; pytest's timeout bounds the waiting."""
    while request_id not in (found := "".join(file.read_text() for file in trail.rglob("*.jsonl"))):
        pass
    return found
