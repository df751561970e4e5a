"""When a running turn counts as dead: its process has been silent for too long (turns-and-quota 8)."""

from datetime import datetime, timedelta

from minichat.domain.turn import Turn, TurnState

CANCEL_PATIENCE = timedelta(seconds=30)
"""How long a turn that was asked to stop may be silent: twice what a living one is at most (turns-and-quota 8)."""
BEGINNING_PATIENCE = timedelta(seconds=15)
"""How long a turn may be silent that has not said yet that its provider was called: the first sign of life says so, a
second after the start. Nothing of it was told to anybody, and it costs nothing, so to be wrong is cheap."""


def cutoff(turn: Turn, now: datetime, timeout: timedelta) -> datetime:
    """Since when a living turn has given a sign of life at the latest; `timeout` is the deployment's."""
    patience = timeout
    if turn.cancel_requested_at is not None:
        patience = min(patience, CANCEL_PATIENCE)
    if turn.provider_request_started_at is None:
        patience = min(patience, BEGINNING_PATIENCE)
    return now - patience


def is_orphan(turn: Turn, cutoff: datetime) -> bool:
    """Whether a running turn has given no sign of life since `cutoff`: the process that made it is dead."""
    return turn.state is TurnState.RUNNING and turn.last_progress_at <= cutoff


def never_began(turn: Turn, cutoff: datetime) -> bool:
    """Whether a turn that is still wanted is an orphan that never reached its provider: its answer can still be
    made."""
    untouched = turn.provider_request_started_at is None and turn.cancel_requested_at is None
    return untouched and is_orphan(turn, cutoff)
