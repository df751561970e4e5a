"""The built functions, and what they are told of the engine, the queues and the provider of this machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from minichat.local import stack
from minichat.local.issuer import Issuer
from minichat.settings import Store
from tests.support.aws.emulator import Built, built
from tests.support.events.queue_access import QueueAccess
from tests.support.http.gateway import a_long_token


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Everything that is deployed, built once for all workers."""
    base = tmp_path_factory.getbasetemp()
    return built((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scripted provider's address."""
    child, url = stack._scripted_provider(tmp_path_factory.mktemp("provider"))
    yield url
    child.stop()


@pytest.fixture
def queues(store: Store) -> QueueAccess:
    """Queues of one test."""
    return QueueAccess.made_at(str(store.endpoint), store.region)


@pytest.fixture
def settings(store: Store, queues: QueueAccess, provider: str, tmp_path: Path) -> dict[str, str]:
    """What the template would set, for the engine of this machine; TOKEN is a caller's."""
    issuer = Issuer(tmp_path)
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "MINICHAT_STORE__ENDPOINT": str(store.endpoint),
        "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
        "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
        "MINICHAT_AUTH__JWKS": str(issuer.jwks_file),
        "MINICHAT_CURSOR_SECRET": "secret",
        "MINICHAT_AUDIT__SINK": str(tmp_path / "audit"),
        **_a_bucket(store),
        **queues.environment,
        "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider, "allow_insecure": True}}),
        "TOKEN": a_long_token(issuer, "acme", "ann"),
    }


def _a_bucket(store: Store) -> dict[str, str]:
    name = f"uploads-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=store.endpoint, region_name=store.region).create_bucket(Bucket=name)
    return {"MINICHAT_ATTACHMENTS__BUCKET": name, "MINICHAT_ATTACHMENTS__ENDPOINT": str(store.endpoint)}
