"""How long to wait before something is tried, or looked at, once more."""

import random
from collections.abc import Iterator

CHANCE = random.SystemRandom()
"""The operating system's: copies that are restored from one snapshot (SnapStart) would draw alike of their own."""


def growing(first: float, longest: float, *, factor: float = 2) -> Iterator[float]:
    """Pauses without end, in seconds: the first, then each `factor` times as long as the one before, up to the longest.

    So what is over soon is noticed soon, and what takes long is not asked for all the time.
    """
    pause = min(first, longest)
    while True:
        yield pause
        pause = min(pause * factor, longest)


def jittered(pause: float) -> float:
    """Half of a pause, and as much of the other half as chance has it: who collided once does not meet again."""
    return CHANCE.uniform(pause / 2, pause)
