"""Summarizes a document with a model that searches it at its provider: a task of the system.

By then the file exists only at the provider. Only what a model can search is summarized: no images, no tables for the
code interpreter, nothing at a provider whose models have no file search.
"""

from minichat import greenlets
from minichat.domain import doc_summary
from minichat.domain.attachment import Attachment, AttachmentStatus
from minichat.domain.identity import AttachmentId, ChatId, TenantId
from minichat.domain.policy import Model, Policy
from minichat.events.payloads import DocSummaryTask
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.services.system_tasks import TaskDeps, TaskOutcome, answer_in_time, asker_of, call_of, usage_event
from minichat.storage import attachment_steps, attachments, outbox


async def summarize(task: DocSummaryTask, trace_id: str, means: TaskDeps) -> TaskOutcome:
    """Summarizes the document of a task, unless it has a summary or no model can. An unusable answer leaves it without.

    Raises TaskFailed, and ServiceUnavailable.
    """
    where = TenantId(task.tenant_id), ChatId(task.chat_id), AttachmentId(task.attachment_id)
    chat, document = await greenlets.run(attachments.with_chat, *where)
    if chat is None or chat.deleted_at is not None or document is None or document.deleted_at is not None:
        return TaskOutcome.GONE
    if document.summarized_at is not None:
        return TaskOutcome.LOST
    policy, settings = means.rules.policy, means.rules.settings.doc_summaries
    model = _model(policy, settings.model_id, chat.model, document.storage_backend)
    is_ready = document.status is AttachmentStatus.READY and document.vector_store_id is not None
    if model is None or not is_ready or policy.kill_switches.disable_file_search:
        return TaskOutcome.NOTHING
    prompt = _prompt(document, model, min(model.max_output_tokens, settings.max_output_tokens))
    told = await answer_in_time(asker_of(task, trace_id), model, prompt, means)
    summary = doc_summary.extracted(told.text)
    if summary is None:
        return TaskOutcome.NOTHING
    call = call_of(task, trace_id, means)
    event = outbox.item(call, document.chat_id, usage_event(call, task, model, told.usage))
    written = await greenlets.run(attachment_steps.summarized, call, document, summary, event)
    return TaskOutcome.DONE if written else TaskOutcome.LOST


def _model(policy: Policy, configured: str, chat_model: str, provider_id: str) -> Model | None:
    """A model that can search this provider's files: the configured one, the chat's, else the first in the catalog."""
    able = {
        model.id: model
        for model in policy.enabled_models()
        if model.provider_id == provider_id and model.general_config.tool_support.file_search
    }
    return able.get(configured) or able.get(chat_model) or next(iter(able.values()), None)


def _prompt(document: Attachment, model: Model, max_output_tokens: int) -> Prompt:
    assert document.vector_store_id is not None
    return Prompt(
        model=model.provider_model_id,
        instructions=doc_summary.INSTRUCTIONS,
        messages=(PromptMessage("user", doc_summary.request(document.filename)),),
        max_output_tokens=max_output_tokens,
        max_tool_calls=model.max_tool_calls,
        vector_stores=(document.vector_store_id,),
        max_num_results=model.max_num_results,
        # The chat's other documents are in the same store.
        only_attachment=document.attachment_id,
    )
