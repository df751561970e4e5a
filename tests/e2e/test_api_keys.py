"""A key that is revoked while its service is being answered."""

import secrets
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from minichat.domain.api_key import RANDOM_BYTES, NewApiKey
from minichat.domain.identity import Call, Caller, TenantId, UserId
from minichat.moment import new_id, now
from minichat.services import api_keys
from minichat.settings import Store
from minichat.storage.items import connect
from tests.support.http.client import Stack, User

IN_FORCE_SECONDS = 5


@pytest.mark.holds("contract.api-key-revoked")
def test_a_key_revoked_in_mid_stream_ends_with_that_stream(stack: Stack) -> None:
    connect(Store(endpoint=stack.about["environment"]["MINICHAT_STORE__ENDPOINT"]))
    boss = Call(Caller(TenantId("acme/keys"), UserId("boss")), now(), new_id)
    wanted = NewApiKey("CRM", ("chat:create", "turn:send"), boss.now + timedelta(hours=1))
    key, text = api_keys.create(boss, wanted, secrets.token_bytes(RANDOM_BYTES))
    hold = uuid4().hex
    with User(stack.base_url, text) as service:
        chat_id = service.new_chat()
        body = {"content": f"[[words:3]][[hold:{hold}]]"}
        with service.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (answer, events):
            first = next(events), next(events)
            api_keys.revoke(boss, key.key_id)
            revoked = time.monotonic()
            while (refused := service.http.get("/chats")).status_code != 401:
                assert time.monotonic() - revoked < IN_FORCE_SECONDS
            assert refused.json()["detail"] == "The API key was revoked."
            stack.release(hold)
            rest = list(events)
    assert (answer.status, first[0].name, rest[-1].name) == (200, "stream_started", "done")
