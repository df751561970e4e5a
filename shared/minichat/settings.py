"""One validated settings object, from the environment and an optional file; the only reader of `os.environ`.

A variable is `MINICHAT_` plus the key, in capitals, with `__` between levels, as in
`MINICHAT_STREAMING__PING_INTERVAL_SECONDS=15`. `MINICHAT_CONFIG` names a JSON or YAML file of the same keys; the
environment wins over it. A value that starts with `{` or `[` is JSON. Wrong values stop the start and name their key.
Prices, models and limits are not settings: they are the policy, which is data.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator

from minichat.auth_settings import Auth
from minichat.domain.policy import ContextSize, Deployment, EstimationBudgets
from minichat.export_settings import Export
from minichat.provider_entries import OPENAI, Provider, TenantPolicies
from minichat.rate_settings import RateSettings
from minichat.settings_group import SettingsGroup, several
from minichat.task_settings import ChatTitles, DocSummaries, ThreadSummary

PREFIX = "MINICHAT_"
CONFIG_VARIABLE = "MINICHAT_CONFIG"
API_VARIABLE, TOKEN_VARIABLE = "MINICHAT_ADMIN_API", "MINICHAT_ADMIN_TOKEN"
"""Of who uses the command line: the operator's API, and a token for it. They are no settings of the service."""


class SettingsError(ValueError):
    """A setting is missing, unknown or out of range; the message names the key and what was expected."""


class Store(SettingsGroup):
    """Where the two tables are. Without an endpoint: AWS, configured as for every AWS tool."""

    conversation_table: str = "minichat-conversations"
    outbox_table: str = "minichat-outbox"
    region: str = "us-east-1"
    endpoint: Annotated[str | None, BeforeValidator(lambda given: given or None)] = None
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 2
    read_timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 5
    max_connections: Annotated[int, Field(ge=1, le=512)] = 64


class Queues(SettingsGroup):
    """URLs of the queues of events, by name, and of their dead-letter queues (infra/queues.yaml)."""

    urls: dict[str, str] = Field(default_factory=dict)
    dead_letters: dict[str, str] = Field(default_factory=dict)
    endpoint: Annotated[str | None, BeforeValidator(lambda given: given or None)] = None


class Audit(SettingsGroup):
    """The audit trail (events-and-workers 2)."""

    sink: Annotated[str, Field(description="s3://bucket/prefix, or a folder")] = "audit"
    content: Annotated[bool, Field(description="whether prompts and answers are in it, redacted")] = False


Origin = Annotated[str, Field(pattern=r"^(\*|https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:([0-9]+|\*))?)$")]


class Cors(SettingsGroup):
    """Which web pages of other origins may call the API (contract 4)."""

    allowed_origins: Annotated[
        tuple[Origin, ...],
        BeforeValidator(several),
        Field(description="such as https://app.example.com; http://localhost:* for any port, * for every page"),
    ] = ()


class Streaming(SettingsGroup):
    """The relay between provider and client (turns-and-quota 9)."""

    channel_capacity: Annotated[int, Field(ge=16, le=64, description="events that wait to be sent")] = 32
    ping_interval_seconds: Annotated[float, Field(ge=5, le=60)] = 15
    progress_interval_seconds: Annotated[float, Field(ge=0.2, le=5)] = 1
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 32_768
    max_input_tokens: Annotated[
        int | None, Field(ge=1, le=10_000_000, description="of one message, where a model would take more")
    ] = None
    deadline_seconds: Annotated[float, Field(ge=5, le=900)] = 180
    on_disconnect: Literal["continue", "cancel"] = "continue"
    parts_kept_hours: Annotated[int, Field(ge=1, le=720)] = 24
    follow_interval_seconds: Annotated[float, Field(ge=0.1, le=5)] = 0.5
    web_search_context_size: Annotated[ContextSize, Field(description="for models that say none")] = "low"


