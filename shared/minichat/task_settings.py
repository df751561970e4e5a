"""Settings of the system's own model tasks: whether they run, with which model, how many attempts."""

from typing import Annotated

from pydantic import Field

from minichat.settings_group import SettingsGroup


class ThreadSummary(SettingsGroup):
    """When the older part of a chat is summarized, and how (context-attachments-providers 2)."""

    enabled: bool = True
    compression_threshold_pct: Annotated[int, Field(ge=1, le=99)] = 80
    verbatim_turns: Annotated[int, Field(ge=1, le=20, description="the last turns, which are not summarized yet")] = 2
    max_attempts: Annotated[int, Field(ge=1, le=4, description="below the queue's maxReceiveCount")] = 3
    message_content_limit: Annotated[int, Field(ge=0, description="characters of a message; 0 for all")] = 4000
    max_output_tokens: Annotated[int, Field(ge=256, le=32_768)] = 4096
    summary_model_id: Annotated[str, Field(description="of the policy; empty for the chat's own")] = ""
    summary_system_prompt: Annotated[str, Field(description="where the model has no thread_summary_prompt")] = ""


class ChatTitles(SettingsGroup):
    """Titles from the first exchange, for untitled chats (context-attachments-providers 2)."""

    enabled: bool = True
    max_attempts: Annotated[int, Field(ge=1, le=4, description="below the queue's maxReceiveCount")] = 3
    message_content_limit: Annotated[int, Field(ge=1, description="characters of a message")] = 2000
    max_output_tokens: Annotated[int, Field(ge=16, le=32_768, description="models that think first need more")] = 1024
    model_id: Annotated[str, Field(description="of the policy; empty for the chat's own")] = ""


class DocSummaries(SettingsGroup):
    """Short summaries of documents, made once they are ready (context-attachments-providers 3)."""

    enabled: bool = True
    max_attempts: Annotated[int, Field(ge=1, le=4, description="below the queue's maxReceiveCount")] = 3
    max_output_tokens: Annotated[int, Field(ge=16, le=32_768, description="models that think first need more")] = 2048
    model_id: Annotated[str, Field(description="of the policy; empty for the chat's own")] = ""
    note_max_bytes: Annotated[int, Field(ge=0, le=100_000, description="of them in a prompt; 0 for none")] = 4000
