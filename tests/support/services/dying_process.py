"""A process that is killed right before or right after one write: `python -m tests.support.services.dying_process`."""

import json
import os
import signal
import sys
from typing import Any

from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.events.payloads import UsageEvent
from minichat.moment import new_id
from minichat.services.finalize import finalize
from minichat.services.new_turn import SendMessage
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import turns, usage_ledger
from minichat.storage.items import connect
from tests.support.domain.builders import NOW
from tests.support.services.scenes import ENDING, RULES
from tests.support.storage.faults import hook


def main(told: dict[str, Any]) -> None:
    """Makes the write `row` of what `told` names, as another process would, and does not live to hear of it."""
    connect(Store(**told["store"]))
    call = Call(Caller(TenantId(told["tenant_id"]), UserId(told["user_id"])), NOW, new_id)
    chat_id, request_id = ChatId(told["chat_id"]), RequestId(told["request_id"])
    with hook(f"{told['moment']}-call.dynamodb.TransactWriteItems", lambda **_: os.kill(os.getpid(), signal.SIGKILL)):
        match told["row"]:
            case "turns.start":
                send(call, SendMessage(chat_id, "hello", request_id), RULES)
            case "endings.finish":
                _, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
                assert turn is not None
                finalize(call, turn, ENDING, RULES.settings)
            case "usage_ledger.book":
                usage_ledger.book(UsageEvent.model_validate(told["event"]), new_id(NOW), retention_days=400)


if __name__ == "__main__":
    main(json.load(sys.stdin))
