"""What `minichat doctor` looks at, one function for each thing that can be wrong with a deployment.

Nothing here writes, costs money or shows a secret: messages quote only names, places and counts.
"""

import os
import socket
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import boto3
import httpx2
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from minichat.cli.findings import (
    CONNECT_SECONDS,
    Check,
    Finding,
    code,
    one_line,
    place,
    reason,
    refused,
    unanswered,
)
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.policy import Policy
from minichat.events import dead_letters
from minichat.events.base import Queue
from minichat.http.auth import read_keys
from minichat.local import tables
from minichat.local.tables import NotACheckout
from minichat.provider_entries import Provider
from minichat.providers import credentials
from minichat.providers.egress import is_public
from minichat.services.policy_in_force import first_policy
from minichat.settings import Settings, SettingsError, Store
from minichat.storage import policies

SIGNED_SECONDS = 300
"""How far a clock may be off before AWS refuses what it signs (AWS limit)."""
RELAY = "outbox-relay"
"""The relay, too, has a dead-letter queue, though no queue of its own."""


_NO_QUEUES = Finding(
    "failed", "none are named", "Set MINICHAT_QUEUES__URLS and …__DEAD_LETTERS: they are outputs of the stack."
)


def of(settings: Settings, problems: list[str], api: str | None, *, local: bool) -> Iterator[tuple[str, Check]]:
    """Every check of a deployment, by its name; `api` is where it serves, if that is known.

    Each may be called in a thread of its own. Connect the storage layer and the queues first.
    """
    if api is not None:
        yield "local stack" if local else "API", partial(_runs, api, local=local)
    # A stack has made its own cursor secret; the local one keeps it in its folder.
    yield "settings", partial(_settings, settings, problems, needs_secret=api is None)
    for name, provider in settings.providers.items():
        yield f"provider {name}: secret", partial(_secret, provider, local=local)
        yield f"provider {name}: reachable", partial(_reachable, provider)
    store, queues = settings.store, settings.queues
    yield f"table {store.conversation_table}", partial(_table, "ConversationTable", store.conversation_table, store)
    yield f"table {store.outbox_table}", partial(_table, "OutboxTable", store.outbox_table, store)
    yield "clock", partial(_clock, settings)
    if not (queues.urls and queues.dead_letters):
        yield "queues", lambda: _NO_QUEUES
    for queue in get_args(Queue) if queues.urls else ():
        yield f"queue {queue}", partial(_queue, queue, settings)
    for queue in (*get_args(Queue), RELAY) if queues.dead_letters else ():
        yield f"dead letters of {queue}", partial(_dead_letters, queue, settings)
    yield "key set", partial(_key_set, settings)
    yield "audit sink", partial(_audit_sink, settings)
    yield "uploads", partial(_uploads, settings)
    yield "policy", partial(_policy, settings)


def _runs(api: str, *, local: bool) -> Finding:
    try:
        httpx2.get(f"{api}/health", timeout=CONNECT_SECONDS, trust_env=False).raise_for_status()
    except httpx2.HTTPError:
        advice = "Start it with `minichat dev`; its folder has its logs." if local else "See the logs of ApiFunction."
        return Finding("failed", f"{api} does not answer", advice)
    return Finding("ok", f"{api} answers")


def _settings(settings: Settings, problems: list[str], *, needs_secret: bool) -> Finding:
    if problems:
        said = "; ".join(map(one_line, problems))
        return Finding("failed", said, "Correct or unset these keys: the product does not start so.")
    if needs_secret and not settings.cursor_secret.get_secret_value():
        return Finding("warning", "cursor_secret is empty", "Set MINICHAT_CURSOR_SECRET where the API runs.")
    return Finding("ok", "every key is valid")


_READS = {"secretsmanager": "secretsmanager:GetSecretValue", "ssm": "ssm:GetParameter"}


