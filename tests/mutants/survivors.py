"""Mutants that live and may: nobody can see a difference. A sentence each; one that is killed now has to leave."""

_LISTING, _AUTH, _EDGE = (f"shared/minichat/http/{name}.py" for name in ("listing", "auth", "edge"))

ALLOWED: dict[tuple[str, str, str], str] = {
    (
        _LISTING,
        "at_once = limit if wanted == Filter() else max(limit, LOOKED_AT // 10)",
        "at_once = limit if wanted == Filter() else max(limit, LOOKED_AT // 9)",
    ): "In how many reads the chats are looked at only their speed tells.",
    (
        _LISTING,
        "return 1 + sum(size <= PAGE_MAX_BYTES for size in sizes)",
        "return 1 + sum(size < PAGE_MAX_BYTES for size in sizes)",
    ): "Texts that fill a page to the byte leave no room for what is around them, so the last is cut off anyway.",
    (
        _AUTH,
        "if key_id not in self._keys or self._age() > KEYS_LIFESPAN_SECONDS:",
        "if key_id not in self._keys or self._age() >= KEYS_LIFESPAN_SECONDS:",
    ): "The age is read off a clock of nanoseconds, and is never just that.",
    (
        _EDGE,
        "total = round((time.perf_counter() - started_at) * 1000, 2)",
        "total = round((time.perf_counter() - started_at) * 1000, 1)",
    ): "A digit of a time in a log line.",
}
"""The reason, by module, the line as it is, and as the mutant has it."""
