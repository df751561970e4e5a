"""`Prefer: wait=N` (RFC 7240): how long an answer may be held back until a file is `ready` or `failed` (contract 1)."""

import math
import re
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from minichat.http.deps import TheApp, TheCall

LEFT_SECONDS = 4
"""Seconds before an invocation's end at which a call stops waiting."""

# The first `wait` counts; text within quotes is no preference (RFC 7240, sections 2 and 4.3).
_WAIT = re.compile(r"""(?:^|,)\s*wait\s*=\s*"?(\d{1,6})"?\s*(?:[,;]|$)""", re.IGNORECASE)
_QUOTED = re.compile(r'''"(?!\d+")(?:[^"\\]|\\.)*"''')


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a call may wait: at most `most` seconds, and only until `until` (monotonic clock)."""

    most: float
    until: float

    @property
    def seconds(self) -> float:
        """The seconds left now."""
        return max(min(self.most, self.until - time.monotonic()), 0)


async def _wait(
    request: Request,
    response: Response,
    call: TheCall,
    app: TheApp,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N` (RFC 7240): answer when the file is `ready` or `failed`, or after N seconds."),
    ] = None,
) -> Wait:
    left = math.inf if call.ends_at is None else (call.ends_at - call.now).total_seconds() - LEFT_SECONDS
    most = app.settings.attachments.max_wait_seconds
    asked = None if prefer is None else _WAIT.search(_QUOTED.sub("", ",".join(request.headers.getlist("prefer"))))
    if asked is None or not most:
        return Wait(0, 0)
    wait = Wait(min(int(asked[1]), most), time.monotonic() + left)
    response.headers["preference-applied"] = f"wait={int(wait.seconds)}"
    return wait


TheWait = Annotated[Wait, Depends(_wait)]
