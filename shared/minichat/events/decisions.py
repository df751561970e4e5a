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


class PublishedVersion(PayloadPart):
    """A version of a layer of the policy, and whose it is. A withdrawn one says nothing any more.

    The deployment's belongs to no tenant: its event's `tenant_id` is `deployment`.
    """

    layer: Literal["deployment", "tenant", "user"] = "deployment"
    user_id: str | None = None
    policy_version: int
    previous_version: int | None = None
    published_by: str
    withdrawn: bool = False
