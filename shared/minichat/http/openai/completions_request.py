"""The body of `POST /chat/completions`, read; what cannot be honoured is refused by name."""

from typing import Any

from minichat.domain.message import Aside
from minichat.http.openai.inquiry import Inquiry, Spoken, content_of, role_of, split
from minichat.http.openai.parameters import (
    OF_COMPLETIONS,
    POLICY,
    SAMPLING,
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
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "stream",
        "stream_options",
        "web_search_options",
        *SAMPLING,
    )
)
_TEXTS = {"text": "text", "refusal": "refusal"}
_OF_MESSAGES = frozenset(("role", "content", "refusal", "annotations"))


def read(body: Any) -> Inquiry:
    """What the body asks for. Raises InvalidRequest about the first parameter that cannot be honoured."""
    asked = given(body)
    check(asked, HONOURED, OF_COMPLETIONS)
    if "model" not in asked:
        refuse("model", "A model is needed.", "missing_required_parameter")
    if {"max_tokens", "max_completion_tokens"} <= asked.keys():
        refuse("max_tokens", "`max_completion_tokens` says it already.", "mutually_exclusive_parameters")
    limit = "max_tokens" if "max_tokens" in asked else "max_completion_tokens"
    content, instructions, history = split("messages", _said(asked.get("messages")), "")
    return Inquiry(
        content=content,
        aside=Aside(instructions, history, tokens(asked, limit, 1), whole=bool(history)),
        model=text("model", asked["model"]),
        web_search=_web_search(asked),
        sampling=sampling(asked),
        stream=flag(asked, "stream"),
        include_usage=_includes_usage(asked),
        keeps=False,
    )


def _web_search(asked: dict[str, Any]) -> bool:
    if "web_search_options" not in asked:
        return False
    for name in given(asked["web_search_options"], "web_search_options"):
        refuse(f"web_search_options.{name}", POLICY)
    return True


def _includes_usage(asked: dict[str, Any]) -> bool:
    options = given(asked.get("stream_options", {}), "stream_options")
    if options and not flag(asked, "stream"):
        refuse("stream_options", "Only a stream has options.", "invalid_value")
    wanted = flag(options, "include_usage")
    for name, value in options.items():
        if name != "include_usage" and not (name == "include_obfuscation" and value is False):
            refuse(f"stream_options.{name}", "Chunks are not padded.")
    return wanted


def _said(messages: Any) -> list[Spoken]:
    if not isinstance(messages, list) or not messages:
        refuse("messages", "A list of messages is needed.", "missing_required_parameter")
    said = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        members = given(message, where)
        role = role_of(where, members.get("role"))
        for name, value in members.items():
            # An answer's other members are empty where it used no tool of the caller's.
            if name not in _OF_MESSAGES and value not in ([], {}):
                refuse(f"{where}.{name}", "This cannot be told to the model.")
        content = members.get("content", members.get("refusal", "" if role == "assistant" else None))
        said.append(Spoken(where, role, content_of(f"{where}.content", content, _TEXTS)))
    return said
