"""Spans for AWS X-Ray: where the time of one request or record went, as subsegments of what Lambda traces by itself.

A request that Lambda samples (`Sampled=1`) has its measured spans sent to the daemon beside the function, a datagram
each, when its event is written. Each carries our own trace id as an annotation: a request, its provider's log and its
consumers, which are traces of their own to X-Ray, are found by one word. Anywhere else, and without `Tracing`, this
costs a look at a variable. The SDK and Powertools' tracer cost a cold start (docs/decisions/0027).
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

_DAEMON = os.environ.get("AWS_XRAY_DAEMON_ADDRESS", "")
_HEADER = b'{"format": "json", "version": 1}\n'
_ROOT = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Span:
    """What took from one moment to another, in seconds since 1970; with a `trace_id` where it differs from the event's,
    as of the records of a batch."""

    name: str
    began: float
    ended: float
    failed: bool = False
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The segment of Lambda that the spans of an invocation belong to."""

    root: str
    parent: str


def sampled(header: str | None = None) -> Sampled | None:
    """The invocation's segment by its trace header (`Root=…;Parent=…;Sampled=1`), or by that of the environment, where
    Lambda's own runtime has its only invocation's; None when nobody wants its spans."""
    if not _DAEMON:
        return None
    header = os.environ.get("_X_AMZN_TRACE_ID", "") if header is None else header
    said = dict(part.partition("=")[::2] for part in header.split(";"))
    if said.get("Sampled") != "1" or not _ROOT.fullmatch(said.get("Root", "")):
        return None
    return Sampled(said["Root"], said.get("Parent", ""))


def send(spans: Iterable[Span], of: Sampled, trace_id: str) -> None:
    """Hands spans to the daemon; nobody waits for them, and one that gets lost is lost."""
    host, _, port = _DAEMON.rpartition(":")
    with suppress(OSError, ValueError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.setblocking(False)
        for span in spans:
            document = {
                "type": "subsegment",
                "id": secrets.token_hex(8),
                "trace_id": of.root,
                "parent_id": of.parent,
                "name": span.name,
                "start_time": span.began,
                "end_time": span.ended,
                **({"fault": True} if span.failed else {}),
                "annotations": {"trace_id": span.trace_id or trace_id},
            }
            daemon.sendto(_HEADER + json.dumps(document).encode(), (host, int(port)))
