"""Ends turns whose process died, and temporary chats whose time is over.

EventBridge Scheduler calls it every minute; any number may run at once.
"""

import time

from aws_lambda_powertools.utilities.typing import LambdaContext

from minichat.moment import new_id, now
from minichat.observability import begin, emit, logger
from minichat.services import temporary_chats
from minichat.services.orphans import SWEEP_SECONDS, sweep
from minichat.settings import current
from minichat.storage import store_time
from minichat.storage.items import connect

LAST_SECONDS = 20
"""Kept for the turn that is being ended when time is up."""

connect(current().store)


def handler(event: dict[str, object], context: LambdaContext | None) -> dict[str, int]:
    """Counts of dead turns detected and ended, of running turns that could not be read or ended, of temporary chats
    that expired, and of those that could not be read or deleted."""
    del event
    seconds = context.get_remaining_time_in_millis() / 1000 - LAST_SECONDS if context is not None else SWEEP_SECONDS
    began = time.monotonic()
    begin()
    store_time.ask()
    try:
        swept = sweep(now(), new_id, current(), seconds=seconds)
        # Turns come first: somebody waits for them. Chats that nobody uses get the rest of the time.
        chats = temporary_chats.sweep(now(), new_id, current(), seconds=seconds - (time.monotonic() - began))
    finally:
        emit(current().metrics_namespace)
    result = {
        "detected": swept.detected,
        "finalized": swept.finalized,
        "failed": swept.failed,
        "expired_chats": chats.expired,
        "failed_chats": chats.failed,
    }
    logger.info("swept", extra=result)
    return result
