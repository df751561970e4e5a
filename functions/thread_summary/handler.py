"""The system's own tasks for models: summaries of long chats, titles, summaries of documents."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from minichat.domain.erasure import BeingErased
from minichat.domain.identity import TenantId
from minichat.events import sqs
from minichat.events.consume import PermanentFailure, Received, consume
from minichat.events.payloads import ChatTitleTask, DocSummaryTask, SystemTask, ThreadSummaryTask
from minichat.moment import new_id, now
from minichat.observability import count
from minichat.providers.registry import Providers
from minichat.services import doc_summaries, thread_summary, titles
from minichat.services.policy_in_force import InForce
from minichat.services.providers_in_force import ProvidersInForce
from minichat.services.system_tasks import NoModel, TaskDeps, TaskFailed, TaskOutcome
from minichat.settings import current
from minichat.storage.items import connect
from minichat.task_settings import ChatTitles, DocSummaries, ThreadSummary

STORING_SECONDS = 10
"""Kept at the end of an invocation for storing the outcome, when the model has used up its time."""

connect(current().store)
sqs.connect(current())
_in_force = InForce(current())
_entries = ProvidersInForce(current())
_providers = Providers(_entries.entries_of)
# One loop for the process: the connections to providers belong to it.
_loop = asyncio.Runner()


def handler(event: dict[str, Any], context: LambdaContext) -> object:
    """The messages to redeliver, as a partial batch response."""

    def effect(task: SystemTask, received: Received) -> str:
        seconds = max(context.get_remaining_time_in_millis() / 1000 - STORING_SECONDS, 1)
        return _done(task, received, seconds)

    return consume(event, "thread-summary", SystemTask, effect)


def _done(task: SystemTask, received: Received, seconds: float) -> str:
    settings = _settings(task)
    if not settings.enabled:
        return "disabled"
    tenant_id = TenantId(task.tenant_id)
    if _in_force.is_due(tenant_id, moment := time.monotonic()):
        _in_force.look(tenant_id, moment)
    _entries.entries_of(tenant_id)
    try:
        rules = replace(_in_force.rules_of(tenant_id), settings=_entries.settings)
    except BeingErased:
        return "being_erased"
    means = TaskDeps(rules, _providers, now, new_id, seconds)
    try:
        outcome = _loop.run(_work(task, received.trace_id, means))
    except NoModel:
        raise PermanentFailure("the policy has no model that could do it") from None
    except TaskFailed as failure:
        count("system_task_total", kind=task.system_task_type, result="failed")
        if received.attempt >= settings.max_attempts:
            raise PermanentFailure(f"attempt {received.attempt}: {failure}") from None
        raise
    count("system_task_total", kind=task.system_task_type, result=outcome)
    return outcome


def _settings(task: SystemTask) -> ThreadSummary | ChatTitles | DocSummaries:
    match task:
        case ThreadSummaryTask():
            return current().thread_summary
        case ChatTitleTask():
            return current().chat_titles
        case DocSummaryTask():
            return current().doc_summaries


def _work(task: SystemTask, trace_id: str, means: TaskDeps) -> Coroutine[Any, Any, TaskOutcome]:
    match task:
        case ThreadSummaryTask():
            return thread_summary.summarize(task, trace_id, means)
        case ChatTitleTask():
            return titles.entitle(task, trace_id, means)
        case DocSummaryTask():
            return doc_summaries.summarize(task, trace_id, means)
