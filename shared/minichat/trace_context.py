"""The trace that a request is part of: read from whoever calls, and passed on to the provider (W3C Trace Context)."""

import re
import secrets

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(traceparent: str | None) -> str:
    """The trace id of the caller's header, 32 hex digits; a new one when there is none, or it is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else secrets.token_hex(16)


def traceparent(trace_id: str) -> str:
    """The header by which a request of ours is part of a trace, as a span of its own."""
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"