def _secret(provider: Provider, *, local: bool) -> Finding:
    if provider.auth is None:
        return Finding("ok", "none is needed")
    secret = provider.auth.secret
    where = credentials.described(secret)
    if credentials.read(secret) is not None:
        return Finding("ok", f"{where} can be read")
    if secret.source == "env":
        if local:
            return Finding("warning", f"{where} is not set here", "See that it was where `minichat dev` was started.")
        return Finding("failed", f"{where} is not set", f"Set {secret.name} to the provider's key.")
    return Finding(
        "failed",
        f"{where} has no key, or cannot be read",
        f"Store the key there, and allow {_READS[secret.source]} on it.",
    )


def _reachable(provider: Provider) -> Finding:
    """Opens a connection as the product would, directly and verified, and sends no request."""
    url = urlsplit(provider.base_url)
    try:
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
            if not (provider.allow_insecure or is_public(connection.getpeername()[0])):
                return Finding(
                    "failed",
                    f"{place(provider.base_url)} has a private address, which the product does not connect to",
                    "Correct base_url, or say allow_insecure if the provider is meant to be inside.",
                )
            if url.scheme == "https":
                with httpx2.create_ssl_context(trust_env=False).wrap_socket(connection, server_hostname=host):
                    pass
    except SSLCertVerificationError as error:
        return Finding(
            "failed",
            f"the certificate of {place(provider.base_url)} is not trusted ({error.verify_message})",
            "Correct base_url, or see what stands between here and the provider.",
        )
    except (OSError, ValueError) as error:
        why = "speaks no TLS" if isinstance(error, SSLError) else reason(error)
        return Finding(
            "failed",
            f"{place(provider.base_url)} cannot be reached: {why}",
            "Correct the provider's base_url, or open the way to it: DNS, routes, firewall.",
        )
    return Finding("ok", f"{place(provider.base_url)} takes connections")


def _table(logical_id: str, name: str, store: Store) -> Finding:
    variable = "MINICHAT_STORE__" + ("CONVERSATION_TABLE" if logical_id == "ConversationTable" else "OUTBOX_TABLE")
    client = _client("dynamodb", store, store.endpoint)
    try:
        found = client.describe_table(TableName=name)["Table"]
        expires = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    except ClientError as error:
        if code(error) == "ResourceNotFoundException":
            at = place(store.endpoint) if store.endpoint else store.region
            return Finding(
                "failed", f"is not there ({at})", f"Deploy the stack, or set {variable} to the table's name."
            )
        return refused(error, "dynamodb:DescribeTable and dynamodb:DescribeTimeToLive")
    except BotoCoreError as error:
        return unanswered(error, store.endpoint, "MINICHAT_STORE__ENDPOINT")
    try:
        wanted = tables.described(tables.project_root())[logical_id]
    except NotACheckout:
        return Finding("warning", "is there; its keys were not compared", "Run the doctor inside a checkout.")
    wrong = list(_differences(wanted, found, expires))
    if wrong:
        return Finding("failed", "; ".join(wrong), "Deploy the stack again: infra/tables.yaml describes the table.")
    return Finding("ok", "keys, indexes, time to live and stream are as described")


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any], expires: Mapping[str, Any]) -> Iterator[str]:
    """How a table differs from its template, by DynamoDB's description of it."""
    if found.get("TableStatus") not in {"ACTIVE", "UPDATING"}:
        yield f"is {found.get('TableStatus')}"
    if _keys(found, found) != _keys(wanted, wanted):
        yield "its key is not the described one"
    yield from _index_differences(wanted, found)
    if stream := wanted.get("StreamSpecification"):
        given = found.get("StreamSpecification", {})
        if not given.get("StreamEnabled"):
            yield "its stream is off"
        elif given.get("StreamViewType") != stream["StreamViewType"]:
            yield f"its stream tells {given.get('StreamViewType')}, not {stream['StreamViewType']}"
    attribute = wanted["TimeToLiveSpecification"]["AttributeName"]
    if expires.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"} or expires.get("AttributeName") != attribute:
        yield f"time to live by {attribute} is off"


