"""How many turns of a tenant run, and how many began lately: in shards, and only while the tenant has such a limit.

    fly                   turns in flight that this shard counts
    m29703210             turns that began in that minute since 1970

All shards are read with a send's starting point; its transaction adds one to one of them, without a condition, and the
turn's end takes it from there. So users of a tenant do not wait for each other, and the limit is soft: what
is admitted at the same moment may exceed it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from pynamodb.expressions.operand import Path

from minichat.domain.identity import TenantId
from minichat.domain.rates import TenantUse, milliseconds
from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.attributes import NumberAttribute
from minichat.storage.items import ConversationItem
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Update

_MINUTE = 60_000
_KEPT = timedelta(days=2)


class TenantRatesItem(ConversationItem):
    """One shard of a tenant's counters; this module names its minutes."""

    in_flight = NumberAttribute(attr_name="fly", null=True)
    expires_at = NumberAttribute(null=True)


def use(tenant_id: TenantId, found: Mapping[Key, Raw], now: datetime) -> TenantUse:
    """Where a tenant stands, by those of its shards that were found."""
    shards = [found[key] for key in keys.tenant_rates(tenant_id) if key in found]
    minute, into = divmod(milliseconds(now), _MINUTE)
    current = sum(keys.number(shard, f"m{minute}") for shard in shards)
    before = sum(keys.number(shard, f"m{minute - 1}") for shard in shards)
    # As much of the minute before as the last sixty seconds still hold.
    sends = current + before * (_MINUTE - into) // _MINUTE
    minutes = {name for shard in shards for name in shard if name[0] == "m" and name[1:].isdigit()}
    over = tuple(sorted(name for name in minutes if int(name[1:]) < minute - 1))
    return TenantUse(sum(keys.number(shard, "fly") for shard in shards), sends, over)


def begun(turn: Turn, over: tuple[str, ...]) -> list[Update]:
    """The write that counts a new turn, if its tenant's are counted; it forgets minutes that are over."""
    if not turn.reserve.tenant_in_flight:
        return []
    minute = milliseconds(turn.started_at) // _MINUTE
    actions = [
        TenantRatesItem.in_flight.add(turn.reserve.tenant_in_flight),
        Path(f"m{minute}").add(1),
        TenantRatesItem.expires_at.set(int((turn.started_at + _KEPT).timestamp())),
        *(Path(name).remove() for name in over),
    ]
    return [Update("tenant", _shard(turn), actions)]


def ended(turn: Turn) -> list[Update]:
    """The write that takes a turn off again that `begun` counted."""
    counted = turn.reserve.tenant_in_flight
    return [Update("tenant", _shard(turn), [TenantRatesItem.in_flight.add(-counted)])] if counted else []


def _shard(turn: Turn) -> TenantRatesItem:
    return TenantRatesItem(*keys.tenant_rates_shard(turn.tenant_id, turn.request_id))
