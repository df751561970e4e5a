"""The whole product on one machine: engine, tables, provider and server as one tree of processes."""

import json
import os
import secrets
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from botocore.exceptions import BotoCoreError, ClientError

from minichat import settings
from minichat.local import buckets, containers, own_model, queues, tables
from minichat.local.engine import Engine, EngineMissing
from minichat.local.issuer import JWKS_FILE, JWKS_PATH, ROLES_CLAIM, Issuer, as_uuid
from minichat.local.process import Child, free_port, stop_all
from minichat.moment import new_id, now
from minichat.provider_entries import OPENAI
from minichat.services.policy_in_force import first_policy
from minichat.settings import Settings, SettingsError, Store
from minichat.storage import policies
from minichat.storage.items import connect

DEVELOPMENT_TENANT = "dev"
DEVELOPMENT_USER = "developer"
QUEUE_ENGINE = "ministack"
"""The engine that has queues; started for them when the tables are in another engine."""
SIGNS_MANIFESTS = "manifest-secret"
"""The file in the state folder with what signs the proof of an erasure, for the servers and for operators' commands."""
PAGES_OF_THIS_MACHINE = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*"
"""Who may call the local stack from a browser, unless it is configured."""
_WORKERS = {"schedules": (), "sources": ("--places", "{state}")}
TOKEN_LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What the command line asked for."""

    port: int = 8080
    host: str = "127.0.0.1"
    engine: str = "ministack"
    auth: bool = True
    config: Path | None = None
    policy: Path | None = None
    provider_url: str | None = None
    provider_kind: str | None = None
    model: str | None = None
    state: Path | None = None
    events: bool = True
    exports: bool = False
    containers: str | None = None
    """Where containers reach this machine, if they shall; empty finds it out."""
    sam_port: int | None = None
    """Where `sam local start-api` shall answer, if at all."""


@dataclass(slots=True)
class Stack:
    """A running stack: where it is, and its processes, the youngest first."""

    base_url: str
    token: str
    provider_url: str | None
    engine_url: str
    state: Path
    children: list[Child]
    environment: dict[str, str]
    sam_url: str | None = None

    def check(self) -> None:
        """Raises ChildFailed when a process has ended by itself."""
        for child in self.children:
            child.check()

    def first_chat(self) -> str:
        """The id of a new chat, made through the API."""
        return str(self._asked("/chats", b'{"title": "First chat"}')["id"])

    def offers_a_model(self) -> bool:
        """Whether the policy in force enables any."""
        return bool(self._asked("/models")["items"])

    def _asked(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        request = Request(f"{self.base_url}{path}", data=body, headers=headers)  # noqa: S310  loopback
        with urlopen(request, timeout=10) as response:  # noqa: S310  loopback
            answer: dict[str, Any] = json.load(response)
        return answer


def start(wish: StackOptions) -> Stack:
    """Starts everything and returns once the server answers; on failure, stops what it started.

    Raises NotACheckout, EngineMissing, SettingsError, ChildFailed, each with what to do about it.
    """
    root = tables.project_root()
    state = folder(wish.state)
    issuer = Issuer(state)
    _bypass_proxies(wish.host, wish.engine.partition("://")[2].rstrip("/"))
    is_own = wish.provider_kind is not None or wish.model is not None
    wanted = environment(wish) | (_own_model(wish, state) if is_own else {})
    configured = settings.load(wanted)
    first_policy(configured)  # a wrong policy is explained before anything starts
    engine = Engine(root, wish.engine, state / "logs", data=wish.state and state)
    children: list[Child] = [] if engine.child is None else [engine.child]
    try:
        queue_engine = engine
        if wish.engine != QUEUE_ENGINE:
            queue_engine = Engine(root, QUEUE_ENGINE, state / "logs", data=wish.state and state)
            assert queue_engine.child is not None
            queue_engine.child.name = "the queues"
            children.append(queue_engine.child)
        wanted |= _store(engine.endpoint) | _signing(state, issuer, configured) | _pages(configured)
        provider_url = wish.provider_url
        if _needs_scripted_provider(configured, wanted):
            provider, provider_url = _scripted_provider(state / "logs")
            children.insert(0, provider)
            wanted["MINICHAT_PROVIDERS"] = _openai_at(provider_url)
        configured = settings.load(wanted)
        _create_tables(root, configured.store)
        wanted |= _events(root, queue_engine.endpoint, state, configured, exports=wish.exports)
        _publish(configured, insist=wish.policy is not None or is_own, renumber=is_own)
        port = wish.port or free_port()
        command = [sys.executable, "-m", "minichat.local.server", "--host", wish.host, "--port", str(port)]
        server = Child("the server", command, state / "logs", wanted)
        children.insert(0, server)
        children[:0] = _workers(wish, state, wanted)
        base_url = f"http://{wish.host}:{port}{configured.url_prefix}/v1"
        server.wait_until_it_answers(f"{base_url}/health")
        jwks_url = f"http://{wish.host}:{port}{JWKS_PATH}"
        children[:0] = _for_containers(root, state, wish, settings.load(wanted), jwks_url)
    except BaseException:
        stop_all()
        raise
    token = issuer.token(
        DEVELOPMENT_TENANT, DEVELOPMENT_USER, now=datetime.now(UTC), lifetime=TOKEN_LIFETIME, auth=configured.auth
    )
    sam_url = None if wish.sam_port is None else f"http://127.0.0.1:{wish.sam_port}{Settings().url_prefix}/v1"
    return Stack(base_url, token, provider_url, engine.endpoint, state, children, _of_operators(wanted), sam_url)


def _workers(wish: StackOptions, state: Path, wanted: dict[str, str]) -> list[Child]:
    """Starts what calls the workers' functions."""
    started: list[Child] = []
    for name, arguments in _WORKERS.items():
        if wish.events or name != "sources":
            module = [sys.executable, "-m", f"minichat.local.{name}", *(part.format(state=state) for part in arguments)]
            started.insert(0, Child(f"the {name}", module, state / "logs", wanted))
    return started


