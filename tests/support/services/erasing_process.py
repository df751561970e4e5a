"""A process that goes on with an erasure, and says each of its writes before and after it: somebody may kill it there.

python -m tests.support.services.erasing_process
"""

import json
import sys
from datetime import datetime
from typing import Any

from minichat.domain.identity import TenantId, UserId
from minichat.services import erasing
from minichat.settings import Store
from minichat.storage.items import connect
from tests.support.services.erased import Person, gone_on
from tests.support.services.walk import OPERATIONS
from tests.support.storage.faults import hook


def main(told: dict[str, Any]) -> None:
    """Goes on until something else must happen first, and says so."""
    connect(Store(**told["store"]))
    person = Person(TenantId(told["tenant"]), UserId(told["name"]), datetime.fromisoformat(told["now"]))
    erasure = erasing.shown(person.tenant, told["erasure"])

    def say(model: Any, **_: Any) -> None:
        if model.name in OPERATIONS:
            print(model.name, flush=True)

    with hook("before-call.dynamodb", say), hook("after-call.dynamodb", say):
        stage = gone_on(person, erasure)
    print(stage, flush=True)


if __name__ == "__main__":
    main(json.load(sys.stdin))
