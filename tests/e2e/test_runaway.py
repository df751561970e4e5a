"""A client that runs away is refused at its limits, over real HTTP; a server that is killed leaves no number behind.

`python -m tests.bench.runaway` measures what others notice of it.
"""

import asyncio
import os
import signal
from datetime import timedelta
from uuid import uuid4

import httpx2
import pytest

from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.policy import PolicyLimits, UserLimits
from minichat.moment import now
from minichat.services.orphans import read_and_repair
from minichat.settings import Settings, Store
from minichat.storage import quota
from minichat.storage.items import connect
from tests.conftest import another_server
from tests.support.domain.builders import new_id
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

SENDS, FOLLOWERS = 50, 60
LIMITS = {"MINICHAT_RATES__TURNS_IN_FLIGHT": "10", "MINICHAT_RATES__FOLLOWERS": "20"}
ENOUGH = PolicyLimits(limit_daily_credits_micro=10**12, limit_monthly_credits_micro=10**12)


def refusal(answer: httpx2.Response) -> tuple[str, str, str, int]:
    """What a refusal says; it says when to come back, too."""
    problem = answer.json()
    assert int(answer.headers["retry-after"]) == problem["retry_after_seconds"] >= 1
    return problem["code"], problem["scope"], problem["whose"], problem["limit"]


class Runaway:
    """A user with many connections, who reads the status of each stream and leaves it open."""

    def __init__(self, base_url: str, token: str) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        headers = {"authorization": f"Bearer {token}"}
        self.http = httpx2.AsyncClient(
            base_url=base_url, headers=headers, timeout=PATIENCE, limits=limits, trust_env=False
        )
        self.open: list[httpx2.Response] = []

    async def asks(self, method: str, path: str, **more: object) -> httpx2.Response:
        """The answer's head; of a refusal, all of it."""
        request = self.http.build_request(method, path, **more)  # type: ignore[arg-type]  # handed on as it came
        answer = await self.http.send(request, stream=True)
        if answer.status_code == 200:
            self.open.append(answer)
        else:
            await answer.aread()
        return answer

    async def leaves(self) -> None:
        """Closes everything."""
        await asyncio.gather(*(answer.aclose() for answer in self.open))
        await self.http.aclose()


@pytest.mark.holds("contract.rate-problem")
async def test_a_runaway_client_is_refused_at_its_limits_and_a_killed_server_leaves_no_number(stack: Stack) -> None:
    name, hold = uuid4().hex, uuid4().hex
    token = stack.token("acme", name)
    with another_server(stack, **LIMITS) as server:
        one = Runaway(server.base_url, token)
        chats = [
            answer.json()["id"]
            for answer in await asyncio.gather(*(one.http.post("/chats", json={}) for _ in range(SENDS)))
        ]
        begun = {chat: str(uuid4()) for chat in chats}
        answers = await asyncio.gather(
            *(
                one.asks(
                    "POST",
                    f"/chats/{chat}/messages:stream",
                    json={"content": f"[[words:3]][[hold:{hold}]]", "request_id": request_id},
                )
                for chat, request_id in begun.items()
            )
        )
        running = [
            (chat, begun[chat]) for chat, answer in zip(chats, answers, strict=True) if answer.status_code == 200
        ]
        refused = [refusal(answer) for answer in answers if answer.status_code != 200]
        assert len(running) == 10
        assert set(refused) == {("rate_limited", "turns_in_flight", "user", 10)}
        chat, request_id = running[0]
        path = f"/chats/{chat}/turns/{request_id}/stream"
        followed = await asyncio.gather(*(one.asks("GET", path) for _ in range(FOLLOWERS)))
        assert sum(answer.status_code == 200 for answer in followed) == 20
        refused = [refusal(answer) for answer in followed if answer.status_code != 200]
        assert set(refused) == {("rate_limited", "followers", "user", 20)}
        os.kill(server.child.pid, signal.SIGKILL)
        await one.leaves()
    connect(Store(endpoint=stack.about["engine_url"]))
    tenant, user = stack.ids("acme", name)
    caller = Caller(TenantId(tenant), UserId(user))
    limits = UserLimits(standard=ENOUGH, premium=ENOUGH)
    assert quota.read(caller.tenant_id, caller.user_id, limits, now()).rates.turns_in_flight == 10
    late = Call(caller, now() + timedelta(seconds=Settings().orphan_watchdog.timeout_seconds + 30), new_id)
    for chat, request_id in running:
        read_and_repair(late, ChatId(chat), RequestId(request_id), Settings())
    assert quota.read(caller.tenant_id, caller.user_id, limits, now()).rates.turns_in_flight == 0
    stack.release(hold)