def _for_containers(root: Path, state: Path, wish: StackOptions, settings: Settings, jwks_url: str) -> list[Child]:
    """Lets containers in, tells their settings, and starts those of the API if wished; returns what runs for it."""
    (state / containers.FILE).unlink(missing_ok=True)  # of another start, with other ports
    if wish.containers is None and wish.sam_port is None:
        return []
    host = wish.containers or containers.address(root)
    variables, ports = containers.seen_from(host, containers.variables(root, settings, jwks_url))
    containers.written(state, variables)
    doors = containers.doors(host, ports, state / "logs")
    sam = None if wish.sam_port is None else containers.api(root, state, wish.sam_port)
    return [child for child in (sam, doors) if child is not None]


def environment(wish: StackOptions) -> dict[str, str]:
    """The environment with the flags applied: flags win over environment and file."""
    return {**os.environ, **_said(wish)}


def _of_operators(environment: dict[str, str]) -> dict[str, str]:
    """The settings that operators' commands need; none is a secret."""
    names = ("STORE__", "QUEUES__", "EXPORT__", "AUDIT__", "ATTACHMENTS__", "CONFIG", "POLICY_FILE", "PROVIDERS")
    prefixes = tuple(f"{settings.PREFIX}{name}" for name in names)
    return {name: value for name, value in environment.items() if name.startswith(prefixes)}


def attached(state: Path | None) -> Settings:
    """The settings of the stack that runs with this state folder, connected to its tables: for operators' commands.

    Raises SettingsError when no stack has run there.
    """
    attach(state)
    configured = settings.load(os.environ)
    connect(configured.store)
    return configured


def attach(state: Path | None) -> None:
    """Points this process's environment to the stack that runs with this state folder; existing variables stay.

    Raises SettingsError when no stack has run there.
    """
    about = told(state)
    _bypass_proxies(about["engine_url"].partition("://")[2])
    jwks = str(folder(state) / JWKS_FILE)
    signs = {"MINICHAT_MANIFEST_SECRET": _secret(folder(state) / SIGNS_MANIFESTS)}
    said = {**_store(about["engine_url"]), "MINICHAT_AUTH__JWKS": jwks, **signs, **about["environment"]}
    for name, value in said.items():
        os.environ.setdefault(name, value)


def told(state: Path | None) -> dict[str, Any]:
    """What the stack that runs with this state folder recorded of itself: its addresses, settings and a token.

    Raises SettingsError when no stack has run there.
    """
    file = folder(state) / "dev.json"
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SettingsError(f"{file} is not there: start the local stack with `minichat dev`.") from None
    return about


def folder(state: Path | None) -> Path:
    """The state folder that a flag names, or this checkout's own.

    Raises NotACheckout.
    """
    return (state or tables.project_root() / ".minichat").resolve()


def _own_model(wish: StackOptions, state: Path) -> dict[str, str]:
    """The variables of a stack whose only model is one of the server that the flags name.

    Raises SettingsError, naming the flag, when that server is missing, speaks something else or lacks the model.
    """
    if wish.provider_url is None:
        raise SettingsError("--provider-url: --provider-kind and --model need the address of their server.")
    if wish.policy is not None:
        raise SettingsError("--policy: leave it out, or --provider-kind and --model: these make a policy of their own.")
    own = own_model.found(wish.provider_url, wish.provider_kind, wish.model)
    providers = json.dumps({own_model.PROVIDER: own.entry()})
    return {"MINICHAT_PROVIDERS": providers, "MINICHAT_POLICY_FILE": str(own.written(state))}


