"""What can be looked up, made from the code: `docs/reference/`, written by `make docs`."""

from tests.reference import commands, problems, settings

FOLDER = "docs/reference"


def pages() -> dict[str, str]:
    """Each page of the folder by its name, as the code has it now."""
    return {"cli.md": commands.write(), "errors.md": problems.write(), "settings.md": settings.write()}
