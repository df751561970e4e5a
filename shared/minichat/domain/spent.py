"""What a turn cost to run, as far as it was known when it ended (turns-and-quota 6)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """Units of DynamoDB and time of the function, of the process that ended the turn: 0 where it knew nothing.

    Writes that began the turn, and that kept its stream and its signs of life, and reads are what DynamoDB said. The
    transaction that ended it stores this, so it cannot know what it takes: `ended_writes` are the least, by the sizes
    of the items that it puts, and two for each that it changes.
    """

    begun_writes: int = 0
    told_writes: int = 0
    ended_writes: int = 0
    reads: int = 0
    milliseconds: int = 0

    @property
    def writes(self) -> int:
        """All of them together."""
        return self.begun_writes + self.told_writes + self.ended_writes
