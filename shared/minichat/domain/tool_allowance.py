"""How often a turn may use the tools that its model is offered: pure (turns-and-quota 4).

As often as a message may, or as the day has left of it; that much is set aside, and the model is told.
"""

from datetime import datetime
from typing import Any

from minichat.domain.day_counts import DayCounts, lacking
from minichat.domain.errors import QuotaExceeded
from minichat.domain.policy import Model
from minichat.domain.tools import Tools
from minichat.domain.turn import Reserve, ToolCalls


def offered(tools: Tools) -> list[str]:
    """The tools that the model may use, as ToolCalls names them."""
    may_use = {
        "web_search": tools.web_search,
        "code_interpreter": tools.code_files,
        "file_search": tools.vector_stores,
    }
    return [tool for tool, may in may_use.items() if may]


def most_calls(
    tools: Tools, per_message: ToolCalls, used: DayCounts, per_day: DayCounts, now: datetime
) -> dict[str, Any]:
    """The most calls of each tool, by the members of a reserve: a message's, or what `used` leaves of the day's.

    Raises QuotaExceeded (scope of a tool that has none left).
    """
    calls = {}
    for tool in offered(tools):
        if (none_left := lacking(used, DayCounts(**{tool: 1}), per_day, now)) is not None:
            raise QuotaExceeded(none_left)
        left = getattr(per_day, tool) - getattr(used, tool)
        calls[f"{tool}_calls"] = min(getattr(per_message, tool), left)
    return calls


def told_of_calls(model: Model, reserve: Reserve, tools: Tools) -> Model:
    """The model, told how many calls are set aside: one that keeps to them is not stopped, which fails the turn."""
    most = reserve.web_search_calls + reserve.code_interpreter_calls + reserve.file_search_calls
    if not tools.any or model.max_tool_calls <= most:
        return model
    return model.model_copy(update={"max_tool_calls": most})
