"""How far a cleanup came: it always ends, and an end never changes."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.cleanup import Cleanup, CleanupOutcome, CleanupStatus, Failure, after_attempt
from minichat.events.payloads import AttachmentCleanup
from minichat.events.references import SecondaryRef
from tests.support.domain.builders import NOW, an_id

PASSING = Failure("file: status 503", may_pass=True)
FINAL = Failure("file: status 400", may_pass=False)
LATER = NOW + timedelta(seconds=1)

attempts = st.lists(st.sampled_from([None, PASSING, FINAL]), max_size=12)
states = st.builds(
    Cleanup,
    st.sampled_from([None, CleanupStatus.PENDING]),
    st.integers(0, 10),
    st.sampled_from([None, "file: status 500"]),
    st.none(),
)


@pytest.mark.parametrize(
    ("before", "failure", "after", "outcome"),
    [
        (Cleanup(), None, Cleanup(CleanupStatus.DONE, 0, None, LATER), CleanupOutcome.DONE),
        (Cleanup(), PASSING, Cleanup(CleanupStatus.PENDING, 1, PASSING.reason, LATER), CleanupOutcome.PENDING),
        (Cleanup(), FINAL, Cleanup(CleanupStatus.FAILED, 1, FINAL.reason, LATER), CleanupOutcome.FAILED),
        (
            Cleanup(CleanupStatus.PENDING, 3, "then", NOW),
            PASSING,
            Cleanup(CleanupStatus.PENDING, 4, PASSING.reason, LATER),
            CleanupOutcome.PENDING,
        ),
        (
            Cleanup(CleanupStatus.PENDING, 4, "then", NOW),
            PASSING,
            Cleanup(CleanupStatus.FAILED, 5, PASSING.reason, LATER),
            CleanupOutcome.FAILED,
        ),
        (
            Cleanup(CleanupStatus.PENDING, 4, "then", NOW),
            None,
            Cleanup(CleanupStatus.DONE, 4, "then", LATER),
            CleanupOutcome.DONE,
        ),
    ],
)
def test_every_attempt_has_its_outcome(
    before: Cleanup, failure: Failure | None, after: Cleanup, outcome: CleanupOutcome
) -> None:
    assert after_attempt(before, failure, max_attempts=5, at=LATER) == (after, outcome)


@pytest.mark.parametrize("end", [CleanupStatus.DONE, CleanupStatus.FAILED])
@pytest.mark.parametrize("failure", [None, PASSING, FINAL])
def test_an_end_never_changes(end: CleanupStatus, failure: Failure | None) -> None:
    ended = Cleanup(end, 2, "then", NOW)
    assert after_attempt(ended, failure, max_attempts=5, at=LATER) == (ended, CleanupOutcome.ALREADY_TERMINAL)


def test_only_what_failed_is_opened_again_with_all_of_its_attempts() -> None:
    failed = Cleanup(CleanupStatus.FAILED, 60, "file: status 503", NOW)
    assert failed.reopened == Cleanup(CleanupStatus.PENDING, 0, "file: status 503", NOW)
    for other in (Cleanup(), Cleanup(CleanupStatus.PENDING, 3, "then", NOW), Cleanup(CleanupStatus.DONE, 3, None, NOW)):
        assert other.reopened == other


@given(before=states, results=attempts, max_attempts=st.integers(1, 8))
def test_a_cleanup_ends_at_its_first_success_or_when_its_attempts_are_used_up(
    before: Cleanup, results: list[Failure | None], max_attempts: int
) -> None:
    cleanup, outcomes = before, []
    for failure in results:
        cleanup, outcome = after_attempt(cleanup, failure, max_attempts=max_attempts, at=NOW)
        outcomes.append(outcome)
    left = max(max_attempts - before.attempts, 1)
    end = next((at for at, failure in enumerate(results) if failure is not PASSING or at + 1 == left), None)
    if end is None:
        assert outcomes == [CleanupOutcome.PENDING] * len(results)
        assert not cleanup.is_terminal
        assert cleanup.attempts == before.attempts + len(results)
    else:
        last = CleanupOutcome.DONE if results[end] is None else CleanupOutcome.FAILED
        stale = [CleanupOutcome.ALREADY_TERMINAL] * (len(results) - end - 1)
        assert outcomes == [CleanupOutcome.PENDING] * end + [last] + stale
        assert cleanup.is_terminal
        assert cleanup.attempts == before.attempts + end + (results[end] is not None)


def test_an_event_is_read_as_it_was_written() -> None:
    ids: dict[str, Any] = {"tenant_id": an_id(1), "chat_id": an_id(10), "attachment_id": an_id(30)}
    image = AttachmentCleanup(**ids, storage_backend="openai", attachment_kind="image", deleted_at=NOW)
    said = {
        "event_type": "attachment_cleanup",
        **ids,
        "storage_backend": "openai",
        "attachment_kind": "image",
        "deleted_at": f"{NOW:%Y-%m-%dT%H:%M:%S.%fZ}",
    }
    assert json.loads(image.stored()) == said
    assert json.loads(image.payload()) == said | dict.fromkeys(("provider_file_id", "vector_store_id", "secondary_ref"))
    copied = SecondaryRef(storage_backend="other", provider_file_id="file-2")
    ours = {"provider_file_id": "file-1", "vector_store_id": "vs_1", "secondary_ref": copied}
    for event in (image, image.model_copy(update=ours)):
        assert AttachmentCleanup.model_validate_json(event.payload()) == event
