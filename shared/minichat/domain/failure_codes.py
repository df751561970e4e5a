"""Why a turn failed: the closed set of codes, which cost something, and what a client reads (turns-and-quota 6)."""

CHARGED = frozenset(
    {
        "provider_error",
        "provider_timeout",
        "rate_limited",
        "web_search_calls_exceeded",
        "code_interpreter_calls_exceeded",
        "file_search_calls_exceeded",
        "unexpected_tool_use",
        "interrupted",
        "message_persistence_failed",
        "orphan_timeout",
    }
)
"""What the provider answered was paid for, whatever became of it."""
RELEASED = frozenset({"context_length_exceeded", "validation_error"})
"""The provider refused to work: nothing is charged, unless text was told all the same."""
KNOWN_ERROR_CODES = CHARGED | RELEASED
"""The closed set of stored error codes; another one settles as failed / estimated and is logged as critical."""

ERROR_MESSAGES = {
    "provider_error": "The provider could not complete the answer.",
    "provider_timeout": "The provider took too long to answer.",
    "rate_limited": "The provider is receiving too many requests.",
    "web_search_calls_exceeded": "The answer needed more web searches than one message may use.",
    "code_interpreter_calls_exceeded": "The answer needed more code interpreter calls than one message may use.",
    "file_search_calls_exceeded": "The answer needed more searches in files than one message may use.",
    "unexpected_tool_use": "The model asked for a tool that it was not offered.",
    "context_length_exceeded": "The conversation is too long for the model.",
    "validation_error": "The provider did not accept the request.",
    "interrupted": "The answer was interrupted before it began; try again.",
    "cancelled": "The turn was cancelled.",
    "internal_error": "The answer could not be completed.",
}
"""What a client reads for each code; a provider's own words never leave the backend."""
