"""What a model can be given of a chat's files, and which tools it may use: pure (context-attachments-providers 1).

A file is at one provider, that of the chat's model when it came, and only that provider's models can use it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from minichat.domain.attachment import Attachment
from minichat.domain.files import TYPES, Purpose
from minichat.domain.identity import AttachmentId
from minichat.domain.policy import KillSwitches, Model

VISION = "VISION_INPUT"


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a chat that is ready: what it is at its provider, and what it is about, once that is known.

    Without a vector store it cannot be searched.
    """

    attachment_id: AttachmentId
    filename: str
    content_type: str
    provider: str
    file_id: str
    vector_store_id: str | None
    summary: str = ""

    def serves(self, purpose: Purpose) -> bool:
        """Whether documents of its type are for this tool."""
        return self.content_type in TYPES and purpose in TYPES[self.content_type].purposes


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model may use: the web, the chat's vector stores, and a code interpreter with these of its files."""

    web_search: bool = False
    vector_stores: tuple[str, ...] = ()
    code_files: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether it may use anything at all."""
        return self.web_search or bool(self.vector_stores or self.code_files)


def tools_of(model: Model, documents: Sequence[Document], switches: KillSwitches, *, web_search: bool) -> Tools:
    """What this model is offered: tools that it supports, nobody switched off, and the chat has something for.

    A model that cannot search the web answers without it.
    """
    support = model.general_config.tool_support
    own = [document for document in documents if document.provider == model.provider_id]
    stores, code_files = [], []
    if support.file_search and not switches.disable_file_search:
        stores = [one.vector_store_id for one in own if one.vector_store_id and one.serves("file_search")]
    if support.code_interpreter and not switches.disable_code_interpreter:
        code_files = [one.file_id for one in own if one.serves("code_interpreter")]
    return Tools(web_search and support.web_search, tuple(dict.fromkeys(stores)), tuple(code_files))


def sees(model: Model, images: Sequence[Attachment], file_providers: Collection[str]) -> bool:
    """Whether the model can be shown every one of these images; true without any."""
    if not images:
        return True
    has_eyes = VISION in model.multimodal_capabilities and model.provider_id in file_providers
    return has_eyes and all(image.storage_backend == model.provider_id for image in images)
