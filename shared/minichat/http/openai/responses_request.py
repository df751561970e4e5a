"""The body of `POST /responses`, read; what cannot be honoured is refused by name."""

from typing import Any
from uuid import UUID

from minichat.domain.identity import AttachmentId
from minichat.domain.message import Aside
from minichat.http.openai.inquiry import Inquiry, Spoken, content_of, role_of, split
from minichat.http.openai.parameters import (
    OF_RESPONSES,
    POLICY,
    asks_for_web_search,
    check,
    flag,
    given,
    refuse,
    sampling,
    text,
    tokens,
)

HONOURED = frozenset(
    (
        "background",
        "conversation",
        "input",
        "instructions",
        "max_output_tokens",
        "model",
        "previous_response_id",
        "reasoning",
        "store",
        "stream",
        "temperature",
        "tools",
        "top_p",
        "truncation",
    )
)
LEAST_TOKENS = 16
_TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
_OWN_ITEMS = ("web_search_call", "file_search_call", "code_interpreter_call")
"""Items of our own answers, which clients send back with them: what a tool found is in the answer's text."""
_OF_MESSAGES = frozenset(("type", "role", "content", "id", "status", "phase"))
_FILES = ("input_file", "input_image")


def read(body: Any) -> Inquiry:
    """What the body asks for. Raises InvalidRequest about the first parameter that cannot be honoured."""
    asked = given(body)
    effort = _effort(asked)
    check(asked, HONOURED, OF_RESPONSES)
    previous, conversation = _previous(asked), _conversation(asked)
    continues = previous is not None or conversation is not None
    keeps = flag(asked, "store") if "store" in asked else None
    _check_kept(asked, continues=continues, keeps=keeps)
    said, files = _said(asked.get("input"), continues=continues)
    content, instructions, history = split("input", said, text("instructions", asked.get("instructions", "")))
    if keeps and history:
        refuse("store", "A conversation that comes with the request is not kept: leave `store` out.", "invalid_value")
    if continues and history:
        refuse("input", "A conversation is continued with one message of the user.", "invalid_value")
    limit = tokens(asked, "max_output_tokens", LEAST_TOKENS)
    truncates = _truncates(asked, is_stored=not (history or keeps is False))
    return Inquiry(
        content=content,
        aside=Aside(instructions, history, limit, whole=bool(history) and not truncates),
        model=text("model", asked["model"]) if "model" in asked else None,
        web_search=asks_for_web_search(asked),
        attachment_ids=files,
        sampling=sampling(asked) | effort,
        stream=flag(asked, "stream"),
        background=flag(asked, "background"),
        keeps=keeps,
        previous=previous,
        conversation=conversation,
    )


def _effort(asked: dict[str, Any]) -> dict[str, Any]:
    """The effort of `reasoning`, which is one of sampling's parameters; nothing else of it can be honoured."""
    wanted = given(asked.get("reasoning", {}), "reasoning")
    for name in wanted:
        if name != "effort":
            refuse(f"reasoning.{name}", POLICY)
    return {"reasoning_effort": wanted["effort"]} if wanted else {}


def _previous(asked: dict[str, Any]) -> str | None:
    return text("previous_response_id", asked["previous_response_id"]) if "previous_response_id" in asked else None


def _conversation(asked: dict[str, Any]) -> str | None:
    named = asked.get("conversation")
    if named is None:
        return None
    if "previous_response_id" in asked:
        refuse("conversation", "`previous_response_id` names a conversation already.", "mutually_exclusive_parameters")
    return text("conversation", named.get("id") if isinstance(named, dict) else named)


def _check_kept(asked: dict[str, Any], *, continues: bool, keeps: bool | None) -> None:
    if keeps is False and continues:
        refuse("store", "What is said in a conversation is kept with it.", "invalid_value")
    if keeps is False and flag(asked, "background"):
        refuse("background", "An answer that is not kept cannot be fetched later.", "invalid_value")


def _truncates(asked: dict[str, Any], *, is_stored: bool) -> bool:
    wanted = asked.get("truncation")
    if wanted is not None and text("truncation", wanted) not in {"auto", "disabled"}:
        refuse("truncation", "`auto` or `disabled` is expected.", "invalid_value")
    if wanted == "disabled" and is_stored:
        refuse("truncation", "A chat's older part is summarized, or left out of the prompt.", "unsupported_value")
    return wanted == "auto"


def _said(given_input: Any, *, continues: bool) -> tuple[list[Spoken], tuple[AttachmentId, ...]]:
    if given_input is None:
        refuse("input", "A message is needed.", "missing_required_parameter")
    if isinstance(given_input, str):
        return [Spoken("input", "user", text("input", given_input))], ()
    if not isinstance(given_input, list):
        refuse("input", "A text or a list of items is expected.", "invalid_type")
    said, files = [], []
    for number, item in enumerate(given_input):
        where = f"input[{number}]"
        members = given(item, where)
        kind = members.get("type", "message")
        if kind in _OWN_ITEMS:
            continue
        if kind != "message":
            refuse(where, f"Items of type {kind!r} are not taken here.", "unsupported_value")
        if unknown := sorted(members.keys() - _OF_MESSAGES):
            refuse(f"{where}.{unknown[0]}", "Unknown parameter.", "unknown_parameter")
        content = members.get("content")
        if isinstance(content, list):
            found = [_file(f"{where}.content[{at}]", part, continues=continues) for at, part in enumerate(content)]
            files += [one for one in found if one is not None]
            content = [part for part, one in zip(content, found, strict=True) if one is None]
        role = role_of(where, members.get("role"))
        said.append(Spoken(where, role, content_of(f"{where}.content", content, _TEXTS)))
    return said, tuple(files)


def _file(where: str, part: Any, *, continues: bool) -> AttachmentId | None:
    """The attachment that a part names; None for a part that is no file."""
    if not isinstance(part, dict) or part.get("type") not in _FILES:
        return None
    if not continues:
        refuse(where, "A file is one of the chat's attachments: name the `conversation`.", "unsupported_value")
    members = given(part)
    for name in members:
        if name not in {"type", "file_id"} and not (name == "detail" and members[name] == "auto"):
            refuse(f"{where}.{name}", "A file is named by the id of the chat's attachment.")
    try:
        return AttachmentId(str(UUID(str(members.get("file_id")))))
    except ValueError:
        refuse(f"{where}.file_id", "The id of an attachment of the chat is expected.", "invalid_value")
