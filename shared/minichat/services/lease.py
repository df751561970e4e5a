"""The lease of a running turn: its teller renews it for as long as it lives, and polls for requests to stop.

Both run as tasks beside the relay and the task that stores the stream. None waits for another, so a slow write neither
hides a cancel nor costs the lease (turns-and-quota 8).
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Call, Clock
from minichat.domain.turn import Turn
from minichat.storage import leases

RENEWAL_SECONDS = 5
"""Pause between two signs of life; a living turn is silent for this long plus the time of one write."""


class Lost(Exception):
    """Another finalizer ended the turn: its teller stops without effect."""


async def renew(call: Call, turn: Turn, clock: Clock, called: Callable[[], bool], first_after: float) -> None:
    """Gives a sign of life `first_after` seconds from now and then every five seconds, until it is cancelled.

    `called` says whether the provider was called. The turn must know that before its process can die.
    Raises Lost.
    """
    pause = first_after
    while True:
        await asyncio.sleep(pause)
        now = replace(call, now=clock())
        try:
            running = await greenlets.run(leases.progress, now, turn, provider_called=called())
        except ServiceUnavailable:
            # The watchdog's patience is several times as long as that of one write.
            pause = first_after
            continue
        if not running:
            raise Lost
        pause = RENEWAL_SECONDS


async def asked_to_stop(turn: Turn, interval: float) -> datetime:
    """Looks every `interval` seconds, and returns once somebody asks the turn to stop: when that was.

    Raises Lost.
    """
    while True:
        await asyncio.sleep(interval)
        try:
            found = await greenlets.run(leases.look, turn)
        except ServiceUnavailable:
            continue  # the next look may tell
        if found is None:
            raise Lost
        if found.cancel_requested_at is not None:
            return found.cancel_requested_at
