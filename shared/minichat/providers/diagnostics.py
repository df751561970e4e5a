"""A provider's own words, made safe for a log line: no key, no address, no identifier of the provider's."""

import re

MAX_CHARACTERS = 200
MIN_SECRET_CHARACTERS = 6

_RULES = (
    (re.compile(r"https?://[^\s,)\]}\"']+", re.IGNORECASE), "[url]"),
    (re.compile(r"\bBearer\s+[^\s,;)\]}\"']+", re.IGNORECASE), "[credential]"),
    (re.compile(r"\barn:aws[\w-]*:[^\s,)\]}\"']+"), "[arn]"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), "[credential]"),
    # OpenAI quotes a wrong key with its middle starred out: the rest is still part of a key.
    (re.compile(r"(?<![A-Za-z0-9])sk-[\w*.-]{6,}"), "[credential]"),
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:resp_|msg_|chatcmpl-|cmpl-|req_|file[-_]|vs_|batch_|(?:srv)?toolu_|tooluse_"
            r"|org-|proj_|call_|rs_|ws_|fs_|ci_)"
            r"(?!(?:ids?|search)(?![A-Za-z0-9]))[\w-]+"
        ),
        "[provider_id]",
    ),
    # Anything that long with digits in it is probably a key or an id.
    (re.compile(r"(?<![\w+/=-])(?=[A-Za-z_+/=-]*\d)[\w+/=-]{32,}"), "[redacted]"),
)


def redact_diagnostic(text: str, *secrets: str) -> str:
    """The text without these secrets, and without any other key, address or provider id; cut at 200 characters."""
    for secret in secrets:
        # Shorter secrets are only used in tests; replacing them would leave nothing of the text.
        if len(secret) >= MIN_SECRET_CHARACTERS:
            text = text.replace(secret, "[redacted]")
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
