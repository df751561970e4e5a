"""The base of every payload, and the policy decisions of a turn (events-and-workers 2)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PayloadPart(BaseModel):
    """Base of every payload and of its parts."""

    # A function sends only a few kinds of event: each validator is built with the first of its kind. Members that
    # another version added pass through the relay.
    model_config = ConfigDict(
        frozen=True, defer_build=True, extra="allow", json_schema_serialization_defaults_required=True
    )


class LicenseDecision(PayloadPart):
    """The feature that the caller's token had to name."""

    feature: str
    decision: Literal["allow"] = "allow"


class QuotaDecisionRecord(PayloadPart):
    """The decision at admission; the scope is that of the quota that downgraded or ended the turn."""

    decision: str
    quota_scope: str | None = None
    downgrade_from: str | None = None
    downgrade_reason: str | None = None


class PolicyDecisions(PayloadPart):
    """Decisions that let the turn run; without `license`, the deployment requires none."""

    license: LicenseDecision | None = None
    quota: QuotaDecisionRecord


class SecondaryRef(PayloadPart):
    """A copy of an attachment's file at another provider, named as in `settings.providers`."""

    storage_backend: str
    provider_file_id: str
