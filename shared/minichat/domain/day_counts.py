"""The numbers of a day: what a user may do so many times between two UTC midnights (turns-and-quota 4)."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal, cast

from minichat.domain.errors import UsedUp
from minichat.domain.quota_periods import next_reset, used_up

Scope = Literal["web_search", "code_interpreter", "file_search", "image_inputs", "uploads"]


@dataclass(frozen=True, slots=True)
class DayCounts:
    """Numbers limited per user and day: how many are used of each, or the most that a day has.

    A member is named as its quota's scope; the scope of `upload_bytes` is `uploads`.
    """

    web_search: int = 0
    code_interpreter: int = 0
    file_search: int = 0
    image_inputs: int = 0
    uploads: int = 0
    upload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """Where a user stands with one number of a day, as clients see it."""

    scope: Scope
    unit: Literal["calls", "images", "files", "bytes"]
    limit: int
    used: int
    next_reset: datetime


_UNITS: dict[str, Literal["images", "files", "bytes"]] = {
    "image_inputs": "images",
    "uploads": "files",
    "upload_bytes": "bytes",
}


def counted(used: DayCounts, per_day: DayCounts, now: datetime) -> list[Counted]:
    """Where a user stands with every number of the day."""
    return [
        Counted(
            _scope_of(member.name),
            _UNITS.get(member.name, "calls"),
            getattr(per_day, member.name),
            getattr(used, member.name),
            next_reset("daily", now),
        )
        for member in fields(DayCounts)
    ]


def lacking(used: DayCounts, wanted: DayCounts, per_day: DayCounts, now: datetime) -> UsedUp | None:
    """Which number of a day has less left than is wanted; None when none has."""
    for member in fields(DayCounts):
        more, most = getattr(wanted, member.name), getattr(per_day, member.name)
        if more and getattr(used, member.name) + more > most:
            return used_up(_scope_of(member.name), "daily", now, helps=more <= most)
    return None


def _scope_of(member: str) -> Scope:
    return "uploads" if member == "upload_bytes" else cast(Scope, member)