class Quota(SettingsGroup):
    """Settlement tolerance, and limits on counts (turns-and-quota 4, 6, 7): per message, per user and day."""

    overshoot_tolerance_factor: Annotated[float, Field(ge=1.0, le=1.5, description="of the reserved tokens")] = 1.10
    warning_threshold_pct: Annotated[int, Field(ge=1, le=99)] = 80
    web_search_max_calls_per_message: Annotated[int, Field(ge=0)] = 2
    web_search_daily_quota: Annotated[int, Field(ge=0, description="calls")] = 75
    code_interpreter_max_calls_per_message: Annotated[int, Field(ge=0)] = 10
    code_interpreter_daily_quota: Annotated[int, Field(ge=0, description="calls")] = 50
    file_search_max_calls_per_message: Annotated[int, Field(ge=1)] = 10
    file_search_daily_quota: Annotated[int, Field(ge=0, description="calls")] = 200
    image_inputs_daily_quota: Annotated[int, Field(ge=0, description="images that models look at")] = 50
    uploads_daily_quota: Annotated[int, Field(ge=0, description="files")] = 100
    upload_mb_daily_quota: Annotated[int, Field(ge=0, description="of all files together")] = 500
    retention_days: Annotated[int, Field(ge=32)] = 400

    @property
    def overshoot_tolerance_pct(self) -> int:
        """The tolerance as a whole percentage: money is compared in integers."""
        return round(self.overshoot_tolerance_factor * 100)


class OrphanWatchdog(SettingsGroup):
    """When a running turn without a sign of life counts as dead (turns-and-quota 8)."""

    enabled: bool = True
    timeout_seconds: Annotated[int, Field(ge=30, le=3600)] = 75
    batch_size: Annotated[int, Field(ge=1, le=1000, description="dead turns that one run ends")] = 100


class CleanupSettings(SettingsGroup):
    """How often the deletion of an attachment at its provider is tried (events-and-workers 4).

    With the pauses between deliveries (`events.consume`), the default attempts span at least six hours.
    """

    max_attempts: Annotated[int, Field(ge=1, le=60, description="below the queues' maxReceiveCount")] = 60


class Thumbnails(SettingsGroup):
    """Thumbnails of images (context-attachments-providers 3): the most pixels and bytes they may have."""

    width: Annotated[int, Field(ge=16, le=512, description="pixels")] = 128
    height: Annotated[int, Field(ge=16, le=512, description="pixels")] = 128
    max_bytes: Annotated[int, Field(ge=1024, le=262_144, description="one is an item of its own")] = 131_072
    max_pixels: Annotated[int, Field(ge=1, le=100_000_000, description="an image with more is refused")] = 100_000_000


class Attachments(SettingsGroup):
    """Which files chats accept, and where these wait for their ingestion (context-attachments-providers 3).

    Clients too reach `bucket` at `endpoint`; without an endpoint it is on AWS.
    """

    bucket: str = ""
    endpoint: Annotated[str | None, BeforeValidator(lambda given: given or None)] = None
    document_max_kb: Annotated[int, Field(ge=1, le=102_400)] = 25_600
    image_max_kb: Annotated[int, Field(ge=1, le=25_600)] = 5_120
    max_documents_per_chat: Annotated[int, Field(ge=1, le=200, description="one item names them all")] = 50
    max_total_mb_per_chat: Annotated[int, Field(ge=1, le=10_240)] = 100
    max_images_per_message: Annotated[int, Field(ge=1, le=20)] = 4
    allow_csv: Annotated[bool, Field(description="takes CSV as plain text")] = True
    upload_seconds: Annotated[int, Field(ge=1, le=600, description="how long a presigned upload is good for")] = 600
    abandoned_after_seconds: Annotated[
        int, Field(ge=1, le=900, description="how long a file is waited for; longer than upload_seconds")
    ] = 900
    max_attempts: Annotated[int, Field(ge=1, le=10, description="of taking a file in")] = 5
    max_wait_seconds: Annotated[
        int, Field(ge=0, le=25, description="how long a call may ask to wait until a file can be used (`Prefer: wait`)")
    ] = 15
    thumbnails: Thumbnails = Thumbnails()

    @model_validator(mode="after")
    def _waits_longer_than_an_upload_takes(self) -> "Attachments":
        if self.abandoned_after_seconds <= self.upload_seconds:
            raise ValueError("abandoned_after_seconds must be more than upload_seconds")
        return self


