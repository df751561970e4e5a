"""Gives a chat a title after its first exchange, when nobody else has: a task of the system."""

from minichat import greenlets
from minichat.domain import title
from minichat.domain.identity import ChatId, MessageId, TenantId
from minichat.events.payloads import ChatTitleTask
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.services.system_tasks import (
    TaskDeps,
    TaskOutcome,
    answer_in_time,
    asker_of,
    call_of,
    model_for,
    usage_event,
)
from minichat.storage import chats, messages, outbox, titles


async def entitle(task: ChatTitleTask, trace_id: str, means: TaskDeps) -> TaskOutcome:
    """Has a model title the chat of a task, unless it has a title by then. An unusable answer leaves it without one.

    Raises TaskFailed, NoModel, and ServiceUnavailable.
    """
    tenant_id, chat_id = TenantId(task.tenant_id), ChatId(task.chat_id)
    chat = await greenlets.run(chats.read, tenant_id, chat_id)
    if chat is None or chat.deleted_at is not None:
        return TaskOutcome.GONE
    ids = MessageId(task.user_message_id), MessageId(task.assistant_message_id)
    said = [await greenlets.run(messages.visible, tenant_id, chat_id, one) for one in ids]
    question, answer = said
    if chat.title is not None or question is None or answer is None:
        return TaskOutcome.LOST
    settings = means.rules.settings.chat_titles
    model = model_for(means.rules.policy, settings.model_id, chat.model)
    text = title.request(question.content, answer.content, cut_at=settings.message_content_limit)
    most = min(model.max_output_tokens, settings.max_output_tokens)
    prompt = Prompt(model.provider_model_id, title.INSTRUCTIONS, (PromptMessage("user", text),), most)
    told = await answer_in_time(asker_of(task, trace_id), model, prompt, means)
    made = title.extracted(told.text)
    if made is None:
        return TaskOutcome.NOTHING
    call = call_of(task, trace_id, means)
    event = outbox.item(call, chat_id, usage_event(call, task, model, told.usage))
    given = await greenlets.run(titles.give, call, chat_id, made, answer.message_id, event)
    return TaskOutcome.DONE if given else TaskOutcome.LOST
