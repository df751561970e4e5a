"""What a check finds, how many checks run at once, and how they are told; and what AWS's refusals mean to a check."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

CONNECT_SECONDS = 3
PATIENCE_SECONDS = 15
"""For all checks together, which run in parallel: resolving a name has no timeout of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` says what to do unless all is well."""

    result: Literal["ok", "warning", "failed"]
    detail: str
    advice: str = ""


Check = Callable[[], Finding]


def in_time(wanted: Mapping[str, Check]) -> dict[str, Finding]:
    """The findings, in the order of the checks; a check that takes too long is abandoned."""
    found: dict[str, Finding] = {}

    def look(name: str, check: Check) -> None:
        try:
            found[name] = check()
        except Exception as error:
            # Its text may hold anything, even a secret.
            found[name] = Finding("failed", f"the check broke: {type(error).__name__}", "Report it: it is our fault.")

    threads = [threading.Thread(target=look, args=one, daemon=True) for one in wanted.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = Finding("failed", f"no answer in {PATIENCE_SECONDS} s", "See that names resolve and routes are open.")
    return {name: found.get(name, late) for name in wanted}


def tell(found: Mapping[str, Finding], *, as_json: bool) -> int:
    """Prints every finding and how many there are of each kind; returns 0 when nothing failed, 1 otherwise."""
    count = Counter(finding.result for finding in found.values())
    if as_json:
        told = [
            {"check": name, "result": one.result, "detail": one.detail, "advice": one.advice or None}
            for name, one in found.items()
        ]
        print(
            json.dumps({"checks": told, **{result: count[result] for result in ("ok", "warning", "failed")}}, indent=2)
        )
    else:
        width = max(map(len, found))
        for name, one in found.items():
            print(f"{one.result:7}  {name:{width}}  {one.detail}" + (f". {one.advice}" if one.advice else ""))
        print(f"{count['ok']} ok, {count['warning']} warnings, {count['failed']} failed")
    return 1 if count["failed"] else 0


def code(error: ClientError) -> str:
    """What AWS calls its refusal."""
    return str(error.response["Error"].get("Code", ""))


def refused(error: ClientError, permissions: str) -> Finding:
    """What a refusal means that is not about what was looked for: no permission, or trouble at AWS."""
    if error.response["ResponseMetadata"].get("HTTPStatusCode", 500) >= 500:
        return Finding("failed", f"the service answers {code(error)}", "Try again; see the service's health.")
    return Finding("failed", f"refused: {code(error)}", f"Sign in as somebody who is allowed {permissions}.")


def unanswered(error: BotoCoreError, endpoint: str | None = None, variable: str = "") -> Finding:
    """What it means that a call had no answer, from AWS or from the endpoint that a variable names."""
    if isinstance(error, NoCredentialsError):
        return Finding("failed", "there are no AWS credentials", "Sign in to AWS, or name a profile in AWS_PROFILE.")
    if endpoint is not None:
        advice = f"Start what should be at {place(endpoint)}, or correct {variable}."
        return Finding("failed", f"{place(endpoint)} does not answer ({type(error).__name__})", advice)
    return Finding("failed", f"AWS does not answer ({type(error).__name__})", "See to the network and the region.")


def reason(error: Exception) -> str:
    """Why a connection failed, in few words."""
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_SECONDS} s"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def place(url: str) -> str:
    """A URL without the parts that may be secret; a path unchanged."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def one_line(error: object) -> str:
    """A text that may have several lines, as one."""
    return "; ".join(line.strip() for line in str(error).splitlines())
