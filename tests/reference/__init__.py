"""What can be looked up, made from the code: `docs/reference/`, and the tables of cost; written by `make docs`."""

import re

from infra import cost
from tests.reference import commands, decisions, problems, settings

FOLDER = "docs/reference"
SCALING = "docs/scaling.md"


def pages() -> dict[str, str]:
    """Each page of the folder by its name, as the code has it now."""
    return {
        "cli.md": commands.write(),
        "decisions.md": decisions.write(),
        "errors.md": problems.write(),
        "settings.md": settings.write(),
    }


def with_costs(page: str) -> str:
    """The page with the tables of cost, as the code has them now, between its markers."""
    begin, end = "<!-- costs -->\n", "\n<!-- end of costs -->"
    return re.sub(f"(?s){begin}.*?{end}", lambda _: begin + cost.write() + end, page)
