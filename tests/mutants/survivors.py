"""Mutants that live and may: nobody can see a difference. A sentence each; one that is killed now has to leave."""

_LISTING, _AUTH, _EDGE, _ODATA = (f"shared/minichat/http/{name}.py" for name in ("listing", "auth", "edge", "odata"))
_SIZE, _SUMMARY = (f"shared/minichat/domain/{name}.py" for name in ("message_size", "doc_summary"))
_HEALTH = "shared/minichat/http/admin/routes/service.py"
_INQUIRY = "shared/minichat/http/openai/inquiry.py"

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
    (
        _LISTING,
        'before = _id_at(wanted.not_after, timedelta(milliseconds=1)) if wanted.not_after else ""',
        'before = _id_at(wanted.not_after, timedelta(milliseconds= 2)) if wanted.not_after else ""',
    ): "Only where reading ends: the filter itself is asked of every message that was read.",
    (
        _LISTING,
        "return str(uuid7_floor(max(instant + margin, from_micros(0))))",
        "return str(uuid7_floor(max(instant + margin, from_micros( 1))))",
    ): "Ids tell milliseconds, and these two instants are in the same one.",
    (
        _ODATA,
        "return flat[0] if len(flat) == 1 else Both(tuple(flat))",
        "return flat[ -1] if len(flat) == 1 else Both(tuple(flat))",
    ): "The first and the last of one are the same.",
    (
        _ODATA,
        "return flat[0] if len(flat) == 1 else Either(tuple(flat))",
        "return flat[ -1] if len(flat) == 1 else Either(tuple(flat))",
    ): "The first and the last of one are the same.",
    (
        _SIZE,
        "return len(text) * LONGEST_ESCAPE <= TOLD_MAX_BYTES or told_bytes(text) <= TOLD_MAX_BYTES",
        "return len(text) * LONGEST_ESCAPE < TOLD_MAX_BYTES or told_bytes(text) <= TOLD_MAX_BYTES",
    ): "The first clause only saves the time of the second, which says the same of a text so short.",
    (_SUMMARY, "break", "continue"): "What is left only shrinks: after the first that does not fit none does.",
    (
        _HEALTH,
        '"queues_late": any((one.waiting or 0) >= LATE for one in queues),',
        '"queues_late": any((one.waiting or 1) >= LATE for one in queues),',
    ): "A thousand messages are late. A queue that does not say how many wait is not, by 0 as by 1.",
    (
        _INQUIRY,
        "_NEVER = datetime(1970, 1, 1, tzinfo=UTC)",
        "_NEVER = datetime(1970, 1, 2, tzinfo=UTC)",
    ): "What a client recounts of its conversation has no time that anybody is told.",
}
"""The reason, by module, the line as it is, and as the mutant has it."""
