"""The built template, deployed to the engine of this machine, whose CloudFormation makes what it can of it.

The engine has no Python runtime of AWS for a function that streams, nor layers for one with a runtime of its own. So
each function is a custom runtime there, whose `bootstrap` starts the built artifacts as Lambda would: through AWS's own
runtime client or the streaming one. All else is the template's.
"""

import io
import json
import shlex
import subprocess
import time
import zipfile
from dataclasses import dataclass, field
from typing import Any

import boto3
from cfnlint.decode import cfn_yaml

from tests.conftest import ROOT
from tests.support.aws.emulator import SAM, Built
from tests.support.patience import PATIENCE

BUCKET = "artifacts"


@dataclass
class Deployment:
    """A stack of the engine, for the time of a `with`."""

    artifacts: Built
    endpoint: str
    variables: dict[str, str]
    """Of every function, beside those of the template."""
    parameters: dict[str, str]
    name: str = "minichat"
    wanted: set[str] = field(default_factory=set)
    """Logical ids of what the templates always have."""
    left_out: list[str] = field(default_factory=list)
    """Logical ids of what the engine cannot make."""

    def client(self, service: str) -> Any:
        """A client of a service of the engine."""
        return boto3.client(service, endpoint_url=self.endpoint, region_name="us-east-1")  # type: ignore[call-overload]

    def create(self) -> dict[str, str]:
        """Uploads and creates everything; returns the stack's outputs."""
        self.client("s3").create_bucket(Bucket=BUCKET)
        root = self._translated()
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=self.name,
            TemplateURL=self._uploaded("root.json", json.dumps(root).encode()),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()],
        )
        deadline = time.monotonic() + PATIENCE
        while (stack := self.stack())["StackStatus"] == "CREATE_IN_PROGRESS":
            assert time.monotonic() < deadline, "the stack is not there in time"
            time.sleep(0.1)
        assert stack["StackStatus"] == "CREATE_COMPLETE", "\n".join(self.failures())
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def stack(self) -> dict[str, Any]:
        """What CloudFormation says of the stack."""
        (stack,) = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return dict(stack)

    def failures(self) -> list[str]:
        """Each event of a failure, in any stack, in a line."""
        client = self.client("cloudformation")
        return [
            f"{event['LogicalResourceId']} {event['ResourceType']}: {event['ResourceStatusReason']}"
            for stack in client.describe_stacks()["Stacks"]
            for event in client.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
            if "FAILED" in event["ResourceStatus"]
        ]

    def resources(self) -> list[tuple[str, str, str]]:
        """Logical id, type and physical id of everything that was made, nested stacks included."""
        client = self.client("cloudformation")
        return [
            (one["LogicalResourceId"], one["ResourceType"], one["PhysicalResourceId"])
            for stack in client.describe_stacks()["Stacks"]
            for one in client.describe_stack_resources(StackName=stack["StackId"])["StackResources"]
        ]

    def _translated(self) -> dict[str, Any]:
        script = ROOT / "tests" / "support" / "aws" / "translate.py"
        command = [str(SAM / "bin" / "python"), str(script), str(self.artifacts.folder / "template.yaml")]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        root: dict[str, Any] = json.loads(run.stdout)
        for name, resource in root["Resources"].items():
            properties = resource.get("Properties", {})
            match resource["Type"]:
                case "AWS::Lambda::Function":
                    self._runs_here(name, properties)
                case "AWS::ApiGateway::RestApi":
                    properties["Body"] = _as_the_gateway_knows_it(properties["Body"])
                case "AWS::Lambda::LayerVersion":
                    properties["Content"] = {"S3Bucket": BUCKET, "S3Key": self._zip("layer.zip", {"empty": ""})}
                case "AWS::CloudFormation::Stack":
                    properties["TemplateURL"] = self._nested(name)
        self._want(root)
        return root

    def _want(self, template: dict[str, Any]) -> None:
        self.wanted |= {name for name, resource in template["Resources"].items() if "Condition" not in resource}

    def _runs_here(self, name: str, properties: dict[str, Any]) -> None:
        """Makes a function one that the engine can run."""
        environment = self.artifacts.environment(name, {})
        said = {key: environment[key] for key in ("PATH", "PYTHONPATH", "LAMBDA_TASK_ROOT", "AWS_EXECUTION_ENV")}
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in said.items())
        command = shlex.join(self.artifacts.command(name))
        script = f'#!/bin/sh\n{exports}cd "$LAMBDA_TASK_ROOT"\nexec {command}\n'
        properties["Code"] = {"S3Bucket": BUCKET, "S3Key": self._zip(f"{name}.zip", {"bootstrap": script})}
        properties["Runtime"] = "provided.al2023"
        # As under `sam local`, whose gateway streams nothing either.
        properties["Environment"]["Variables"].update(self.variables | {"AWS_SAM_LOCAL": "true"})

    def _nested(self, name: str) -> str:
        location = self.artifacts.template["Resources"][name]["Properties"]["Location"]
        template = cfn_yaml.load(str((self.artifacts.folder / location).resolve()))
        for logical_id, resource in list(template["Resources"].items()):
            # The engine evaluates no metric math.
            if resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in resource["Properties"]:
                self.left_out.append(logical_id)
                del template["Resources"][logical_id]
        if "Condition" not in self.artifacts.template["Resources"][name]:
            self._want(template)
        return self._uploaded(f"{name}.json", json.dumps(template).encode())

    def _zip(self, key: str, files: dict[str, str]) -> str:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name, text in files.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o755 << 16
                archive.writestr(info, text)
        self._uploaded(key, data.getvalue())
        return key

    def _uploaded(self, key: str, data: bytes) -> str:
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"{self.endpoint}/{BUCKET}/{key}"


def _as_the_gateway_knows_it(body: dict[str, Any]) -> dict[str, Any]:
    """Names the methods that a path has when it has any, and streams nothing: the engine's gateway knows neither."""
    for operations in body["paths"].values():
        if any_method := operations.pop("x-amazon-apigateway-any-method", None):
            for method in ("delete", "get", "head", "options", "patch", "post", "put"):
                operations.setdefault(method, any_method)
    text = json.dumps(body).replace("/2021-11-15/functions/", "/2015-03-31/functions/")
    known: dict[str, Any] = json.loads(text.replace("/response-streaming-invocations", "/invocations"))
    return known
