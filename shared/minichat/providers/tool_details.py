"""What a tool did, read from OpenAI's items and Anthropic's blocks."""

import json
from typing import Any

from minichat.domain.tool_details import UNTOLD, ToolDetails
from minichat.providers.citations import listed
from minichat.providers.json_fields import UNREADABLE, at

FILES, OUTPUTS = "file_search_call.results", "code_interpreter_call.outputs"
"""Details that OpenAI includes in its items only on request."""


def of_item(item: Any) -> ToolDetails:
    """The details in an OpenAI item of a tool's call, without unreadable ones."""
    match at(item, "type"):
        case "file_search_call" if isinstance(found := at(item, "results"), list):
            files = (at(one, "file_id") for one in found)
            return ToolDetails(files=tuple(one for one in files if isinstance(one, str)))
        case "code_interpreter_call" if isinstance(outputs := at(item, "outputs"), list):
            logs = (at(one, "logs") for one in outputs if at(one, "type") == "logs")
            return ToolDetails(output="\n".join(one for one in logs if isinstance(one, str)))
        case "web_search_call":
            asked = at(item, "action", "query")
            queries = [asked, *listed(at(item, "action", "queries"))]
            return ToolDetails(query=next((one for one in queries if isinstance(one, str)), None))
    return UNTOLD


def of_result(block: Any, asked: str) -> ToolDetails:
    """The details in an Anthropic block of a tool's result; `asked` is the tool's input, as JSON."""
    if at(block, "type") == "web_search_tool_result":
        try:
            query = at(json.loads(asked), "query")
        except UNREADABLE:
            query = None
        return ToolDetails(query=query if isinstance(query, str) else None)
    printed = (at(block, "content", stream) for stream in ("stdout", "stderr"))
    said = [one for one in printed if isinstance(one, str)]
    return ToolDetails(output="".join(said) if said else None)
