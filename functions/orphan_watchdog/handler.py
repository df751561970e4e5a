"""Ends turns whose process died. EventBridge Scheduler calls it every minute; any number may run at once."""

from minichat.moment import new_id, now
from minichat.observability import begin, emit, logger
from minichat.services.orphans import sweep
from minichat.settings import current
from minichat.storage import store_time
from minichat.storage.items import connect

connect(current().store)


def handler(event: dict[str, object], context: object) -> dict[str, int]:
    """How many dead turns were detected and ended."""
    del event, context
    begin()
    store_time.ask()
    try:
        swept = sweep(now(), new_id, current())
    finally:
        emit(current().metrics_namespace)
    result = {"detected": swept.detected, "finalized": swept.finalized}
    logger.info("swept", extra=result)
    return result
