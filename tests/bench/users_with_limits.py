"""A send beside users with limits of their own: none, a thousand, and so on to as many as one asks for."""

import sys
import tempfile
import time
from pathlib import Path

from minichat.domain.identity import TenantId
from minichat.domain.policy_layers import UserLayer
from minichat.local.engine import Engine
from minichat.services.policy_in_force import Rules
from minichat.settings import Settings
from minichat.storage import policies
from minichat.storage.policies import of_user
from tests.conftest import ROOT, fresh_tables
from tests.support.domain.builders import NOW, a_caller, a_model, a_policy, new_id, some_limits
from tests.support.storage.faults import counted_calls
from tests.support.storage.many_users import cost_of_a_send, fill

RULES = Rules(Settings(), a_policy(a_model(preference={"is_default": True})))
ITEM_BYTES = 220
"""A user's pointer; their version is as large again."""


def main(users: int) -> None:
    """Prints what a send costs at each number of users."""
    kind = "dynoxide" if (ROOT / ".tools" / "dynoxide").exists() else "ministack"
    engine = Engine(ROOT, kind, Path(tempfile.mkdtemp()))
    try:
        fresh_tables(engine.endpoint)
        print(f"\nA send beside users with limits of their own ({kind})")
        print("    users   read units  write units   calls   filling s")
        there = 0
        for wanted in (0, *(10**power for power in range(3, 9) if 10**power < users), users):
            begun = time.perf_counter()
            fill(there, wanted)
            there = wanted
            took, cost = time.perf_counter() - begun, cost_of_a_send(RULES)
            print(
                f"{there:9}{sum(cost.read_units):13}{cost.write_units:13.0f}{len(cost.calls):8}{took:12.1f}", flush=True
            )
        with counted_calls() as calls:
            place = of_user(TenantId(a_caller().tenant_id), a_caller().user_id)
            policies.publish(UserLayer(limits=some_limits(10**12)), place, at=NOW, by="bench", token=new_id(NOW))
        print(f"publishing one more: {', '.join(calls)}")
        print(f"a million users are {2 * ITEM_BYTES * 1_000_000 / 1e6:.0f} MB of the table")
    finally:
        if engine.child is not None:
            engine.child.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
