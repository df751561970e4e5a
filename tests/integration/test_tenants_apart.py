"""Two hundred tenants in one process of the streaming function: nothing of one is anywhere in another's."""

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from minichat.domain.identity import Call, Caller, ChatId, TenantId, UserId
from minichat.local.issuer import Issuer, as_uuid
from minichat.moment import new_id, now
from minichat.services import chats
from minichat.services.policy_in_force import Rules, first_policy
from minichat.settings import Settings, Store
from minichat.storage import messages, turns
from tests.support.aws.runtime_api import RuntimeApi, Streamed
from tests.support.aws.streaming import running, variables
from tests.support.http.gateway import proxy_event
from tests.support.providers.files import a_scripted_provider
from tests.support.storage.invariants import Tables, violations

TENANTS = 200
WORDS = 40
KINDS = ("[[say:{}]]", "[[say:{}]][[failed:server_error]]", "[[say:{}]][[cut:3]]", "[[status:400]]{}")
"""What the tenants' models do: every fourth answers, the others fail late, break off, and refuse at once."""


@dataclass(frozen=True)
class Tenant:
    """One of them, and everything that is its own and nobody else's."""

    number: int
    caller: Caller
    chat_id: ChatId
    request_id: str
    trace_id: str
    word: str

    @property
    def marks(self) -> frozenset[str]:
        """By which it is known wherever it appears."""
        caller = self.caller
        return frozenset(
            {caller.tenant_id, caller.user_id, self.chat_id, self.request_id, self.trace_id, self.word, self.amzn}
        )

    @property
    def kind(self) -> str:
        """What its model does."""
        return KINDS[self.number % len(KINDS)]

    @property
    def is_hurried(self) -> bool:
        """Whether its invocation is over before its model would be."""
        return self.number % (5 * len(KINDS)) == 0

    @property
    def amzn(self) -> str:
        """Its trace at AWS."""
        return f"1-{self.number:08x}-{self.word}"


def _a_tenant(number: int, rules: Rules) -> Tenant:
    caller = Caller(TenantId(as_uuid(f"tenant-{number}")), UserId(as_uuid(f"user-{number}")))
    chat_id = chats.create(Call(caller, now(), new_id), chats.NewChat(), rules).chat_id
    return Tenant(number, caller, chat_id, str(uuid4()), uuid4().hex, uuid4().hex[:24])


def _event(tenant: Tenant, issuer: Issuer) -> dict[str, Any]:
    token = issuer.token(
        f"tenant-{tenant.number}", f"user-{tenant.number}", now=datetime.now(UTC), lifetime=timedelta(hours=1)
    )
    length = 10 * WORDS if tenant.is_hurried else WORDS
    words = " ".join(f"{tenant.word}-{number}" for number in range(length))
    body = {"content": tenant.kind.format(words) + "[[delay:100]]", "request_id": tenant.request_id}
    headers = {"traceparent": f"00-{tenant.trace_id}-00f067aa0ba902b7-01"}
    return proxy_event("POST", f"/chats/{tenant.chat_id}/messages:stream", token, body, headers=headers)


async def _answered(api: RuntimeApi, tenant: Tenant, issuer: Issuer, hurried: asyncio.Barrier) -> str:
    """Everything that its client gets. They come within two seconds, and most are there for four and more.

    Those who have little time come first: a busy machine would give them an end without a beginning.
    """
    if not tenant.is_hurried:
        await hurried.wait()
        await asyncio.sleep(tenant.number / 100)
    trace = {"Lambda-Runtime-Trace-Id": f"Root={tenant.amzn};Sampled=0"}
    # An answer ends ten seconds before its invocation.
    seconds = 22 if tenant.is_hurried else 280 - tenant.number / 10
    streamed = await api.invoke(_event(tenant, issuer), seconds=seconds, headers=trace)
    begin = ""
    if tenant.is_hurried:
        begin = await _first_words(streamed)
        await hurried.wait()
    body = begin + (await streamed.rest()).decode()
    return json.dumps([streamed.head, streamed.trailers, streamed.headers]) + body


