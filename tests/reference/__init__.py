"""What can be looked up, made from the code: `docs/reference/`, the OpenAPI documents, the decision records and costs.

`make docs` writes them.
"""

import re
from pathlib import Path

from infra import cost
from tests.reference import commands, decisions, problems, settings
from tests.reference.markdown import page

FOLDER = "docs/reference"
RECORDS = "docs/decisions"
SCALING = "docs/scaling.md"


def pages() -> dict[str, str]:
    """Each page of the folder by its name, as the code has it now."""
    return {
        "cli.md": commands.write(),
        "decisions.md": decisions.write(),
        "errors.md": problems.write(),
        "settings.md": settings.write(),
    }


def with_costs(text: str) -> str:
    """The page with the tables of cost, as the code has them now, between its markers."""
    begin, end = "<!-- costs -->\n", "\n<!-- end of costs -->"
    return re.sub(f"(?s){begin}.*?{end}", lambda _: begin + cost.write() + end, text)


def list_of_records(folder: Path) -> str:
    """The page that lists the decision records of a folder, by their numbers and titles."""
    titles = {path.name: path.read_text(encoding="utf-8").splitlines()[0] for path in sorted(folder.glob("[0-9]*.md"))}
    lines = [f"- [{title.removeprefix('# ')}]({name})" for name, title in titles.items()]
    return page("# Decisions", "Why things are as they are, and what else was looked at.", "\n".join(lines))
