"""Reports of the reconciliation: one of each run, and one for each tenant in which that found something."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from minichat.domain.identity import TenantId
from minichat.domain.reconcile_report import Findings, ReconcileFinding, ReconcileRun
from minichat.storage import keys
from minichat.storage.attributes import BinaryAttribute, InstantAttribute, NumberAttribute
from minichat.storage.items import ConversationItem, batch_get, query
from minichat.storage.keys import Raw
from minichat.storage.transact import put_one

KEPT = timedelta(days=90)
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Between these the keys of runs sort by time."""
_NOTHING = Findings({}, ())


class FindingsItem(ConversationItem):
    """What a run found, as compressed JSON: in the deployment, or in one tenant."""

    found = BinaryAttribute(legacy_encoding=False)
    expires_at = NumberAttribute()


class ReconcileRunItem(FindingsItem):
    """A run of the deployment's, with everything that it found."""

    began_at = InstantAttribute()
    seconds = NumberAttribute()
    turns = NumberAttribute()
    accounts = NumberAttribute()
    entries = NumberAttribute()
    repaired = NumberAttribute()


def keep_findings(at: datetime, tenant_id: TenantId, found: Findings) -> None:
    """Stores what the run that began at an instant found in a tenant. Raises ServiceUnavailable."""
    key = keys.reconciled(tenant_id, at)
    put_one(FindingsItem(*key, found=_packed(found), expires_at=_expiry(at)), op="reconcile")


def keep_run(run: ReconcileRun, found: Findings) -> None:
    """Stores a run, after what it found in tenants: those are looked up by it. Raises ServiceUnavailable."""
    item = ReconcileRunItem(
        *keys.reconciled(None, run.at),
        found=_packed(found),
        expires_at=_expiry(run.at),
        began_at=run.at,
        seconds=run.seconds,
        turns=run.turns,
        accounts=run.accounts,
        entries=run.entries,
        repaired=run.repaired,
    )
    put_one(item, op="reconcile")


def runs(before: datetime, limit: int) -> list[tuple[ReconcileRun, Findings]]:
    """The latest runs that began before an instant, the latest first, and what each found in all tenants.

    Raises ServiceUnavailable.
    """
    end = keys.reconciled(None, min(max(before, EARLIEST), LATEST))
    between = ConversationItem.sk.between(keys.reconciled(None, EARLIEST).sk, end.sk)
    found, _ = query(end.pk, between, limit=limit + 1, descending=True)
    return [_run(raw) for raw in found if keys.of(raw) != end][:limit]


def of_tenant(tenant_id: TenantId, runs_at: Iterable[datetime]) -> dict[datetime, Findings]:
    """What the runs that began at these instants found in a tenant. Raises ServiceUnavailable."""
    wanted = {at: keys.reconciled(tenant_id, at) for at in runs_at}
    found = batch_get(wanted.values())
    return {at: _found(found[key]) if key in found else _NOTHING for at, key in wanted.items()}


def _run(raw: Raw) -> tuple[ReconcileRun, Findings]:
    item = ReconcileRunItem.from_raw_data(dict(raw))
    run = ReconcileRun(
        item.began_at, float(item.seconds), int(item.turns), int(item.accounts), int(item.entries), int(item.repaired)
    )
    return run, _found(raw)


def _packed(found: Findings) -> bytes:
    return zlib.compress(json.dumps(asdict(found), ensure_ascii=False).encode(), 9)


def _found(raw: Raw) -> Findings:
    said = json.loads(zlib.decompress(FindingsItem.from_raw_data(dict(raw)).found))
    return Findings(said["counts"], tuple(ReconcileFinding(**one) for one in said["first"]))


def _expiry(at: datetime) -> int:
    return int((at + KEPT).timestamp())
