"""What the operator's API answers with."""

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

from minichat.domain.policy import KillSwitches, UserLimits
from minichat.domain.reconcile_report import FindingKind


class PolicyVersionView(BaseModel):
    """One version of a layer of the policy, and when and by whom it was published."""

    version: int
    published_at: datetime
    published_by: str
    withdrawn: bool = Field(description="The layer says nothing: everything is inherited.")
    document: dict[str, Any] = Field(description="What the version says; what it leaves out is inherited.")


class PolicyVersions(BaseModel):
    """Versions of a layer, the newest first."""

    items: list[PolicyVersionView]


class PublishedView(BaseModel):
    """The version that is in force now; every process follows within `policy_refresh_seconds`."""

    version: int


class ChangeView(BaseModel):
    """A member that would be said differently."""

    path: str
    before: Any
    after: Any


class Changes(BaseModel):
    """What publishing a document would change; nothing if `items` is empty."""

    items: list[ChangeView]


class ProvidersVersionView(BaseModel):
    """One version of the providers, and when and by whom it was published. It names where keys are, and holds none."""

    version: int
    published_at: datetime
    published_by: str
    document: dict[str, Any] = Field(description="`providers` of the deployment, or a tenant's `overrides` of them.")


class ProvidersVersions(BaseModel):
    """Versions of the providers, the newest first."""

    items: list[ProvidersVersionView]


class LimitsView(BaseModel):
    """What a user may spend by their own layer; null where the tenant's or the deployment's limits apply."""

    version: int | None
    limits: UserLimits | None


class SwitchesView(BaseModel):
    """Features that a layer has switched off, besides those that a layer above it has."""

    version: int | None
    kill_switches: dict[str, bool] = Field(json_schema_extra={"propertyNames": {"enum": [*KillSwitches.model_fields]}})


class UsedView(BaseModel):
    """Settled turns of a day, a user or a model."""

    day: str | None = None
    user_id: str | None = None
    model: str | None = None
    turns: int
    credits_micro: int
    input_tokens: int
    output_tokens: int
    web_searches: int
    code_interpreter_calls: int
    file_searches: int
    image_inputs: int
    write_units: int
    read_units: int
    function_ms: int


class UsedList(BaseModel):
    """Rows of usage. They follow the turns within seconds, not at once."""

    items: list[UsedView]
    unreadable: int = Field(description="Totals that cannot be read, and are not in `items`.")


class RunningTurnView(BaseModel):
    """A running turn: whose, and since when; nothing of what is written in it."""

    tenant_id: str
    user_id: str
    chat_id: str
    request_id: str
    model: str
    started_at: datetime
    last_progress_at: datetime
    cancel_requested: bool
    reserved_micro: int


class RunningTurns(BaseModel):
    """Running turns, the longest silent first."""

    items: list[RunningTurnView]
    unreadable: int = Field(description="Turns that cannot be read, and are not in `items`.")


class QueueView(BaseModel):
    """How much waits in a queue and its dead-letter queue, by SQS's estimates; null without one."""

    queue: str
    waiting: int | None
    in_flight: int | None
    dead: int
    looked_at: int


class QueueList(BaseModel):
    """The queues of the deployment."""

    items: list[QueueView]


class DeadLetterView(BaseModel):
    """One message that nobody could handle, without its content."""

    since: datetime
    event_type: str | None
    event_id: str | None
    tenant_id: str | None
    reason: str
    received: int


class DeadLetterList(BaseModel):
    """Messages of a dead-letter queue."""

    items: list[DeadLetterView]


class RedrivenView(BaseModel):
    """How many messages went back to their queue, and how many could not and stay."""

    sent: int
    failed: int


class AdminHealth(BaseModel):
    """Whether the deployment works: `ok`, or what is `failing`."""

    status: str
    failing: list[str] = Field(description="`dead_letters`, `queues_late`, `turns_silent`, `store`")
    version: str
    dead_letters: int
    waiting: int
    oldest_running_seconds: float | None


class ApiKeyView(BaseModel):
    """An API key, without its text."""

    id: str
    name: str
    account: str
    scopes: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewApiKeyView(ApiKeyView):
    """A new API key. Nobody is told its text again."""

    key: str


class ApiKeyList(BaseModel):
    """The keys of a tenant, the newest first."""

    items: list[ApiKeyView]


class NewApiKeyBody(BaseModel):
    """An API key that is wanted; without an account it has one of its own."""

    name: str
    scopes: list[str]
    expires_at: AwareDatetime
    account: str | None = None


class GrantView(BaseModel):
    """Leave for somebody of support to read in the tenant."""

    id: str
    user_id: str
    until: datetime
    reason: str
    granted_by: str
    granted_at: datetime


class GrantList(BaseModel):
    """The tenant's grants that have not ended, the oldest first."""

    items: list[GrantView]


class NewGrantBody(BaseModel):
    """A grant that is wanted."""

    user_id: str
    until: AwareDatetime = Field(description="At most 8 hours from now.")
    reason: str = Field(description="1 to 500 characters.")


class AuthorizationView(BaseModel):
    """A version of a tenant's own policies; null and empty before the first."""

    version: int | None
    policies: str
    published_at: datetime | None
    published_by: str | None


class NewAuthorizationBody(BaseModel):
    """A text of policies that is to be in force."""

    policies: str
    base: int | None = Field(None, description="The version that it replaces; null where there is none.")


class FindingView(BaseModel):
    """One thing that was not as it should be, or could not be judged, and where; nothing of what anybody wrote."""

    kind: FindingKind
    tenant_id: str | None
    where: str
    says: str | None
    should_say: str | None


class ReconcileReportView(BaseModel):
    """What a run of the reconciliation found in a tenant: nothing where `counts` is empty."""

    at: datetime = Field(description="When the run began.")
    counts: dict[FindingKind, int]
    findings: list[FindingView] = Field(description="The first 200; `counts` has all of them.")


class ReconcileRunView(ReconcileReportView):
    """A run of the reconciliation, and what it found in all tenants. What it could, it has repaired."""

    seconds: float
    turns: int
    accounts: int = Field(description="Months of users whose quota was compared with their turns.")
    entries: int = Field(description="Entries of the usage ledger that were compared with turns and totals.")
    repaired: int


class ReconcileReports(BaseModel):
    """Runs and what they found in a tenant, the latest first."""

    items: list[ReconcileReportView]


class ReconcileRuns(BaseModel):
    """Runs of the deployment's, the latest first."""

    items: list[ReconcileRunView]
