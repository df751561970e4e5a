"""`--stack`: an operator's command finds everything that it needs in the stack, and says what is in the way."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from cfnlint.decode import cfn_yaml

from minichat.cli.main import main
from minichat.local import deployed
from minichat.moment import new_id, now
from minichat.services.policy_in_force import SHIPPED_POLICY, policy_file
from minichat.settings import Settings, Store
from minichat.storage import policies
from tests.conftest import ROOT
from tests.support.patience import PATIENCE

TEMPLATE = cfn_yaml.load(str(ROOT / "template.yaml"))
PARAMETERS = {
    "JwtIssuer": "https://login.acme.test/",
    "JwtAudience": "chat",
    "JwtJwksUrl": "https://login.acme.test/keys",
    "JwtTenantClaim": "org",
    "JwtSettings": '{"subject_claim": "oid"}',
    "JwtFeaturesClaim": "",
    "AuditContent": "true",
    "Webhooks": "[]",
    "Providers": "",
    "ProviderBaseUrl": "https://api.openai.com",
    "ProviderSecretName": "minichat/openai",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A stack on the engine that says what ours does."""

    name: str
    engine: str
    store: Store

    def minichat(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own, whose environment has another deployment's settings."""
        others = {"MINICHAT_STORE__CONVERSATION_TABLE": "others", "MINICHAT_STORE__REGION": "eu-west-1"}
        command = [sys.executable, "-m", "minichat.cli.main", *arguments]
        given = os.environ | others | {"AWS_ENDPOINT_URL": self.engine, **environment}
        return subprocess.run(command, env=given, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def made(engine: str, store: Store) -> Made:
    return make(engine, store, without=())


def make(engine: str, store: Store, without: tuple[str, ...]) -> Made:
    outputs = {
        "ApiUrl": "http://127.0.0.1:9/dev/mini-chat/v1",
        "ConversationTableName": store.conversation_table,
        "OutboxTableName": store.outbox_table,
        "QueueUrls": '{"usage": "http://127.0.0.1:9/usage"}',
        "DeadLetterUrls": '{"usage": "http://127.0.0.1:9/usage-dead"}',
        "UploadsBucketName": "uploads",
        "AuditBucketName": "audit",
        "ProviderSecretsPrefix": "/mini-chat/providers/",
    }
    template = {
        "Parameters": {name: {"Type": "String"} for name in PARAMETERS},
        "Resources": {"One": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items() if name not in without},
    }
    name = f"minichat-{uuid4().hex[:8]}"
    client = boto3.client("cloudformation", endpoint_url=engine, region_name="us-east-1")
    parameters: Any = [{"ParameterKey": key, "ParameterValue": value} for key, value in PARAMETERS.items()]
    client.create_stack(StackName=name, TemplateBody=json.dumps(template), Parameters=parameters)
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return Made(name, engine, store)


def test_a_command_works_on_the_tables_that_the_stack_names(made: Made) -> None:
    policy = policy_file(SHIPPED_POLICY, Settings())
    policies.publish(policy, at=now(), by="ann", token=new_id(now()))
    run = made.minichat("policy", "history", "--stack", made.name, "--region", "us-east-1")
    assert (run.returncode, run.stderr) == (0, "")
    assert "ann" in run.stdout


def test_the_doctor_reads_settings_from_the_stack_and_forgets_those_of_others(made: Made) -> None:
    run = made.minichat("doctor", "--stack", made.name, "--region", "us-east-1", "--json")
    told = {one["check"]: one for one in json.loads(run.stdout)["checks"]}
    assert told["settings"]["result"] == "ok"
    assert told[f"table {made.store.conversation_table}"]["result"] == "ok"
    assert told["API"]["detail"] == "http://127.0.0.1:9/dev/mini-chat/v1 does not answer"
    assert told["key set"]["detail"] == "https://login.acme.test/keys cannot be read"
    assert "Secrets Manager secret minichat/openai" in told["provider openai: secret"]["detail"]
    assert told["audit sink"]["detail"] == "there is no bucket audit"


def test_what_is_no_stack_of_ours_is_refused_in_one_line(made: Made) -> None:
    run = made.minichat("dlq", "list", "--stack", "nothing", "--region", "us-east-1")
    assert run.returncode == 2
    assert run.stderr == (
        "minichat: --stack: there is no stack 'nothing' in us-east-1: --region and --profile say where.\n"
    )
    older = make(made.engine, made.store, without=("QueueUrls", "ProviderSecretsPrefix"))
    run = older.minichat("reconcile", "--stack", older.name, "--region", "us-east-1")
    assert run.returncode == 2
    assert run.stderr.startswith(
        f"minichat: --stack: {older.name} (CREATE_COMPLETE) has no output ProviderSecretsPrefix, QueueUrls: "
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--stack", "it", "--local"), "--stack is on AWS, --local and --state are here: choose one."),
        (("--region", "us-east-1"), "--region and --profile say where --stack is: name one."),
        (("--stack", "it", "--profile", "nobodys"), "AWS does not tell: The config profile (nobodys)"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["turns", "running", *arguments]) == 2
    assert why in capsys.readouterr().err


def test_a_stack_says_what_the_template_does() -> None:
    assert {*deployed.OUTPUTS.values(), deployed.AUDIT_BUCKET, deployed.API_URL} <= TEMPLATE["Outputs"].keys()
    functions = [
        TEMPLATE["Globals"]["Function"],
        *(one.get("Properties", {}) for one in TEMPLATE["Resources"].values()),
    ]
    said = [one.get("Environment", {}).get("Variables", {}) for one in functions]
    for name, parameter in deployed.PARAMETERS.items():
        values = [variables[f"MINICHAT_{name}"] for variables in said if f"MINICHAT_{name}" in variables]
        assert {"Ref": parameter} in [value["Fn::If"][1] if "Fn::If" in value else value for value in values], name


def test_without_entries_the_provider_is_the_one_of_the_template() -> None:
    ours = json.loads(deployed.by_parameters(PARAMETERS)["MINICHAT_PROVIDERS"])
    text = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["MINICHAT_PROVIDERS"]["Fn::If"][2]["Fn::Sub"]
    for name in ("ProviderBaseUrl", "ProviderSecretName"):
        text = text.replace(f"${{{name}}}", PARAMETERS[name])
    assert ours == json.loads(text)
