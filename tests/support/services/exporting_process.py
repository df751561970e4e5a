"""A process that goes on with an export, and says each of its writes to the table and the bucket before and after it:
somebody may kill it there.

python -m tests.support.services.exporting_process
"""

import json
import sys
from datetime import datetime
from typing import Any

from botocore.client import BaseClient

from minichat.domain.identity import TenantId, UserId
from minichat.settings import Store
from minichat.storage.items import connect
from tests.support.services.erased import Person
from tests.support.services.exported import WRITES, taken_on


def main(told: dict[str, Any]) -> None:
    """Goes on to the end, and says which it was."""
    connect(Store(**told["store"]))
    person = Person(TenantId(told["tenant"]), UserId(told["name"]), datetime.fromisoformat(told["now"]))
    clients: Any = BaseClient
    call = clients._make_api_call

    def said(client: Any, operation: str, *more: Any) -> Any:
        if operation not in WRITES:
            return call(client, operation, *more)
        print(operation, flush=True)
        answer = call(client, operation, *more)
        print(operation, flush=True)
        return answer

    clients._make_api_call = said
    print(taken_on(person, told["export"]), flush=True)


if __name__ == "__main__":
    main(json.load(sys.stdin))