class ContextSettings(SettingsGroup):
    """What a prompt includes (context-attachments-providers 1)."""

    recent_messages_limit: Annotated[int, Field(ge=0, le=100)] = 10
    web_search_guard: str = (
        "Search the web only when the conversation itself does not answer the question, and at most once."
    )
    file_search_guard: str = (
        "The user has given this conversation documents: look there first, and prefer what they say to what you know."
    )


class Retention(SettingsGroup):
    """How long deleted data and exports are kept, and when temporary chats are deleted."""

    deleted_chats_days: Annotated[int, Field(ge=1, le=3650)] = 30
    temporary_chats_hours: Annotated[float, Field(gt=0, le=8760, description="after the last use")] = 24
    exports_days: Annotated[int, Field(ge=1, le=14, description="an export can be fetched; the bucket keeps 15")] = 7
    export_link_seconds: Annotated[int, Field(ge=60, le=3600, description="a link to a file of one is good for")] = 600


class Settings(SettingsGroup):
    """Everything that a deployment can configure."""

    url_prefix: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = "/mini-chat"
    cursor_secret: SecretStr = SecretStr("")
    manifest_secret: Annotated[
        SecretStr, Field(description="signs what an erasure leaves as proof; without it nothing is erased")
    ] = SecretStr("")
    policy_file: Annotated[Path | None, Field(description="in force until a policy is published")] = None
    policy_refresh_seconds: Annotated[float, Field(ge=0, le=60)] = 5
    tenant_policies: TenantPolicies = TenantPolicies()
    metrics_namespace: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._/#:-]{0,255}$", description="of CloudWatch metrics; empty writes none")
    ] = "MiniChat"
    store: Store = Store()
    queues: Queues = Queues()
    audit: Audit = Audit()
    auth: Auth = Auth()
    cors: Cors = Cors()
    docs_page: Annotated[bool, Field(description="whether `GET /docs` shows the OpenAPI documents")] = True
    console: Annotated[bool, Field(description="whether `GET /console` shows the console")] = True
    streaming: Streaming = Streaming()
    quota: Quota = Quota()
    rates: RateSettings = RateSettings()
    estimation_budgets: Annotated[EstimationBudgets, Field(description="of models that say none")] = EstimationBudgets()
    context: ContextSettings = ContextSettings()
    thread_summary: ThreadSummary = ThreadSummary()
    chat_titles: ChatTitles = ChatTitles()
    doc_summaries: DocSummaries = DocSummaries()
    orphan_watchdog: OrphanWatchdog = OrphanWatchdog()
    retention: Retention = Retention()
    cleanup: CleanupSettings = CleanupSettings()
    attachments: Attachments = Attachments()
    export: Export = Export()
    providers: Annotated[
        dict[str, Provider], Field(description="in force until entries are published: `minichat providers publish`")
    ] = Field(default_factory=lambda: {"openai": OPENAI})
    provider_secrets_prefix: Annotated[
        str,
        Field(
            pattern=r"^/([A-Za-z0-9_.+=@-]+/)+$",
            description="where published entries' keys are; those of a tenant's overrides in a folder of its name",
        ),
    ] = "/mini-chat/providers/"

    @property
    def deployment(self) -> Deployment:
        """What the models of a policy inherit."""
        streaming = self.streaming
        return Deployment(self.estimation_budgets, streaming.web_search_context_size, streaming.max_input_tokens)

    @property
    def endpoints(self) -> dict[str, str | None]:
        """The providers, each with its endpoint's name in a catalog."""
        return {name: provider.endpoint for name, provider in self.providers.items()}


