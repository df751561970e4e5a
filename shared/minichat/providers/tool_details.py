"""What a tool did, as providers tell it: of OpenAI's items, and of Anthropic's blocks."""

import json
from typing import Any

from minichat.domain.tool_details import UNTOLD, ToolDetails
from minichat.providers.citations import listed
from minichat.providers.json_fields import UNREADABLE, at

FILES, OUTPUTS = "file_search_call.results", "code_interpreter_call.outputs"
"""What OpenAI leaves out of its items unless it is asked to include it."""


def of_item(item: Any) -> ToolDetails:
    """Of an item of OpenAI's that is a tool's call. Nothing of what cannot be read."""
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
    """Of a block of Anthropic's that is a tool's result; `asked` is the JSON of what the tool was asked."""
    if at(block, "type") == "web_search_tool_result":
        try:
            query = at(json.loads(asked), "query")
        except UNREADABLE:
            query = None
        return ToolDetails(query=query if isinstance(query, str) else None)
    printed = (at(block, "content", stream) for stream in ("stdout", "stderr"))
    said = [one for one in printed if isinstance(one, str)]
    return ToolDetails(output="".join(said) if said else None)
