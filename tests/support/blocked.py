"""How a test double holds up whoever calls it, and nobody else: a thread, or a function on the event loop."""

import asyncio
import threading

from minichat import greenlets
from tests.support.patience import PATIENCE


def until(event: threading.Event, seconds: float = PATIENCE) -> bool:
    """Waits for the event; False when it did not come in time."""
    if greenlets.may_wait():
        return greenlets.wait(asyncio.to_thread(event.wait, seconds))
    return event.wait(seconds)
