"""A provider's own words, made safe for a log line: no key, no address, no identifier of the provider's."""

import re

MAX_CHARACTERS = 200

_RULES = (
    (re.compile(r"https?://[^\s,)\]}\"']+"), "[url]"),
    (re.compile(r"\bBearer\s+[\w.~+/=-]+", re.IGNORECASE), "[credential]"),
    (re.compile(r"\bsk-[\w-]{6,}"), "[credential]"),
    (
        re.compile(r"\b(?:resp|msg|chatcmpl|cmpl|req|file|vs|batch|toolu|call|rs|ws|fs|ci)[_-][\w-]{4,}"),
        "[provider_id]",
    ),
)


def redact_diagnostic(text: str) -> str:
    """The text without keys, addresses and provider ids, cut at 200 characters."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"
