"""What the template can have besides: a domain, a web ACL, a key, provisioned concurrency; each off unless wanted."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from tests.conftest import ROOT
from tests.support.aws.emulator import SAM
from tests.support.aws.resolved import resolved, rules_broken

TEMPLATE = cfn_yaml.load(str(ROOT / "template.yaml"))
NESTED = {name: cfn_yaml.load(str(ROOT / "infra" / f"{name}.yaml")) for name in ("tables", "queues", "identity")}
KEY = "arn:aws:kms:us-east-1:111122223333:key/k1"
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/c1"
DOMAIN = {"DomainName": "chat.acme.org", "DomainCertificateArn": CERTIFICATE}
WEB_ACL = "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/guard/w1"


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """What SAM makes of the template, after one of the scripts that `make` runs on it, if any."""
    if not SAM.is_dir():
        pytest.skip("the SAM CLI is not installed (`make tools`)")

    def translate(*script: str) -> dict[str, Any]:
        path = tmp_path_factory.mktemp("built") / "template.yaml"
        shutil.copy(ROOT / "template.yaml", path)
        if script:
            _output(ROOT / "infra" / script[0], path, *script[1:])
        made: dict[str, Any] = json.loads(_output(ROOT / "tests" / "support" / "aws" / "translate.py", path))
        return made

    return translate


@pytest.fixture(scope="module")
def plain(translated: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The template as SAM translates it."""
    return translated()


