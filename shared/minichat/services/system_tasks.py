"""Model calls that the system makes on its own account: which model, its whole answer, and the usage.

No turn waits for such a task, and no user pays. Each may be killed at any point and run again, by any number at once:
only the write at its end has an effect, and its conditions let one through.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from minichat.domain.answer_end import CompletionSignal
from minichat.domain.identity import Call, Caller, ChatId, Clock, NewId, RequestId, TenantId, UserId
from minichat.domain.policy import Model, Policy
from minichat.domain.usage import Usage
from minichat.events.payloads import SystemTask, TokenUsage, UsageEvent
from minichat.providers import identity
from minichat.providers.chunks import Completed, Failed, Incomplete, TextDelta
from minichat.providers.prompt import Prompt
from minichat.providers.registry import Providers
from minichat.services.policy_in_force import Rules


class TaskOutcome(StrEnum):
    """What became of a task. All of these are good ends."""

    DONE = "success"
    LOST = "lost"
    """Another worker was first, or the subject of the task was taken back."""
    NOTHING = "empty"
    GONE = "gone"
    """There is no such chat, or it was deleted."""


class TaskFailed(Exception):
    """The task failed this time; another attempt may succeed. The message is for operators, without content."""


class NoModel(Exception):
    """The policy has no model for the task. Trying again will not help."""


@dataclass(frozen=True, slots=True)
class TaskDeps:
    """What a task takes. The model has `seconds` to answer."""

    rules: Rules
    providers: Providers
    clock: Clock
    new_id: NewId
    seconds: float


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """What a model said, and what that used."""

    text: str
    usage: Usage


def model_for(policy: Policy, configured: str, chat_model: str) -> Model:
    """The configured model, else the chat's, else the default of the standard tier.

    Raises NoModel.
    """
    enabled = {model.id: model for model in policy.enabled_models()}
    found = enabled.get(configured) or enabled.get(chat_model) or policy.default_of("standard")
    if found is None:
        raise NoModel
    return found


def asker_of(task: SystemTask, trace_id: str) -> identity.Asker:
    """On whose behalf a task calls a model: the user whose turn or upload wanted it."""
    tenant_id, chat_id = TenantId(task.tenant_id), ChatId(task.chat_id)
    return identity.Asker(tenant_id, UserId(task.user_id), chat_id, trace_id, task.system_task_type)


async def answer_in_time(asker: identity.Asker, model: Model, prompt: Prompt, means: TaskDeps) -> TaskAnswer:
    """The model's whole answer.

    Raises TaskFailed.
    """
    try:
        async with asyncio.timeout(means.seconds):
            told = await answered(asker, model.provider_id, prompt, means)
    except TimeoutError:
        raise TaskFailed("no answer in time") from None
    if isinstance(told, Failed):
        raise TaskFailed(f"{told.code}: {told.diagnostic}")
    return told


async def answered(asker: identity.Asker, provider_id: str, prompt: Prompt, means: TaskDeps) -> TaskAnswer | Failed:
    """The provider's whole answer, or its failure."""
    texts: list[str] = []
    prompt = identity.told(prompt, asker, means.rules.settings.cursor_secret.get_secret_value())
    async with aclosing(means.providers.stream(asker.tenant_id, provider_id, prompt)) as chunks:
        async for chunk in chunks:
            match chunk:
                case TextDelta(text=text):
                    texts.append(text)
                case Incomplete(signal=CompletionSignal(kind="refusal"), usage=usage):
                    return Failed("provider_error", "the model declined", usage)
                case Completed(usage=usage) | Incomplete(usage=usage):
                    return TaskAnswer("".join(texts), usage)
                case Failed():
                    return chunk
    return Failed("provider_error", "the stream ended without a terminal event")


def call_of(task: SystemTask, trace_id: str, means: TaskDeps) -> Call:
    """The call under which a task writes its result."""
    return Call(Caller(TenantId(task.tenant_id), UserId(task.user_id), "system"), means.clock(), means.new_id, trace_id)


def usage_event(call: Call, task: SystemTask, model: Model, usage: Usage) -> UsageEvent:
    """What a task used. No user pays for it, and it has no turn."""
    return UsageEvent(
        tenant_id=task.tenant_id,
        chat_id=task.chat_id,
        request_id=RequestId(task.system_request_id),
        requester_type="system",
        selected_model=model.id,
        effective_model=model.id,
        tier=model.tier,
        terminal_state="completed",
        billing_outcome="system_task",
        settlement_method="none",
        usage=TokenUsage.told(usage),
        reserved_credits_micro=0,
        actual_credits_micro=0,
        committed_credits_micro=0,
        policy_version_applied=0,
        system_task_type=task.system_task_type,
        timestamp=call.now,
    )
