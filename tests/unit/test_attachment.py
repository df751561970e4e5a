"""Until when somebody may work on an attachment."""

from dataclasses import replace
from datetime import timedelta

import pytest

from minichat.domain.attachment import Attachment, AttachmentStatus, Ingest
from minichat.domain.cleanup import Cleanup, CleanupStatus
from minichat.domain.identity import AttachmentId, ChatId, TenantId
from tests.support.domain.builders import NOW, an_id

MADE = Attachment(TenantId(an_id(1)), ChatId(an_id(10)), AttachmentId(an_id(20)), "document", "openai")


@pytest.mark.parametrize("status", AttachmentStatus)
def test_work_goes_on_while_it_is_on_its_way_and_nobody_wants_it_gone(status: AttachmentStatus) -> None:
    there = replace(MADE, status=status)
    assert there.is_open is (status in (AttachmentStatus.PENDING, AttachmentStatus.UPLOADED))
    assert not replace(there, deleted_at=NOW).is_open
    assert not replace(there, cleanup=Cleanup(CleanupStatus.PENDING)).is_open


def test_it_is_held_until_its_time_and_not_at_it() -> None:
    held = replace(MADE, ingest=Ingest(until=NOW))
    assert held.is_held(NOW - timedelta(microseconds=1))
    assert not held.is_held(NOW)
    assert not MADE.is_held(NOW)
