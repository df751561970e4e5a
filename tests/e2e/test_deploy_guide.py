"""docs/deploy.md, followed as it stands: its commands, in its order, up to a streamed answer and back.

AWS is a local engine with the same API, and `aws` a stand-in that knows the options that boto3's models know. What
`make deploy` would make is made here: a stack with the outputs of ours, and a server with the settings of the guide.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import boto3
import pytest

from minichat.local import deployed
from minichat.local.tables import load_template
from tests.conftest import ROOT, another_server, fresh_tables
from tests.support.aws.account import Account, serving
from tests.support.aws.emulator import SAM
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL))
BEFORE, DEPLOY, AFTER = COMMANDS.partition("make deploy ENV=dev\n")
(CONFIGURATION,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
PRELUDE = f"""set -e
cd {ROOT}
aws() {{ {sys.executable} -m tests.support.aws.aws_cli "$@"; }}
make() {{ command make --dry-run "$@" > dry-run.txt; }}
sam() {{ {SAM}/bin/sam delete --help | grep -q -- --stack-name; }}
minichat() {{ {sys.executable} -m minichat.cli.main "$@"; }}
"""


class Followed:
    """Somebody who follows the guide, in a folder of their own."""

    def __init__(self, folder: Path, engine: str, variables: dict[str, str]) -> None:
        self.folder, self.engine = folder, engine
        self._variables = (
            os.environ
            | variables
            | {
                "AWS_DEFAULT_REGION": "us-east-1",
                "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}",
                "OPENAI_API_KEY": "sk-guide",
                "PASSWORD": "Correct-horse-1",
            }
        )

    def run(self, commands: str, may_fail: str) -> str:
        """What the commands print; those that `may_fail` go on."""
        adapted = commands.replace(".venv/bin/minichat", "minichat").replace(".tools/sam/bin/sam", "sam")
        adapted = adapted.replace("deploy check", f"deploy check --json --config {self.folder}/samconfig.toml")
        adapted = re.sub(r"doctor", "doctor --json", adapted).replace("token.txt", f"{self.folder}/token.txt")
        lines = [f"{line} || true" if may_fail in line else line for line in adapted.splitlines()]
        script = PRELUDE.replace("dry-run.txt", f"{self.folder}/dry-run.txt") + "\n".join(lines)
        run = subprocess.run(
            ["bash", "-c", script],
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def client(self, service: Any) -> Any:
        return boto3.client(service, endpoint_url=self.engine, region_name="us-east-1")

    def outputs(self, stack: str) -> dict[str, str]:
        (found,) = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}

    def deploy(self, outputs: dict[str, str], parameters: dict[str, str]) -> None:
        """A stack that says what that of the guide would."""
        template = {
            "Parameters": {name: {"Type": "String"} for name in parameters},
            "Resources": {"One": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        client = self.client("cloudformation")
        given: Any = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
        client.create_stack(StackName="minichat-dev", TemplateBody=json.dumps(template), Parameters=given)
        client.get_waiter("stack_create_complete").wait(StackName="minichat-dev", WaiterConfig={"Delay": 1})


def configured(folder: Path, outputs: dict[str, str]) -> dict[str, str]:
    """Writes the configuration as the guide says; returns the parameters."""
    ours = (ROOT / "samconfig.toml").read_text(encoding="utf-8")
    begin = ours.index("parameter_overrides", ours.index("[dev.deploy.parameters]"))
    end = ours.index("]\n", begin) + 2
    told = CONFIGURATION
    for name, value in outputs.items():
        line = f"{name} = '{value}'"
        told = re.sub(rf"^{name} = .*$", line, told, flags=re.MULTILINE)
    (folder / "samconfig.toml").write_text(ours[:begin] + told + ours[end:], encoding="utf-8")
    parameters = tomllib.loads(told)["dev"]["deploy"]["parameters"]["parameter_overrides"]
    assert {name: parameters[name] for name in outputs.keys() - {"UserPoolId"}} == {
        name: value for name, value in outputs.items() if name != "UserPoolId"
    }
    declared = load_template(ROOT / "template.yaml")["Parameters"]
    return {**{name: str(one.get("Default", "")) for name, one in declared.items()}, **parameters}


@pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")
def test_the_guide_comes_to_a_streamed_answer_and_back(stack: Stack, tmp_path: Path) -> None:
    engine = str(stack.about["engine_url"])
    with serving(Account(), engine) as variables:
        somebody = Followed(tmp_path, engine, {**variables, "SIGNS_WITH": str(stack.state)})
        first, _, check = BEFORE.partition("make .venv")
        printed = somebody.run(first, may_fail="nothing")
        outputs = somebody.outputs("minichat-login")
        assert dict(line.split("\t", 1) for line in printed.splitlines()) == outputs

        parameters = configured(tmp_path, outputs)
        told = json.loads(somebody.run(f"make .venv{check}", may_fail="deploy check"))
        # All is well but for what only AWS has: the pool's own address.
        assert {one["check"] for one in told["checks"] if one["result"] != "ok"} == {"token issuer", "key set"}

        somebody.run(DEPLOY, may_fail="nothing")
        assert "sam deploy --config-env dev" in (tmp_path / "dry-run.txt").read_text(encoding="utf-8")
        store = fresh_tables(engine)
        parameters["JwtJwksUrl"] = str(stack.state / "jwks.json")
        settings = deployed.by_parameters(parameters)
        settings["MINICHAT_PROVIDERS"] = str(stack.about["environment"]["MINICHAT_PROVIDERS"])
        settings["MINICHAT_STORE__CONVERSATION_TABLE"] = store.conversation_table
        settings["MINICHAT_STORE__OUTBOX_TABLE"] = store.outbox_table
        with another_server(stack, **settings) as server:
            somebody.deploy(_outputs(stack, server.base_url, settings), parameters)
            said = somebody.run(AFTER, may_fail="minichat doctor")
    examined, end = json.JSONDecoder().raw_decode(said)
    failed = {one["check"] for one in examined["checks"] if one["result"] == "failed"}
    assert failed <= {"provider openai: reachable", "audit sink", "provider openai: secret"}
    assert "The deployment accepts this token." in said[end:]
    assert "operator" in said[end:]
    # The conversation with --timing did not end the script, so its answer streamed.
    assert "Version 1 is in force" in said[end:]
    with pytest.raises(somebody.client("secretsmanager").exceptions.InvalidRequestException):
        somebody.client("secretsmanager").get_secret_value(SecretId="minichat/openai")


def _outputs(stack: Stack, base_url: str, settings: dict[str, str]) -> dict[str, str]:
    environment = stack.about["environment"]
    return {
        "ApiUrl": base_url,
        "ConversationTableName": settings["MINICHAT_STORE__CONVERSATION_TABLE"],
        "OutboxTableName": settings["MINICHAT_STORE__OUTBOX_TABLE"],
        "QueueUrls": environment["MINICHAT_QUEUES__URLS"],
        "DeadLetterUrls": environment["MINICHAT_QUEUES__DEAD_LETTERS"],
        "UploadsBucketName": environment["MINICHAT_ATTACHMENTS__BUCKET"],
        "AuditBucketName": "audit-of-the-guide",
        "ProviderSecretsPrefix": "/mini-chat/providers/",
    }
