"""Parameters of OpenAI's APIs: which are honoured, and why the others are not. None is dropped in silence."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from minichat.domain.errors import FieldError, InvalidRequest
from minichat.domain.policy import Model
from minichat.domain.text import well_formed

POLICY = "The policy of the deployment decides this."
_FUNCTIONS = "Functions of the caller are not offered to the model."
_CACHE = "The prompt cache is the provider's own business here."
_CALLER = "Who asks is what the token says."
_PLAIN = "An answer is plain text here."
_ONE = "There is one answer."
_NOT_KEPT = "Nothing is stored under names of the caller's."
_NOT_TOLD = "Probabilities of tokens are not told."

EITHER: dict[str, str] = {
    "metadata": _NOT_KEPT,
    "moderation": POLICY,
    "parallel_tool_calls": POLICY,
    "prompt_cache_key": _CACHE,
    "prompt_cache_options": _CACHE,
    "prompt_cache_retention": _CACHE,
    "safety_identifier": _CALLER,
    "service_tier": POLICY,
    "tool_choice": POLICY,
    "top_logprobs": _NOT_TOLD,
    "user": _CALLER,
}
OF_RESPONSES: dict[str, str] = EITHER | {
    "access_programs": POLICY,
    "background_options": POLICY,
    "context_management": "A chat summarizes its older part by itself.",
    "image": _PLAIN,
    "include": "Nothing can be included besides what is always told.",
    "max_tool_calls": POLICY,
    "prompt": "There are no stored prompts.",
    "stream_options": "Events are not padded.",
    "text": _PLAIN,
}
OF_COMPLETIONS: dict[str, str] = EITHER | {
    "audio": _PLAIN,
    "function_call": _FUNCTIONS,
    "functions": _FUNCTIONS,
    "logit_bias": POLICY,
    "logprobs": _NOT_TOLD,
    "modalities": _PLAIN,
    "n": _ONE,
    "prediction": POLICY,
    "response_format": _PLAIN,
    "seed": POLICY,
    "stop": POLICY,
    "store": "A chat completion is not kept; a conversation is continued with the Responses API.",
    "tools": _FUNCTIONS,
    "verbosity": POLICY,
}
"""What cannot be honoured but for a value that changes nothing, and why."""

CHANGES_NOTHING: dict[str, tuple[Any, ...]] = {
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "stop": ([],),
    "store": (False,),
    "stream_options": ({}, {"include_obfuscation": False}),
    "text": ({}, {"format": {"type": "text"}}),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""Values that say what is so anyway."""

SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort")
"""Taken where they are those of the model's policy: see `check_sampling`."""
_BY_ITSELF = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "reasoning_effort": None}
"""What a model does of which the policy says nothing."""

_WEB_SEARCH = ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11")


def refuse(param: str, why: str, code: str = "unsupported_parameter") -> NoReturn:
    """Raises InvalidRequest about a parameter."""
    raise InvalidRequest(FieldError(param, f"{param}: {why}", code))


def given(body: Any, where: str = "body") -> dict[str, Any]:
    """The members of an object that have a value. Raises InvalidRequest for what is none."""
    if not isinstance(body, dict):
        refuse(where, "An object is expected.", "invalid_type")
    return {str(name): value for name, value in body.items() if value is not None}


def check(body: Mapping[str, Any], honoured: Iterable[str], refused: Mapping[str, str]) -> None:
    """Raises InvalidRequest for the first parameter that is neither honoured nor changes nothing."""
    for name, value in body.items():
        if name in refused:
            if not any(_same(value, harmless) for harmless in CHANGES_NOTHING.get(name, ())):
                refuse(name, refused[name])
        elif name not in honoured:
            refuse(name, "Unknown parameter.", "unknown_parameter")


def text(param: str, value: Any) -> str:
    """Unicode text. Raises InvalidRequest."""
    if not isinstance(value, str):
        refuse(param, "A text is expected.", "invalid_type")
    try:
        return well_formed(value)
    except ValueError as problem:
        refuse(param, str(problem), "invalid_value")


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A parameter that is true or false; absent means false. Raises InvalidRequest."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        refuse(name, "true or false is expected.", "invalid_type")
    return value


def tokens(body: Mapping[str, Any], name: str, least: int) -> int | None:
    """A number of tokens; None where there is none. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(name, "A whole number is expected.", "invalid_type")
    if value < least:
        refuse(name, f"At least {least} is expected.", "integer_below_min_value")
    return value


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of sampling that were given."""
    return {name: body[name] for name in SAMPLING if name in body}


def check_sampling(wanted: Mapping[str, Any], model: Model) -> None:
    """Raises InvalidRequest for a parameter of sampling that is not the model's own: those are the policy's."""
    for name, value in wanted.items():
        own = getattr(model.general_config.api_params, name)
        own = _BY_ITSELF[name] if own is None else own
        if not _same(value, own):
            refuse(name, f"The policy has it {own} for this model.", "unsupported_value")


def asks_for_web_search(body: Mapping[str, Any]) -> bool:
    """Whether the tools are that of searching the web, the only one that a request chooses. Raises InvalidRequest."""
    tools = body.get("tools", [])
    if not isinstance(tools, list):
        refuse("tools", "A list is expected.", "invalid_type")
    for number, tool in enumerate(tools):
        where = f"tools[{number}]"
        members = {name: value for name, value in given(tool, where).items() if value not in ({}, [])}
        kind = members.pop("type", None)
        if kind == "file_search":
            refuse(where, "The documents of a chat are searched without being asked for.")
        if kind not in _WEB_SEARCH:
            refuse(where, _FUNCTIONS if kind == "function" else f"There is no tool {kind!r} here.")
        for name in members:
            refuse(f"{where}.{name}", POLICY)
    return bool(tools)


def check_web_search(model: Model, param: str) -> None:
    """Raises InvalidRequest when the model cannot search the web."""
    if not model.general_config.tool_support.web_search:
        refuse(param, "This model cannot search the web.", "unsupported_value")


def _same(one: Any, other: Any) -> bool:
    """Equal, and not as JSON's true and 1 are in Python."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