async def test_nothing_of_a_tenant_is_in_what_another_gets_or_leaves_behind(store: Store, tmp_path: Path) -> None:
    issuer, rules = Issuer(tmp_path), Rules(Settings(), first_policy(Settings()))
    tenants = [_a_tenant(number, rules) for number in range(TENANTS)]
    with a_scripted_provider(tmp_path) as provider:
        environment = variables(store, issuer, provider)
        async with (
            RuntimeApi(TENANTS) as api,
            running(api, tmp_path, "functions.stream.handler.app", **environment) as runtime,
        ):
            hurried = asyncio.Barrier(TENANTS)
            answers = await asyncio.gather(*(_answered(api, tenant, issuer, hurried) for tenant in tenants))
            assert (api.refused, api.lost, api.running) == ([], 0, 0)
            runtime.terminate()
            assert await runtime.ended() == 0
            log, errors = runtime.output, runtime.log
    for tenant, answer in zip(tenants, answers, strict=True):
        assert _whose(answer, tenants) <= {tenant}
        assert (tenant.word in answer) is (tenant.kind != KINDS[3]), answer
        assert ("event: done" if tenant.kind == KINDS[0] else "event: error") in answer, answer
        assert ('"deadline"' in answer) is tenant.is_hurried, answer
    _check_log(tenants, log, errors)
    await asyncio.to_thread(_check_store, tenants, store)


async def _first_words(streamed: Streamed) -> str:
    told = ""
    while "event: delta" not in told:
        chunk = await streamed.chunk()
        assert chunk is not None
        told += chunk.decode()
    return told


async def test_a_process_that_has_to_go_stores_the_answers_of_everybody(store: Store, tmp_path: Path) -> None:
    issuer, rules = Issuer(tmp_path), Rules(Settings(), first_policy(Settings()))
    tenants = [_a_tenant(len(KINDS) * number, rules) for number in range(10)]
    with a_scripted_provider(tmp_path) as provider:
        environment = variables(store, issuer, provider)
        async with (
            RuntimeApi(TENANTS) as api,
            running(api, tmp_path, "functions.stream.handler.app", **environment) as runtime,
        ):
            streams = [await api.invoke(_event(tenant, issuer)) for tenant in tenants]
            told = [await _first_words(streamed) for streamed in streams]
            runtime.terminate()
            assert await runtime.ended() == 0
            assert (api.running, api.lost) == (0, 0)
            answers = [
                before + (await streamed.rest()).decode() for before, streamed in zip(told, streams, strict=True)
            ]
    for tenant, answer in zip(tenants, answers, strict=True):
        assert "event: done" in answer, answer
        assert '"interrupted"' in answer
        assert _whose(answer, tenants) == {tenant}
        assert f"{tenant.word}-{WORDS - 1}" not in answer
    await asyncio.to_thread(_check_store, tenants, store)


def _whose(text: str, tenants: list[Tenant]) -> set[Tenant]:
    """Whose marks are in a text."""
    return {tenant for tenant in tenants if any(mark in text for mark in tenant.marks)}


def _check_log(tenants: list[Tenant], log: str, errors: str) -> None:
    """Each line is of one tenant, by all that it says; a metric is nobody's."""
    assert (_whose(errors, tenants), "Traceback" in errors) == (set(), False)
    by_trace = {tenant.trace_id: tenant for tenant in tenants}
    lines, invocations = Counter[str](), dict[str, Tenant]()
    for line in log.splitlines():
        said = json.loads(line)
        if "_aws" in said:
            assert _whose(line, tenants) == set()
            assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}|[0-9a-f]{24}", line)
            continue
        tenant = by_trace[said["trace_id"]]
        assert _whose(line, tenants) == {tenant}
        assert said["amzn_trace_id"] == tenant.amzn
        assert invocations.setdefault(said["aws_request_id"], tenant) == tenant
        assert said.get("tenant_id", tenant.caller.tenant_id) == tenant.caller.tenant_id
        lines[said["message"]] += 1
    assert len(invocations) == TENANTS
    assert (lines["request"], lines["answer"]) == (TENANTS, TENANTS)
    assert lines["provider failed"] == TENANTS // len(KINDS) * 3


def _check_store(tenants: list[Tenant], store: Store) -> None:
    for tenant in tenants:
        _, turn = turns.read(tenant.caller.tenant_id, tenant.chat_id, tenant.request_id)  # type: ignore[arg-type]
        assert turn is not None
        answer = messages.read(turn.tenant_id, tenant.chat_id, turn.assistant_message_id)
        assert answer is None or _whose(answer.content, tenants) <= {tenant}
    tables = Tables.of(store)
    for item in (*tables.conversations, *tables.outbox):
        assert len(_whose(repr(item), tenants)) <= 1
    assert violations(tables) == []
