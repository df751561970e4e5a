"""What a user has used."""

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from minichat.domain.errors import FieldError, InvalidRequest
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheCall
from minichat.http.problems import documented
from minichat.storage import usage_ledger

MOST_DAYS = 93

router = APIRouter(tags=["quota"], route_class=Authenticated)


class DayOfUsage(BaseModel):
    """The settled turns of one day, in UTC."""

    day: date
    turns: int
    credits_micro: int
    input_tokens: int
    output_tokens: int


class UsageReport(BaseModel):
    """Days on which something was used, the first day first."""

    items: list[DayOfUsage]


@router.get("/usage", dependencies=[acts("usage:read")], responses=documented())
def get_usage(
    call: TheCall,
    since: Annotated[date, Query(alias="from", description="The first day, in UTC.")],
    until: Annotated[date, Query(alias="to", description="The last day, at most 92 after the first.")],
) -> UsageReport:
    """What the caller has used, day by day. It follows the turns within seconds; the quota's status is exact."""
    caller = call.caller
    found = usage_ledger.of_user(caller.tenant_id, caller.user_id, days(since, until))
    return UsageReport(
        items=[
            DayOfUsage(
                day=date.fromisoformat(total.day),
                turns=total.used.turns,
                credits_micro=total.used.committed_micro,
                input_tokens=total.used.input_tokens,
                output_tokens=total.used.output_tokens,
            )
            for total in found
        ]
    )


def days(since: date, until: date) -> list[str]:
    """The days from the first to the last, as the ledger names them.

    Raises InvalidRequest when there is none, or there are more than `MOST_DAYS`.
    """
    count = (until - since).days + 1
    if not 0 < count <= MOST_DAYS:
        raise InvalidRequest(FieldError("to", f"`from` and `to` span 1 to {MOST_DAYS} days.", "span"))
    return [(since + timedelta(days=number)).isoformat() for number in range(count)]
