"""The rules of every use case: the settings of the deployment and the policy in force."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from minichat import greenlets
from minichat.domain.admission import PromptLimits
from minichat.domain.day_counts import DayCounts
from minichat.domain.erasure import BeingErased
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Clock, TenantId
from minichat.domain.policy import Policy
from minichat.domain.policy_layers import TenantLayer, UserLayer, effective
from minichat.domain.rates import Rates
from minichat.domain.turn import ToolCalls
from minichat.moment import now
from minichat.observability import logger
from minichat.services.tenant_layers import TENANTS_KNOWN, tenant_layers
from minichat.settings import Settings, SettingsError, read_document
from minichat.storage import policies

SHIPPED_POLICY = Path(__file__).parent.parent / "policies" / "default.json"


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings and policy, both immutable: a call keeps the same ones from beginning to end.

    The policy is what the layers make of the deployment's; the versions are theirs, 0 where there is none.
    """

    settings: Settings
    policy: Policy
    tenant_version: int = 0
    user_version: int = 0

    def of_user(self, layer: UserLayer | None) -> "Rules":
        """The rules of a user of the tenant."""
        if layer is None:
            return self
        return replace(self, policy=effective(self.policy, None, layer), user_version=layer.policy_version or 0)

    @property
    def limits(self) -> PromptLimits:
        """What the deployment allows a prompt."""
        settings = self.settings
        return PromptLimits(
            settings.streaming.max_output_tokens,
            settings.context.web_search_guard,
            settings.context.file_search_guard,
            ToolCalls(
                web_search=settings.quota.web_search_max_calls_per_message,
                code_interpreter=settings.quota.code_interpreter_max_calls_per_message,
                file_search=settings.quota.file_search_max_calls_per_message,
            ),
            self.per_day,
            frozenset(name for name, provider in settings.providers.items() if provider.keeps_files),
            settings.doc_summaries.note_max_bytes,
        )

    @property
    def rates(self) -> Rates:
        """How fast users and tenants may go."""
        return self.settings.rates.limits

    @property
    def per_day(self) -> DayCounts:
        """The limits on counts per user and day."""
        quota = self.settings.quota
        return DayCounts(
            web_search=quota.web_search_daily_quota,
            code_interpreter=quota.code_interpreter_daily_quota,
            file_search=quota.file_search_daily_quota,
            image_inputs=quota.image_inputs_daily_quota,
            uploads=quota.uploads_daily_quota,
            upload_bytes=quota.upload_mb_daily_quota * 1024 * 1024,
        )


@dataclass(slots=True)
class _Tenant:
    """What a process knows of a tenant: the layer, what it makes of a policy of the deployment's, and since when."""

    layer: TenantLayer | None
    looked_at: float
    stopped: bool = False
    under: Policy | None = None
    policy: Policy | None = None

    @property
    def version(self) -> int:
        """The version of the layer; 0 where there is none."""
        return (self.layer and self.layer.policy_version) or 0

    def effective(self, deployment: Policy) -> Policy:
        """The policy of the tenant's users; made once for each policy of the deployment."""
        if self.under is not deployment or self.policy is None:
            self.under, self.policy = deployment, effective(deployment, self.layer)
        return self.policy


