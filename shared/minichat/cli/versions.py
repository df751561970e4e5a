"""What commands share that are about published versions: showing one, and listing all."""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.settings import SettingsError
from minichat_client import MiniChat, Refused

PAGE = 10
"""Versions of one answer: each comes whole."""
_MISSING = {"policy_not_found", "providers_not_found"}

Version = dict[str, Any]


def add_by_to(parser: Any) -> None:
    """Adds the option that says who publishes."""
    parser.add_argument(
        "--by", help="who publishes, where no API is named (default: the login name); else the token says it"
    )


def show(options: argparse.Namespace, place: tuple[str, ...], what: str) -> int:
    """Prints the version that the options name, or the one in force, of what is at that path; its exit code.

    Raises SettingsError when there is none, and as `target.operating` does.
    """
    with target.operating(options) as api:
        found = _one(api, *place) if options.version is None else _one(api, *place, "versions", str(options.version))
    if found is None:
        version = options.version
        raise SettingsError(f"No {what} was published yet." if version is None else f"There is no version {version}.")
    print(json.dumps(found["document"], indent=2, ensure_ascii=False))
    return 0


def history(
    options: argparse.Namespace,
    place: tuple[str, ...],
    columns: tuple[str, ...] = (),
    about: Callable[[Version], tuple[object, ...]] = lambda _: (),
) -> int:
    """Prints all versions of what is at that path, the newest first, with `columns` that are `about` each; 0.

    Raises as `target.operating` does.
    """
    with target.operating(options) as api:
        found = _one(api, *place)
        in_force = None if found is None else found["version"]
        rows = [
            (
                f"{one['version']}{' *' if one['version'] == in_force else ''}",
                one["published_at"][:19].replace("T", " ") + "Z",
                one["published_by"],
                *about(one),
            )
            for one in _all(api, *place)
        ]
    print(table(("version", "published", "by", *columns), rows))
    return 0


def _one(api: MiniChat, *path: str) -> Version | None:
    try:
        found: Version = api.call("GET", *path)
    except Refused as refused:
        if refused.code in _MISSING:
            return None
        raise
    return found


def _all(api: MiniChat, *place: str) -> Iterator[Version]:
    before: dict[str, int] = {}
    while page := api.call("GET", *place, "versions", limit=PAGE, **before)["items"]:
        yield from page
        if len(page) < PAGE or page[-1]["version"] <= 1:
            return
        before = {"before": page[-1]["version"]}