def _index_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    indexes = {index["IndexName"]: index for index in found.get("GlobalSecondaryIndexes", ())}
    for described in wanted.get("GlobalSecondaryIndexes", ()):
        name = described["IndexName"]
        index = indexes.get(name)
        if index is None:
            yield f"has no index {name}"
        elif (_keys(index, found), index["Projection"].get("ProjectionType")) != (
            _keys(described, wanted),
            described["Projection"]["ProjectionType"],
        ):
            yield f"its index {name} is not the described one"
        elif index.get("IndexStatus", "ACTIVE") not in {"ACTIVE", "UPDATING"}:
            yield f"its index {name} is {index['IndexStatus']}"


def _keys(has_keys: Mapping[str, Any], table: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    types = {one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]}
    return [(one["KeyType"], one["AttributeName"], types[one["AttributeName"]]) for one in has_keys["KeySchema"]]


def _clock(settings: Settings) -> Finding:
    """Every answer of the store carries its time, even a refusal. `moment.now` follows that; this clock does not."""
    store = settings.store
    try:
        answer = _client("dynamodb", store, store.endpoint).describe_table(TableName=store.conversation_table)
        metadata: Mapping[str, Any] = answer["ResponseMetadata"]
    except ClientError as error:
        metadata = error.response["ResponseMetadata"]
    except BotoCoreError as error:
        return unanswered(error, store.endpoint, "MINICHAT_STORE__ENDPOINT")
    said = metadata.get("HTTPHeaders", {}).get("date")
    if said is None:
        return Finding("ok", "the store does not tell its time")
    off = abs(round((datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds()))
    if off <= max(settings.auth.leeway_seconds, 2):
        return Finding("ok", f"{off} s from the store's")
    result: Literal["warning", "failed"] = "failed" if off >= SIGNED_SECONDS else "warning"
    return Finding(result, f"{off} s from the store's", "Set this machine's clock: tokens and signatures are dated.")


def _queue(name: str, settings: Settings) -> Finding:
    waiting = _depth(settings.queues.urls.get(name), "MINICHAT_QUEUES__URLS", settings)
    return waiting if isinstance(waiting, Finding) else Finding("ok", f"{waiting} waiting")


def _dead_letters(name: str, settings: Settings) -> Finding:
    dead = _depth(settings.queues.dead_letters.get(name), "MINICHAT_QUEUES__DEAD_LETTERS", settings)
    if isinstance(dead, Finding):
        return dead
    if dead:
        advice = f"`minichat dlq show {name}` says why; after the fix, `minichat dlq redrive {name}`."
        return Finding("warning", f"{dead} waiting", advice)
    return Finding("ok", "none")


def _depth(url: str | None, variable: str, settings: Settings) -> int | Finding:
    """How many messages are in a queue, received or not; or why that is not known."""
    if url is None:
        return Finding("failed", f"{variable} does not name it", f"Set {variable}: it is an output of the stack.")
    try:
        return sum(dead_letters.depth(url))
    except ClientError as error:
        if "NonExistent" in code(error) or "NotFound" in code(error):
            return Finding("failed", "is not there", f"Deploy the stack, or correct {variable}.")
        return refused(error, "sqs:GetQueueAttributes")
    except BotoCoreError as error:
        return unanswered(error, settings.queues.endpoint, "MINICHAT_QUEUES__ENDPOINT")


def _key_set(settings: Settings) -> Finding:
    if not settings.auth.jwks:
        if settings.auth.development_user is not None:
            advice = "Set MINICHAT_AUTH__JWKS, and no development user, wherever others can call."
            return Finding("warning", "none is set; callers without a token are the development user", advice)
        return Finding("failed", "none is set", "Set MINICHAT_AUTH__JWKS to the issuer's key set, a URL or a file.")
    where = place(settings.auth.jwks)
    try:
        count = len(read_keys(settings.auth.jwks))
    except ServiceUnavailable:
        advice = "Correct MINICHAT_AUTH__JWKS, or see why the issuer does not answer with a key set."
        return Finding("failed", f"{where} cannot be read", advice)
    return Finding("ok", f"{count} {'key' if count == 1 else 'keys'} at {where}")


def _audit_sink(settings: Settings) -> Finding:
    sink = settings.audit.sink
    if not sink.startswith("s3://"):
        return _folder(Path(sink))
    name = sink.removeprefix("s3://").partition("/")[0]
    return _bucket(name, "AUDIT__SINK", settings.queues.endpoint, "QUEUES__ENDPOINT", settings.store)


def _uploads(settings: Settings) -> Finding:
    kept = settings.attachments
    if not kept.bucket:
        advice = "Set MINICHAT_ATTACHMENTS__BUCKET: UploadsBucketName is an output of the stack."
        return Finding("failed", "no bucket is named: chats can be given no files", advice)
    return _bucket(kept.bucket, "ATTACHMENTS__BUCKET", kept.endpoint, "ATTACHMENTS__ENDPOINT", settings.store)


def _bucket(name: str, key: str, endpoint: str | None, endpoint_key: str, store: Store) -> Finding:
    """Whether a bucket is there; `key` of the settings names it, and another its endpoint."""
    try:
        _client("s3", store, endpoint).head_bucket(Bucket=name)
    except ClientError as error:
        if code(error) in {"404", "NoSuchBucket"}:
            advice = f"Deploy the stack, or set MINICHAT_{key} to the bucket's name."
            return Finding("failed", f"there is no bucket {name}", advice)
        # Functions read and write there; an operator may well not be allowed to.
        return Finding("warning", f"bucket {name} refuses: {code(error)}", "Allow s3:ListBucket to look closer.")
    except BotoCoreError as error:
        return unanswered(error, endpoint, f"MINICHAT_{endpoint_key}")
    return Finding("ok", f"bucket {name} is there")


def _folder(sink: Path) -> Finding:
    there = next(place for place in (sink, *sink.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        advice = f"Make {sink} a folder that can be written, or set MINICHAT_AUDIT__SINK to another."
        return Finding("failed", f"{there} is {'not writable' if there.is_dir() else 'no folder'}", advice)
    return Finding("ok", f"folder {sink} {'is writable' if sink.exists() else 'can be made'}")


def _policy(settings: Settings) -> Finding:
    publish = "Publish a right one: `minichat policy publish FILE`."
    try:
        version = policies.current_version()
        published = None if version is None else policies.read(version, policies.DEPLOYMENT)
    except ServiceUnavailable:
        return Finding("failed", "the table does not tell", "See what is said of the conversation table.")
    except (ValueError, zlib.error):  # something else wrote it
        return Finding("failed", f"version {version} cannot be understood", publish)
    if version is not None and published is None:
        return Finding("failed", f"version {version} is in force, and is not there", publish)
    try:
        policy = first_policy(settings) if published is None else published.policy.served_by(settings.endpoints)
    except SettingsError as error:
        advice = "Correct the file that MINICHAT_POLICY_FILE names, or publish a policy."
        return Finding("failed", "none is published, and the first one is wrong: " + one_line(error), advice)
    except ValueError as error:
        advice = "Add the provider to MINICHAT_PROVIDERS, or publish a policy without it."
        return Finding("failed", f"version {version}: {error}", advice)
    return _offered(policy, published=published is not None)


def _offered(policy: Policy, *, published: bool) -> Finding:
    enabled = len(policy.enabled_models())
    if not enabled:
        advice = "Publish a policy with an enabled model: `minichat policy publish FILE`."
        return Finding("failed", f"version {policy.policy_version} enables no model: nobody can start a chat", advice)
    counted = f"version {policy.policy_version} enables {enabled} of {len(policy.model_catalog)} models"
    if not published:
        return Finding("warning", f"none is published; the first one, {counted}", "`minichat policy publish FILE`.")
    return Finding("ok", counted)


def _client(service: Any, store: Store, endpoint: str | None) -> Any:
    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=CONNECT_SECONDS, retries={"mode": "standard", "max_attempts": 1}
    )
    # A session of its own: the default one must not make clients in two threads at once.
    session = boto3.session.Session()
    return session.client(service, region_name=store.region, endpoint_url=endpoint, config=config)
