"""The watchdog, once a second instead of once a minute, until it is killed."""

import time

from functions.orphan_watchdog.handler import handler
from minichat.moment import now
from minichat.observability import logger

while True:
    try:
        handler({"time": now().isoformat()}, None)
    except Exception:  # the edge of an invocation
        logger.exception("the watchdog failed")
    time.sleep(1)