class InForce:
    """The policies in force, as this process knows them: the deployment's, and the layers of tenants.

    The deployment's is the table's, or the first-start file's until one is published. What is known counts for a few
    seconds. Then the pointers of the deployment and of the caller's tenant are read again, in one batch, along with any
    version that is new to this process. While the store does not answer, what is known stays in force. Of a tenant that
    is not known nobody is served then: what the layer denies must not be lost.
    """

    def __init__(self, settings: Settings, clock: Clock = now) -> None:
        """Raises SettingsError naming the path of each wrong member of the first-start file."""
        self._settings = settings
        self._clock = clock
        self._source = tenant_layers(settings)
        self._policy = first_policy(settings)
        self._counts = self._in_deployment()
        self._counted_at: float | None = None
        self._version: int | None = None  # of the table; the file's number may name another policy there
        self._tenants: OrderedDict[TenantId, _Tenant] = OrderedDict()
        self._looking: dict[TenantId, asyncio.Future[None]] = {}

    def is_due(self, tenant_id: TenantId, monotonic: float) -> bool:
        """Whether it is time to look again (seconds of a clock that only goes forward)."""
        known = self._tenants.get(tenant_id)
        return known is None or monotonic - known.looked_at >= self._settings.policy_refresh_seconds

    def look(self, tenant_id: TenantId, monotonic: float) -> None:
        """Looks again at what is in force for a tenant.

        Raises ServiceUnavailable when nothing is known of the tenant, and cannot be.
        """
        known = self._tenants.get(tenant_id)
        try:
            newest = self._source.newest(tenant_id, known.layer if known is not None else None)
            self._renew(newest.deployment_version, monotonic)
            layer, stopped = newest.layer, newest.stopped
        except ServiceUnavailable:
            logger.warning("the policy cannot be looked up", extra={"version_in_use": self._policy.policy_version})
            if known is None:
                raise
            layer, stopped = known.layer, known.stopped
        if known is None or layer is not known.layer:
            self._tenants[tenant_id] = known = _Tenant(layer, monotonic)
        known.looked_at, known.stopped = monotonic, stopped
        self._tenants.move_to_end(tenant_id)
        while len(self._tenants) > TENANTS_KNOWN:
            self._tenants.popitem(last=False)

    async def looked(self, tenant_id: TenantId, monotonic: float) -> None:
        """Looks again, once for all concurrent callers of a tenant. Only the first waits if something is known.

        Raises as `look`.
        """
        looking = self._looking.get(tenant_id)
        if looking is None:
            looking = asyncio.ensure_future(greenlets.run(self.look, tenant_id, monotonic))
            self._looking[tenant_id] = looking
            looking.add_done_callback(partial(self._has_looked, tenant_id))
        elif tenant_id in self._tenants:
            return
        await asyncio.shield(looking)

    def _has_looked(self, tenant_id: TenantId, looking: asyncio.Future[None]) -> None:
        del self._looking[tenant_id]
        if not looking.cancelled():
            looking.exception()  # its waiters got the error

    def rules_of(self, tenant_id: TenantId) -> Rules:
        """The settings, and the last known policy of a tenant, whose models inherit from them.

        Raises ServiceUnavailable of a tenant that was never looked at, BeingErased of one that takes nothing new.
        """
        known = self._tenants.get(tenant_id)
        if known is None:
            raise ServiceUnavailable
        if known.stopped:
            raise BeingErased
        return Rules(self._settings, known.effective(self._counts), known.version)

    def _in_deployment(self) -> Policy:
        return self._policy.in_deployment(self._settings.deployment, self._clock())

    def _renew(self, version: int | None, monotonic: float) -> None:
        is_new = False
        if version is not None and version != self._version:
            published = policies.read(version, policies.DEPLOYMENT)
            assert published is not None, "the pointer and its version are written together, and versions stay"
            self._version, self._policy, is_new = version, published.policy, True
        # Models that wait for their day come by the clock alone.
        waited = self._counted_at is None or monotonic - self._counted_at >= self._settings.policy_refresh_seconds
        if is_new or waited:
            self._counts, self._counted_at = self._in_deployment(), monotonic


def first_policy(settings: Settings) -> Policy:
    """The policy of a deployment that has published none: its file's, or the shipped one.

    Raises SettingsError naming the path of each wrong member.
    """
    return policy_file(settings.policy_file or SHIPPED_POLICY, settings)


def policy_file(path: Path, settings: Settings) -> Policy:
    """The policy that a JSON or YAML file describes, for the providers of these settings (turns-and-quota 5).

    Raises SettingsError naming the path of each wrong member, and why it is wrong.
    """
    try:
        return Policy.model_validate(read_document("policy_file", path)).served_by(settings.endpoints)
    except ValidationError as error:
        problems = [_explained(problem) for problem in error.errors(include_url=False)]
    except ValueError as error:
        problems = [str(error)]
    raise SettingsError(f"{path}\n" + "\n".join(f"  {problem}" for problem in problems))


def _explained(problem: object) -> str:
    assert isinstance(problem, dict)
    path = ".".join(str(part) for part in problem["loc"])
    # A rule over several members names its path itself.
    return f"{path}: {problem['msg']}" if path else str(problem["msg"]).removeprefix("Value error, ")
