"""How far a process's clock is off the store's, from answers that say what time it was there.

    own clock      sent |--------- an answer is on its way ---------| received
    store's clock              date |==== made in here ====| date + 2

The `Date` of an answer has whole seconds, and servers renew it once a second. So when it was made the store's clock
showed at least `date` and less than `date + 2`, and our own something between `sent` and `received`: each answer bounds
the difference from both sides, and many together narrow it further than any of them.
"""

import math
from dataclasses import dataclass

DATE_SECONDS = 2
"""By how much the time at which an answer was made may be later than its `Date`."""


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to our own clock, in seconds, and the bounds between which the difference truly is.

    The correction is as small, and changes as little, as the bounds allow: clocks that agree stay untouched.
    """

    seconds: float = 0.0
    at_least: float = -math.inf
    at_most: float = math.inf

    def narrowed(self, date: float, sent: float, received: float) -> "Offset":
        """The offset after one more answer; all times are Unix times, the last two by our own clock.

        An answer that contradicts those before it means that a clock was set, or has drifted: it counts alone.
        """
        at_least, at_most = date - received, date + DATE_SECONDS - sent
        if at_least > at_most:
            return self  # our own clock was set back while the answer was on its way
        both = max(at_least, self.at_least), min(at_most, self.at_most)
        lowest, highest = both if both[0] <= both[1] else (at_least, at_most)
        return Offset(max(lowest, min(self.seconds, highest)), lowest, highest)
