"""How long to wait before the next attempt, or the next look."""

import random
from collections.abc import Iterator

CHANCE = random.SystemRandom()
"""The operating system's randomness: copies restored from one snapshot (SnapStart) share the state of Python's."""


def growing(first: float, longest: float, *, factor: float = 2) -> Iterator[float]:
    """Endless pauses, in seconds: the first, then each `factor` times as long as the one before, up to the longest.

    So a short wait ends soon, and a long one is not polled all the time.
    """
    pause = min(first, longest)
    while True:
        yield pause
        pause = min(pause * factor, longest)


def jittered(pause: float) -> float:
    """Half of a pause, plus a random share of the other half: callers that collided once do not collide again."""
    return CHANCE.uniform(pause / 2, pause)
