"""The older part of a chat gets a summary."""

import asyncio
import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from minichat.events import queues
from minichat.events.consume import PermanentFailure, Received, consume
from minichat.events.payloads import ThreadSummaryTask
from minichat.moment import new_id, now
from minichat.providers.registry import Providers
from minichat.services import summary
from minichat.services.rules import InForce
from minichat.settings import current
from minichat.storage.items import connect

STORING_SECONDS = 10
"""What is left of an invocation, when the model has used up its time, to store what became of the task."""

connect(current().store)
queues.connect(current())
_in_force = InForce(current())
_providers = Providers(current().providers)
# One loop for the process: the connections to providers belong to it.
_loop = asyncio.Runner()


def handler(event: dict[str, Any], context: LambdaContext) -> object:
    """Which messages have to come again."""

    def effect(task: ThreadSummaryTask, received: Received) -> str:
        seconds = max(context.get_remaining_time_in_millis() / 1000 - STORING_SECONDS, 1)
        return _summarize(task, received, seconds)

    return consume(event, "thread-summary", ThreadSummaryTask, effect)


def _summarize(task: ThreadSummaryTask, received: Received, seconds: float) -> str:
    settings = current().thread_summary
    if not settings.enabled:
        return "disabled"
    if _in_force.is_due(moment := time.monotonic()):
        _in_force.look(moment)
    means = summary.Means(_in_force.rules, _providers, now, new_id, seconds)
    try:
        return _loop.run(summary.summarize(task, received.trace_id, means))
    except summary.NoModel:
        raise PermanentFailure("the policy has no model that could summarize") from None
    except summary.SummaryFailed as failure:
        if received.attempt >= settings.max_attempts:
            raise PermanentFailure(f"attempt {received.attempt}: {failure}") from None
        raise
