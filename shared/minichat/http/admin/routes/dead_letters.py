"""Dead-letter queues: what nobody could handle, and another try. SQS blocks, so each works in a thread."""

import asyncio
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query

from minichat.domain import access_errors, errors
from minichat.events import dead_letters
from minichat.events.dead_letters import DeadLetter
from minichat.http.acting import acts
from minichat.http.admin.access import OperatorCall
from minichat.http.admin.views import DeadLetterList, DeadLetterView, QueueList, QueueView, RedrivenView
from minichat.http.deps import Authenticated, TheApp
from minichat.http.problems import documented
from minichat.services.redrive import redrive
from minichat.settings import Queues

MOST_LETTERS = 100
AT_ONCE = 500
"""Messages that one request sends again: more would not fit the 29 seconds of an answer."""

router = APIRouter(tags=["dead letters"], route_class=Authenticated)


@router.get("/dead_letters", dependencies=[acts("dead_letter:list")], responses=documented(errors.Forbidden))
async def list_queues(call: OperatorCall, app: TheApp) -> QueueList:
    """How much waits in each queue and in its dead-letter queue."""
    del call
    return QueueList(items=await asyncio.to_thread(depths, app.settings.queues))


@router.get(
    "/dead_letters/{queue}",
    dependencies=[acts("dead_letter:list")],
    responses=documented(errors.Forbidden, access_errors.QueueNotFound),
)
async def list_dead_letters(
    call: OperatorCall, app: TheApp, queue: str, limit: Annotated[int, Query(ge=1, le=MOST_LETTERS)] = 20
) -> DeadLetterList:
    """Messages of a dead-letter queue and why they are there, never what is in them."""
    del call
    return DeadLetterList(items=await asyncio.to_thread(_letters, _url(app.settings.queues, queue), limit))


@router.post(
    "/dead_letters/{queue}/redrive",
    dependencies=[acts("dead_letter:redrive")],
    responses=documented(errors.Forbidden, access_errors.QueueNotFound),
)
async def redrive_dead_letters(
    call: OperatorCall, app: TheApp, queue: str, event_id: Annotated[str | None, Query()] = None
) -> RedrivenView:
    """Sends messages of a dead-letter queue to their queue again, 500 at most: all of them, or that of one event."""
    queues = app.settings.queues
    _url(queues, queue)

    def sent() -> RedrivenView:
        fates = [fate for _, fate in islice(redrive(queue, queues, call.now, only=event_id), AT_ONCE)]
        return RedrivenView(sent=fates.count("sent"), failed=fates.count("failed"))

    return await asyncio.to_thread(sent)


def depths(queues: Queues) -> list[QueueView]:
    """How much waits in each queue and in its dead-letter queue."""
    found = []
    for name, url in queues.dead_letters.items():
        dead, looked_at = dead_letters.depth(url)
        waiting, in_flight = dead_letters.depth(queues.urls[name]) if name in queues.urls else (None, None)
        found.append(QueueView(queue=name, waiting=waiting, in_flight=in_flight, dead=dead, looked_at=looked_at))
    return found


def _letters(url: str, limit: int) -> list[DeadLetterView]:
    letters: list[DeadLetter] = []
    try:
        letters += islice(dead_letters.waiting(url), limit)
    finally:
        for letter in letters:
            dead_letters.release(url, letter)
    return [
        DeadLetterView(
            since=one.sent_at,
            event_type=one.attributes.get("event_type"),
            event_id=one.attributes.get("event_id"),
            tenant_id=one.attributes.get("tenant_id"),
            reason=one.reason,
            received=one.received,
        )
        for one in letters
    ]


def _url(queues: Queues, queue: str) -> str:
    if queue not in queues.dead_letters:
        raise access_errors.QueueNotFound
    return queues.dead_letters[queue]