def _output(*arguments: str | Path) -> str:
    command = [str(SAM / "bin" / "python"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=ROOT).stdout


def test_by_default_nothing_of_it_is_there(plain: dict[str, Any]) -> None:
    there = resolved(plain)
    assert not {"Domain", "DomainMapping", "WebAclAssociation"} & there.keys()
    for name in ("ApiFunction", "StreamFunction"):
        assert there[name]["Properties"]["SnapStart"] == {"ApplyOn": "PublishedVersions"}
        assert "ProvisionedConcurrencyConfig" not in there[f"{name}Aliaslive"]["Properties"]
    kept = [there, *(resolved(template) for template in NESTED.values())]
    assert not [part for parts in kept for part in parts.values() if "Kms" in json.dumps(part)]
    for bucket in ("AuditBucket", "UploadsBucket"):
        assert there[bucket]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"] == [
            {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        ]
    assert "chat.acme.org" not in json.dumps(there["Outputs.ApiUrl"])
    assert not rules_broken(plain)


def test_a_domain_leads_to_the_stage_and_is_what_clients_are_told(plain: dict[str, Any]) -> None:
    there = resolved(plain, **DOMAIN)
    assert there["Domain"]["Properties"] == {
        "DomainName": "chat.acme.org",
        "RegionalCertificateArn": CERTIFICATE,
        "EndpointConfiguration": {"Types": ["REGIONAL"]},
        "SecurityPolicy": "TLS_1_2",
    }
    assert there["DomainMapping"]["Properties"] == {
        "DomainName": {"Ref": "Domain"},
        "RestApiId": {"Ref": "Api"},
        "Stage": {"Ref": "ApiStage"},
    }
    assert there["Outputs.ApiUrl"]["Value"] == "https://chat.acme.org/mini-chat/v1"
    assert there["Outputs.AdminApiUrl"]["Value"] == "https://chat.acme.org/mini-chat/admin/v1"
    assert there["Outputs.DomainTarget"]["Value"] == {"Fn::GetAtt": ["Domain", "RegionalDomainName"]}
    assert there["Outputs.DomainTargetZone"]["Value"] == {"Fn::GetAtt": ["Domain", "RegionalHostedZoneId"]}


@pytest.mark.parametrize("name", DOMAIN)
def test_a_domain_and_its_certificate_go_together(plain: dict[str, Any], name: str) -> None:
    together = ["DomainName and DomainCertificateArn go together"]
    assert rules_broken(plain, **{name: DOMAIN[name]}) == together
    assert not rules_broken(plain, **DOMAIN)


def test_a_web_acl_stands_before_the_stage_and_its_refusals_are_problem_documents(plain: dict[str, Any]) -> None:
    there = resolved(plain, WebAclArn=WEB_ACL)
    acl = there["WebAclAssociation"]["Properties"]
    assert acl["WebACLArn"] == WEB_ACL
    assert acl["ResourceArn"] == {"Fn::Sub": "arn:aws:apigateway:us-east-1::/restapis/${Api}/stages/${ApiStage}"}
    said = there["Api"]["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"]["WAF_FILTERED"]
    assert (said["statusCode"], json.loads(said["responseTemplates"]["application/json"])["code"]) == (
        "403",
        "forbidden",
    )


def test_a_key_encrypts_everything_that_is_kept(plain: dict[str, Any]) -> None:
    there = resolved(plain, EncryptionKeyArn=KEY)
    for name in ("Tables", "Queues", "Identity"):
        assert there[name]["Properties"]["Parameters"]["EncryptionKeyArn"] == KEY
    kept = there | resolved(NESTED["tables"], EncryptionKeyArn=KEY) | resolved(NESTED["queues"], EncryptionKeyArn=KEY)
    encrypted = {name: _key_of(part) for name, part in kept.items() if part.get("Type") in KEPT}
    assert len(encrypted) == 2 + 17 + 2 + 16 + 2
    assert set(encrypted.values()) == {KEY}


KEPT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "AWS::DynamoDB::Table": lambda said: (
        said["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY} and KEY
    ),
    "AWS::SQS::Queue": lambda said: said["SqsManagedSseEnabled"] is False and said["KmsMasterKeyId"],
    "AWS::S3::Bucket": lambda said: (
        said["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        == [
            {
                "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY},
                "BucketKeyEnabled": True,
            }
        ]
        and KEY
    ),
    "AWS::Logs::LogGroup": lambda said: said["KmsKeyId"],
    "AWS::SecretsManager::Secret": lambda said: said["KmsKeyId"],
}
"""Everything with data at rest, and where it says its key."""


def _key_of(part: dict[str, Any]) -> Any:
    return KEPT[part["Type"]](part["Properties"])


def test_a_role_may_use_the_key_for_what_it_reads_and_writes_and_for_nothing_else() -> None:
    """From what each role may do follows what services do with the key in its name."""
    there = resolved(NESTED["identity"], EncryptionKeyArn=KEY)
    needed = {
        (name, asked, action.partition(":")[0])
        for name, part in there.items()
        for policy in part.get("Properties", {}).get("Policies", ())
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _several(statement["Action"])
        for asked in _asked(action)
    }
    granted = {
        (role["Ref"], action, statement["Condition"]["StringLike"]["kms:ViaService"].removesuffix(".us-east-1.*"))
        for part in there.values()
        if part.get("Type") == "AWS::IAM::Policy"
        for statement in part["Properties"]["PolicyDocument"]["Statement"]
        if statement["Resource"] == KEY
        for action in _several(statement["Action"])
        for role in part["Properties"]["Roles"]
    }
    assert granted == needed
    assert len(granted) > 30


def _asked(action: str) -> set[str]:
    """What a service asks of a key for an action (DynamoDB, SQS and S3 Developer Guides, on encryption at rest)."""
    if action.startswith("dynamodb:"):
        return {"kms:Decrypt"}
    return {
        "sqs:ReceiveMessage": {"kms:Decrypt"},
        "sqs:SendMessage": {"kms:Decrypt", "kms:GenerateDataKey"},
        "s3:GetObject": {"kms:Decrypt"},
        "s3:PutObject": {"kms:GenerateDataKey"},
    }.get(action, set())


def _several(said: str | list[str]) -> list[str]:
    return [said] if isinstance(said, str) else said


@pytest.mark.parametrize(("function", "parameter"), [("ApiFunction", "Api"), ("StreamFunction", "Stream")])
def test_what_is_always_ready_has_no_snapshots(plain: dict[str, Any], function: str, parameter: str) -> None:
    there = resolved(plain, **{f"{parameter}ProvisionedConcurrency": "5"})
    assert there[f"{function}Aliaslive"]["Properties"]["ProvisionedConcurrencyConfig"] == {
        "ProvisionedConcurrentExecutions": "5"
    }
    # Lambda takes no provisioned concurrency for a version with a snapshot.
    assert "SnapStart" not in there[function]["Properties"]
    assert sum("SnapStart" in part.get("Properties", {}) for part in there.values()) == 1


def test_on_instances_nothing_is_provisioned(translated: Callable[..., dict[str, Any]], plain: dict[str, Any]) -> None:
    on_instances = translated("on_instances.py")
    assert "ProvisionedConcurrency" in json.dumps(plain["Resources"])
    assert "ProvisionedConcurrencyConfig" not in json.dumps(on_instances["Resources"])
    there = {
        "Compute": "managed-instances",
        "InstanceSubnets": "subnet-0a",
        "InstanceSecurityGroups": "sg-0a",
    }
    assert not rules_broken(on_instances, **there)
    assert rules_broken(on_instances, **there, StreamProvisionedConcurrency="1") == [
        "Managed instances take no provisioned concurrency"
    ]


def test_every_log_is_kept_as_long_as_wanted(plain: dict[str, Any]) -> None:
    logs = [
        part for part in resolved(plain, LogRetentionDays="3653").values() if part.get("Type") == "AWS::Logs::LogGroup"
    ]
    assert [log["Properties"]["RetentionInDays"] for log in logs] == ["3653"] * 16


def test_other_parameters_reach_callers_as_another_version(
    translated: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Callers reach versions, and SAM publishes one only where the text of a function's properties has changed."""

    def versions(**given: str) -> set[str]:
        said = "".join(f'{name} = "{value}"\n' for name, value in given.items())
        config = f"version = 0.1\n[mine.deploy.parameters.parameter_overrides]\n{said}"
        (tmp_path / "samconfig.toml").write_text(config, encoding="utf-8")
        made = translated("new_versions.py", str(tmp_path), "mine")["Resources"]
        return {name for name, part in made.items() if part["Type"] == "AWS::Lambda::Version"}

    first = versions(LogLevel="INFO", JwtIssuer="https://login.acme.org")
    assert len(first) == 2
    assert first.isdisjoint(versions(LogLevel="DEBUG", JwtIssuer="https://login.acme.org"))
