"""Summarizes the older part of a chat: a task of the system; no turn waits for it (context-attachments-providers 2).

May be killed at any point and run again, by any number at once: only the write at the end has an effect, and its
conditions let one through. Until then, or if it fails, the previous summary stays.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from minichat import greenlets
from minichat.domain import summary
from minichat.domain.identity import ChatId, MessageId, TenantId
from minichat.domain.message import Message
from minichat.domain.policy import Model
from minichat.domain.summary import Compression, Frontier, Summary
from minichat.domain.token_estimate import text_tokens
from minichat.domain.usage import Usage
from minichat.events.payloads import ThreadSummaryTask
from minichat.events.references import FrontierRef
from minichat.observability import count
from minichat.providers.chunks import Failed
from minichat.providers.identity import Asker
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.services.system_tasks import (
    NoModel,
    TaskAnswer,
    TaskDeps,
    TaskFailed,
    TaskOutcome,
    answered,
    asker_of,
    call_of,
    model_for,
    usage_event,
)
from minichat.storage import messages, outbox, summaries

LOOK_SECONDS = 5.0
"""How often a task that waits for the model checks whether its answer is still wanted."""


async def summarize(task: ThreadSummaryTask, trace_id: str, means: TaskDeps) -> TaskOutcome:
    """Has the messages of a task summarized and the summary stored, unless somebody else was first.

    Raises TaskFailed, NoModel, and ServiceUnavailable.
    """
    try:
        outcome = await _summarize(task, trace_id, means)
    except (TaskFailed, NoModel):
        count("thread_summary_execution_total", result="failed")
        raise
    count("thread_summary_execution_total", result=outcome)
    return outcome


async def _summarize(task: ThreadSummaryTask, trace_id: str, means: TaskDeps) -> TaskOutcome:
    tenant_id, chat_id = TenantId(task.tenant_id), ChatId(task.chat_id)
    base = None if task.base_frontier is None else _frontier(task.base_frontier)
    wanted = Compression(base, _frontier(task.frozen_target))
    found = await greenlets.run(summaries.read, tenant_id, chat_id)
    if (unwanted := _unwanted(found, base)) is not None:
        return unwanted
    settings = means.rules.settings.thread_summary
    stretch = await greenlets.run(_stretch, tenant_id, chat_id, wanted, settings.message_content_limit)
    if not stretch:
        return TaskOutcome.NOTHING
    if stretch[-1].message_id != wanted.target.message_id:
        return TaskOutcome.LOST
    model = model_for(means.rules.policy, settings.summary_model_id, found.model)
    asker = asker_of(task, trace_id)
    try:
        async with asyncio.timeout(means.seconds):
            asked = asyncio.create_task(_asked(asker, model, found.summary, stretch, means))
            unwanted = await _unwanted_before(asked, tenant_id, chat_id, base)
    except TimeoutError:
        raise TaskFailed("no summary in time") from None
    if unwanted is not None:
        return unwanted
    answer = asked.result()
    text = summary.extracted(answer.text)
    if text is None:
        raise TaskFailed("the model gave no summary")
    call = call_of(task, trace_id, means)
    estimate = -(-len(text.encode()) // model.estimation_budgets.bytes_per_token)
    event = outbox.item(call, chat_id, usage_event(call, task, model, answer.usage))
    made = Summary(text, wanted.target, estimate)
    written = await greenlets.run(summaries.write, call, chat_id, wanted, made, event)
    return TaskOutcome.DONE if written else TaskOutcome.LOST


def _unwanted(found: summaries.FoundSummary, base: Frontier | None) -> TaskOutcome | None:
    """The outcome of a task that nobody wants any more; None while it is wanted."""
    if not found.alive:
        return TaskOutcome.GONE
    return None if (None if found.summary is None else found.summary.frontier) == base else TaskOutcome.LOST


async def _unwanted_before(
    asked: asyncio.Task[TaskAnswer], tenant_id: TenantId, chat_id: ChatId, base: Frontier | None
) -> TaskOutcome | None:
    """Waits until the model has answered (None), or nobody wants its answer any more: then cancels the request."""
    try:
        while not (await asyncio.wait({asked}, timeout=LOOK_SECONDS))[0]:
            found = await greenlets.run(summaries.read, tenant_id, chat_id)
            if (unwanted := _unwanted(found, base)) is not None:
                return unwanted
        return None
    finally:
        if not asked.done():
            asked.cancel()
            await asyncio.wait({asked})


def _frontier(ref: FrontierRef) -> Frontier:
    return Frontier(ref.created_at, MessageId(ref.message_id))


def _stretch(tenant_id: TenantId, chat_id: ChatId, wanted: Compression, cut_at: int) -> list[Message]:
    """The messages to summarize, each cut as it is read: a chat's text may not fit into memory."""
    after = None if wanted.base is None else wanted.base.message_id
    found = messages.stretch(tenant_id, chat_id, after, wanted.target.message_id)
    return [replace(message, content=summary.cut(message.content, cut_at)) for message in found]


async def _asked(
    asker: Asker, model: Model, previous: Summary | None, stretch: Sequence[Message], means: TaskDeps
) -> TaskAnswer:
    """The model's answer; a prompt that is too long is sent again without the oldest messages.

    Raises TaskFailed.
    """
    settings = means.rules.settings.thread_summary
    instructions = model.thread_summary_prompt or settings.summary_system_prompt or summary.INSTRUCTIONS
    # Most of a small window is for the text to summarize.
    max_output_tokens = min(model.max_output_tokens, settings.max_output_tokens, model.context_window // 4)
    told = None if previous is None else previous.text
    budgets = model.estimation_budgets
    fixed = instructions + summary.request(told, [], cut_at=0)
    room = model.context_window - max_output_tokens - text_tokens(len(fixed.encode()), budgets)
    # A backlog too long for any model would fail for ever, so it is shortened before the first request.
    shown: Sequence[Message] | None = summary.fitting(stretch, room, budgets)
    usage = Usage()
    for _ in range(summary.DROPS + 1):
        if not shown:
            break
        text = summary.request(told, shown, cut_at=settings.message_content_limit)
        prompt = Prompt(model.provider_model_id, instructions, (PromptMessage("user", text),), max_output_tokens)
        answer = await answered(asker, model.provider_id, prompt, means)
        usage = usage + answer.usage
        if not isinstance(answer, Failed):
            return replace(answer, usage=usage)
        if answer.code != "context_length_exceeded":
            raise TaskFailed(f"{answer.code}: {answer.diagnostic}")
        shown = summary.without_oldest(shown)
    raise TaskFailed("too long for the model")
