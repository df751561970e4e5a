"""Shows the repository's pages at their own paths, so that a link holds on the site as it does among the files.

A hook of mkdocs (`mkdocs.yml`), which takes pages from one folder only: this one is made of links, and ignored by git.
"""

from pathlib import Path
from typing import Any

SOURCE = ".site/source"
# With what is linked from pages, and not only pages themselves.
SHOWN = ("*.md", "*.yaml", "LICENSE", "clients", "docs", "examples", "infra", "shared", "tests")


def on_config(config: Any) -> None:
    """Has mkdocs read the folder of links."""
    root = Path(config["config_file_path"]).parent
    source = root / SOURCE
    source.mkdir(parents=True, exist_ok=True)
    for found in (path for pattern in SHOWN for path in root.glob(pattern)):
        if not (source / found.name).is_symlink():
            (source / found.name).symlink_to(found)
    config["docs_dir"] = str(source)
