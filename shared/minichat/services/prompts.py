"""What a provider is asked for a turn."""

from minichat.providers.prompt import Prompt, PromptMessage
from minichat.services.new_turn import RunningTurn


def prompt_of(running: RunningTurn) -> Prompt:
    """Instructions, the summary of older messages, the note about documents, the recent messages, and the new one."""
    model, assembly, tools = running.admission.model, running.admission.assembly, running.admission.tools
    summary = [PromptMessage("user", assembly.summary.told)] if assembly.summary is not None else []
    note = [PromptMessage("user", assembly.documents_note)] if assembly.documents_note else []
    history = [PromptMessage("user" if m.role == "user" else "assistant", m.content) for m in assembly.history]
    images = tuple(image.provider_file_id for image in running.admission.images if image.provider_file_id is not None)
    return Prompt(
        model=model.provider_model_id,
        instructions=assembly.instructions,
        messages=(*summary, *note, *history, PromptMessage("user", running.content, images)),
        max_output_tokens=running.turn.reserve.max_output_tokens,
        max_tool_calls=model.max_tool_calls if tools.any else None,
        web_search_context_size=model.web_search_context_size if tools.web_search else None,
        vector_stores=tools.vector_stores,
        max_num_results=model.max_num_results if tools.vector_stores else None,
        code_files=tools.code_files,
        api_params=model.general_config.api_params.model_dump(exclude_none=True, exclude_defaults=True),
    )
