"""What every payload is made of, and the decisions that a turn met on its way (events-and-workers 2)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PayloadPart(BaseModel):
    """A part of a payload, and any payload."""

    # A function sends a few of the events; it pays for a validator when it makes the first of a kind. Members that
    # another version added pass through the relay.
    model_config = ConfigDict(
        frozen=True, defer_build=True, extra="allow", json_schema_serialization_defaults_required=True
    )


class LicenseDecision(PayloadPart):
    """The feature that the caller's token had to name, and did."""

    feature: str
    decision: Literal["allow"] = "allow"


class QuotaDecisionRecord(PayloadPart):
    """What the admission decided; the scope is that of the quota which downgraded the turn, or ended it."""

    decision: str
    quota_scope: str | None = None
    downgrade_from: str | None = None
    downgrade_reason: str | None = None


class PolicyDecisions(PayloadPart):
    """Decisions that let the turn run; without a `license` the deployment asks for none."""

    license: LicenseDecision | None = None
    quota: QuotaDecisionRecord