def load(environment: Mapping[str, str]) -> Settings:
    """The settings that this environment and the file it names describe.

    Raises SettingsError naming each wrong key, as the variable that sets it and as its path in the file.
    """
    values: dict[str, Any] = {}
    if config := environment.get(CONFIG_VARIABLE):
        values = read_document(CONFIG_VARIABLE, Path(config))
    for name, raw in _variables(environment):
        _put(values, _path(name), _parse(name, raw))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem) for problem in error.errors(include_input=False))) from None


def examine(environment: Mapping[str, str] | None = None) -> tuple[Settings, list[str]]:
    """The usable settings of an environment (this process's by default), and a sentence on each wrong key.

    A wrong key keeps its default: for diagnosis only, never for serving.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    problems: list[str] = []
    if config := environment.get(CONFIG_VARIABLE):
        try:
            values = read_document(CONFIG_VARIABLE, Path(config))
        except SettingsError as error:
            problems.append(str(error))
    for name, raw in _variables(environment):
        try:
            _put(values, _path(name), _parse(name, raw))
        except SettingsError as error:
            problems.append(str(error))
    while True:
        try:
            return Settings.model_validate(values), problems
        except ValidationError as error:
            for problem in error.errors(include_input=False):
                problems.append(_explain(problem))
                _drop(values, problem["loc"])


@cache
def current() -> Settings:
    """The settings of this process, read once."""
    return load(os.environ)


def function_name() -> str | None:
    """The name of this process's Lambda function; None outside Lambda."""
    return os.environ.get("AWS_LAMBDA_FUNCTION_NAME")


def read_document(key: str, path: Path) -> dict[str, Any]:
    """The mapping that a JSON or YAML file holds.

    Raises SettingsError naming `key`, the setting that pointed to the file, and what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except OSError as error:
        raise SettingsError(f"{key}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{key}: {path} cannot be parsed: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{key}: {path} must hold a mapping")
    return values


def secret_from_environment(name: str) -> str | None:
    """A provider's key from a variable outside the `MINICHAT_` names, such as `OPENAI_API_KEY`."""
    return os.environ.get(name) or None


def operators_api() -> tuple[str | None, str | None]:
    """The operator's API that the environment names for the command line, and a token for it."""
    return os.environ.get(API_VARIABLE) or None, os.environ.get(TOKEN_VARIABLE) or None


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415  only local mode reads YAML; functions never pay for it

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # The error's own text quotes the file, which may hold a secret.
        at = error.problem_mark
        place = f" in line {at.line + 1}, column {at.column + 1}" if at else ""
        raise ValueError(f"{error.problem or 'not YAML'}{place}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _variables(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The variables of settings; that of a group comes before those of its members, which win."""
    others = {CONFIG_VARIABLE, API_VARIABLE, TOKEN_VARIABLE}
    named = [(name, raw) for name, raw in environment.items() if name.startswith(PREFIX) and name not in others]
    return sorted(named, key=lambda variable: variable[0].count("__"))


def _path(name: str) -> list[str]:
    return name.removeprefix(PREFIX).lower().split("__")


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        nested = values.setdefault(key, {})
        if not isinstance(nested, dict):
            nested = values[key] = {}
        values = nested
    values[path[-1]] = value


def _drop(values: dict[str, Any], path: Sequence[int | str]) -> None:
    """Removes the innermost existing member that the path names."""
    holder, (key, *rest) = values, map(str, path)
    for inner in rest:
        nested = holder.get(key)
        if not isinstance(nested, dict) or inner not in nested:
            break
        holder, key = nested, inner
    holder.pop(key, None)


def _parse(name: str, raw: str) -> Any:
    if not raw.startswith(("{", "[")):
        return raw
    try:
        return json.loads(raw)
    except ValueError as error:
        raise SettingsError(f"{name}: not valid JSON: {error}") from None


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    return f"{PREFIX}{'__'.join(path).upper()} ({'.'.join(path)}): {problem['msg']}"
