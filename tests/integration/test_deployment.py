"""The built template, deployed through the CloudFormation of the local engine, and a conversation with what it made."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from minichat.local.engine import Engine
from minichat.local.issuer import Issuer
from tests.conftest import ROOT
from tests.support.aws.deployment import Deployment
from tests.support.aws.emulator import SAM, Built
from tests.support.http import conversation
from tests.support.http.client import User
from tests.support.patience import PATIENCE

TURNS = 3
"""That a conversation settles: sent, retried, edited."""
AUDITED = {"turn_completed": TURNS, "turn_retry": 1, "turn_edit": 1, "turn_delete": 1, "chat_delete": 1}

pytestmark = pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")


@dataclass(frozen=True)
class Deployed:
    """A deployment, its outputs, and a caller's token."""

    deployment: Deployment
    outputs: dict[str, str]
    token: str

    @property
    def url(self) -> str:
        """Where its API is on this machine."""
        host, _, path = self.outputs["ApiUrl"].removeprefix("https://").partition("/")
        stage, _, rest = path.partition("/")
        return f"{self.deployment.endpoint}/restapis/{host.partition('.')[0]}/{stage}/_user_request_/{rest}"


@pytest.fixture(scope="module")
def deployed(artifacts: Built, provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """An engine of its own, with the stack in it."""
    state = tmp_path_factory.mktemp("deployed")
    issuer, engine = Issuer(state), Engine(ROOT, "ministack", state / "logs")
    assert engine.child is not None
    # What no parameter may say: the local issuer has no https, and AWS's endpoints need no name.
    here = {"AWS_ENDPOINT_URL": engine.endpoint, "MINICHAT_AUTH__JWKS": str(issuer.jwks_file)}
    providers = {"openai": {"base_url": provider, "allow_insecure": True}}
    parameters = {
        "JwtIssuer": "http://localhost/minichat-dev",
        "JwtJwksUrl": "https://issuer.invalid/jwks",
        "StoreEndpoint": engine.endpoint,
        "Providers": json.dumps(providers),
    }
    deployment = Deployment(artifacts, engine.endpoint, here, parameters)
    began = time.monotonic()
    outputs = deployment.create()
    print(f"\n  {len(deployment.resources())} resources in {time.monotonic() - began:.1f} s, not {deployment.left_out}")
    yield Deployed(
        deployment, outputs, issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(minutes=10))
    )
    engine.child.stop()


def test_everything_of_the_template_is_made_but_what_the_engine_does_not_know(
    artifacts: Built, deployed: Deployed
) -> None:
    made = deployed.deployment.resources()
    assert deployed.deployment.wanted <= {name for name, _, _ in made}
    functions = {name for name, kind, _ in made if kind == "AWS::Lambda::Function"}
    # Those that export events are only there when somebody wants events.
    assert functions == artifacts.functions.keys() - {"EventExportFunction", "WebhookFunction"}
    kinds = Counter(kind for _, kind, _ in made)
    assert kinds["AWS::DynamoDB::Table"] == 2
    assert kinds["AWS::Lambda::EventSourceMapping"] == 7
    assert all(name.endswith("Alarm") for name in deployed.deployment.left_out)


def test_a_conversation_goes_through_the_gateway_and_its_events_reach_their_workers(deployed: Deployed) -> None:
    with User(deployed.url, deployed.token) as user:
        chat = conversation.hold(user)
        assert user.http.get("/elsewhere").json()["code"] == "not_found"
        assert user.http.delete(f"/chats/{chat}").status_code == 204
        # By the stream of the outbox, the relay, the queues and the mappings that the template says.
        began = time.monotonic()
        _eventually(lambda: len(_entries(deployed)) == TURNS)
        print(f"  {time.monotonic() - began:6.2f} s  {TURNS} turns in the ledger")
        _eventually(lambda: _audited(deployed, chat) == AUDITED)
        print(f"  {time.monotonic() - began:6.2f} s  audited: {AUDITED}")
    queues = deployed.deployment.client("sqs")
    for url in json.loads(deployed.outputs["DeadLetterUrls"]).values():
        told = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        assert told["Attributes"]["ApproximateNumberOfMessages"] == "0", url


def _entries(deployed: Deployed) -> list[str]:
    """Sort keys of the usage ledger."""
    items = deployed.deployment.client("dynamodb").scan(TableName=deployed.outputs["ConversationTableName"])["Items"]
    return [item["sk"]["S"] for item in items if "#L#" in item["pk"]["S"]]


def _audited(deployed: Deployed, chat: str) -> dict[str, int]:
    """How many records the audit trail has of a chat, by type."""
    client, bucket = deployed.deployment.client("s3"), deployed.outputs["AuditBucketName"]
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    records = [json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
    return Counter(str(record["event_type"]) for record in records if chat in json.dumps(record))


def _eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)