def _publish(configured: Settings, *, insist: bool, renumber: bool) -> None:
    """Puts the first-start policy in force unless one is; with `insist`, in place of another one too, and with
    `renumber` as the version after that one.

    Raises SettingsError when its version was published with other content.
    """
    for name, value in _store(configured.store.endpoint or "").items():
        os.environ.setdefault(name, value)
    connect(configured.store)
    policy, version = first_policy(configured), policies.current_version()
    if version is not None:
        published = policies.read(version, policies.DEPLOYMENT)
        if renumber:
            policy = policy.model_copy(update={"policy_version": version})
        if not insist or (published is not None and published.policy == policy):
            return
        if renumber:
            policy = policy.model_copy(update={"policy_version": version + 1})
    try:
        policies.publish(policy, at=now(), by="minichat dev", token=new_id(now()))
    except policies.VersionTaken as taken:
        raise SettingsError(
            f"policy_version: {policy.policy_version} cannot follow version {taken.current}, which is in "
            "force in these tables: give the changed policy a higher one."
        ) from None


def _said(wish: StackOptions) -> dict[str, str]:
    """The flags as environment variables."""
    said: dict[str, str] = {}
    if wish.config is not None:
        said[settings.CONFIG_VARIABLE] = str(wish.config.resolve())
    if wish.policy is not None:
        said["MINICHAT_POLICY_FILE"] = str(wish.policy.resolve())
    if wish.provider_url is not None:
        said["MINICHAT_PROVIDERS"] = _openai_at(wish.provider_url)
    if not wish.auth:
        said["MINICHAT_AUTH__DEVELOPMENT_TENANT"] = as_uuid(DEVELOPMENT_TENANT)
        said["MINICHAT_AUTH__DEVELOPMENT_USER"] = as_uuid(DEVELOPMENT_USER)
    return said


def _events(root: Path, endpoint: str, state: Path, configured: Settings, *, exports: bool) -> dict[str, str]:
    """Creates the queues and the bucket of uploads; returns the settings that name them and the audit trail."""
    urls = queues.create(root, endpoint, configured.store.region)
    said = queues.variables(root, endpoint, urls)
    if exports:
        said["MINICHAT_EXPORT__QUEUE_URL"] = urls["ExportQueue"]
    if not configured.attachments.bucket:
        said |= buckets.create(root, endpoint, configured.store.region, urls)
    if "sink" not in configured.audit.model_fields_set:
        said["MINICHAT_AUDIT__SINK"] = str(state / "audit")
    return said


def _create_tables(root: Path, store: Store) -> None:
    """Raises EngineMissing, with the engine's reason, when it cannot make tables."""
    try:
        tables.create(root, store)
    except (BotoCoreError, ClientError) as error:
        raise EngineMissing(f"No tables can be made at {store.endpoint}: {error}") from None


def _bypass_proxies(*hosts: str) -> None:
    """Exempts this machine from any proxy that the environment names."""
    bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if bypassed != "*":
        bypassed = ",".join(filter(None, (bypassed, "127.0.0.1", "localhost", *hosts)))
    # Libraries differ in which of the two spellings wins.
    os.environ.update(no_proxy=bypassed, NO_PROXY=bypassed)


def _store(endpoint: str) -> dict[str, str]:
    return {
        "MINICHAT_STORE__ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _signing(state: Path, issuer: Issuer, configured: Settings) -> dict[str, str]:
    """The development issuer's keys and claims, and secrets that outlive a restart."""
    return {
        "MINICHAT_AUTH__JWKS": str(issuer.jwks_file),
        "MINICHAT_AUTH__ROLES_CLAIM": configured.auth.roles_claim or ROLES_CLAIM,
        "MINICHAT_CURSOR_SECRET": _secret(state / "cursor-secret"),
        "MINICHAT_MANIFEST_SECRET": _secret(state / SIGNS_MANIFESTS),
    }


def _pages(configured: Settings) -> dict[str, str]:
    """Whoever develops a page serves it from this machine, at a port of theirs."""
    if "allowed_origins" in configured.cors.model_fields_set:
        return {}
    return {"MINICHAT_CORS__ALLOWED_ORIGINS": PAGES_OF_THIS_MACHINE}


def _secret(file: Path) -> str:
    if not file.exists() or file.stat().st_size == 0:  # empty: a start was interrupted right here
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32), encoding="utf-8")
    return file.read_text(encoding="utf-8")


def _needs_scripted_provider(configured: Settings, environment: dict[str, str]) -> bool:
    """Whether no provider is configured: neither an entry nor a key for the default one."""
    return configured.providers == {"openai": OPENAI} and not environment.get("OPENAI_API_KEY")


def _scripted_provider(logs: Path) -> tuple[Child, str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "minichat.local.scripted_provider", "--port", str(port)]
    provider = Child("the scripted provider", command, logs)
    try:
        provider.wait_until_it_answers(f"{url}/health")
    except BaseException:
        provider.stop()
        raise
    return provider, url


def _openai_at(url: str) -> str:
    return json.dumps({"openai": {"base_url": url, "allow_insecure": True}})
