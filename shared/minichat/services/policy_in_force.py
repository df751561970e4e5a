"""The rules of every use case: the settings of the deployment and the policy in force."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from minichat import greenlets
from minichat.domain.admission import PromptLimits
from minichat.domain.day_counts import DayCounts
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Clock
from minichat.domain.policy import Policy
from minichat.domain.rates import Rates
from minichat.domain.turn import ToolCalls
from minichat.moment import now
from minichat.observability import logger
from minichat.settings import Settings, SettingsError, read_document
from minichat.storage import policies

SHIPPED_POLICY = Path(__file__).parent.parent / "policies" / "default.json"


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings and policy, both immutable: a call keeps the same ones from beginning to end."""

    settings: Settings
    policy: Policy

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


class InForce:
    """The policy in force, as this process knows it: the table's, or the first-start file's until one is published.

    The known policy counts for a few seconds. Then the pointer is read again, along with any version that is new to
    this process. While the store does not answer, the last known policy stays in force.
    """

    def __init__(self, settings: Settings, clock: Clock = now) -> None:
        """Raises SettingsError naming the path of each wrong member of the first-start file."""
        self._settings = settings
        self._clock = clock
        self._policy = first_policy(settings)
        self._counts = self._in_deployment()
        self._version: int | None = None  # of the table; the file's number may name another policy there
        self._looked_at: float | None = None
        self._looking: asyncio.Future[None] | None = None

    def is_due(self, monotonic: float) -> bool:
        """Whether it is time to look at the table again (seconds of a clock that only goes forward)."""
        return self._looked_at is None or monotonic - self._looked_at >= self._settings.policy_refresh_seconds

    def look(self, monotonic: float) -> None:
        """Looks at the table again."""
        self._policy = self._newest()
        self._counts = self._in_deployment()
        self._looked_at = monotonic

    async def looked(self, monotonic: float) -> None:
        """Looks at the table again, once for all concurrent callers. Only the first waits if a policy is known."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(greenlets.run(self.look, monotonic))
            self._looking.add_done_callback(self._has_looked)
        elif self._looked_at is not None:
            return
        await asyncio.shield(self._looking)

    def _has_looked(self, looking: asyncio.Future[None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # its waiters got the error

    @property
    def rules(self) -> Rules:
        """The settings, and the last known policy, whose models inherit from them."""
        return Rules(self._settings, self._counts)

    def _in_deployment(self) -> Policy:
        return self._policy.in_deployment(self._settings.deployment, self._clock())

    def _newest(self) -> Policy:
        try:
            version = policies.current_version()
            if version is None or version == self._version:
                return self._policy
            published = policies.read(version)
        except ServiceUnavailable:
            logger.warning("the policy cannot be looked up", extra={"version_in_use": self._policy.policy_version})
            return self._policy
        assert published is not None, "the pointer and its version are written together, and versions stay"
        self._version = version
        return published.policy


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
