"""What `minichat deploy check` looks at where somebody wants a domain, a web ACL, a key, or what is always ready."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from minichat.cli.deploy_plan import Plan
from minichat.cli.findings import Check, Finding, code

ALWAYS_LEFT = 100
"""Concurrent executions that cannot be provisioned (Lambda Developer Guide, "Configuring provisioned concurrency")."""
_GONE = {"ResourceNotFoundException", "NotFoundException", "WAFNonexistentItemException"}
_BODY_RULES = "AWSManagedRulesCommonRuleSet"
_BODY_SIZE = "SizeRestrictions_BODY"
_Clients = Callable[[str], Any]


def alone(plan: Plan) -> Iterator[tuple[str, Finding]]:
    """Parameters that CloudFormation would refuse because of another one, by their names."""
    said = plan.parameters
    given = {name for name in ("DomainName", "DomainCertificateArn") if said[name]}
    if len(given) == 1:
        (missing,) = {"DomainName", "DomainCertificateArn"} - given
        yield missing, Finding("failed", f"is empty, and {given.pop()} is not", "Name both, or neither.")
    if provisioned(plan) and said["Compute"] == "managed-instances":
        advice = "Say 0 for both: instances know no cold start."
        yield "StreamProvisionedConcurrency", Finding("failed", "nothing is provisioned on managed instances", advice)


def provisioned(plan: Plan) -> int:
    """How many environments shall always be ready."""
    said = [plan.parameters[f"{name}ProvisionedConcurrency"] for name in ("Api", "Stream")]
    return sum(int(one) for one in said if one.isdecimal())


def of(plan: Plan, clients: _Clients, region: str) -> dict[str, tuple[Check, str]]:
    """Checks of what is wanted, each by its name and with the permission that it needs."""
    checks: dict[str, tuple[Check, str]] = {}
    domain, certificate = _fitting(plan, "DomainName"), _fitting(plan, "DomainCertificateArn")
    if domain and certificate:
        look = partial(_certificate, clients, certificate, domain, region)
        checks["certificate of the domain"] = look, "acm:DescribeCertificate"
    if web_acl := _fitting(plan, "WebAclArn"):
        checks["web ACL"] = partial(_web_acl, clients, web_acl, region), "wafv2:GetWebACL"
    if key := _fitting(plan, "EncryptionKeyArn"):
        checks["encryption key"] = partial(_key, clients, key, region), "kms:DescribeKey and kms:GetKeyPolicy"
    return checks


def _fitting(plan: Plan, name: str) -> str:
    """A parameter's value, or nothing where it is not what the template takes, which is told without an account."""
    value = plan.parameters[name]
    return value if re.fullmatch(plan.declared[name]["AllowedPattern"], value) else ""


def _elsewhere(arn: str, region: str, what: str) -> Finding | None:
    if (where := arn.split(":")[3]) == region:
        return None
    advice = f"Make one there: API and stack take no {what} of another region."
    return Finding("failed", f"it is in {where}, and the stack in {region}", advice)


def _certificate(clients: _Clients, arn: str, domain: str, region: str) -> Finding:
    if elsewhere := _elsewhere(arn, region, "certificate"):
        return elsewhere
    try:
        found = clients("acm").describe_certificate(CertificateArn=arn)["Certificate"]
    except ClientError as error:
        if code(error) in _GONE:
            return Finding("failed", f"{arn} is not there", "Correct DomainCertificateArn.")
        raise
    if found["Status"] != "ISSUED":
        advice = "See in ACM what it waits for; a certificate is issued once its domain is validated."
        return Finding("failed", f"it is {found['Status']}", advice)
    names = found["SubjectAlternativeNames"]
    if domain not in names and f"*.{domain.partition('.')[2]}" not in names:
        advice = f"Request one for {domain}, or correct DomainName."
        return Finding("failed", f"it is for {', '.join(names)}, not for {domain}", advice)
    return Finding("ok", f"it is issued, for {', '.join(names)}")


def _web_acl(clients: _Clients, arn: str, region: str) -> Finding:
    scope, _, name, id_ = arn.split(":", 5)[5].split("/")
    if scope != "regional":
        return Finding("failed", "it is for CloudFront", "Make one of scope REGIONAL: a stage takes no other.")
    if elsewhere := _elsewhere(arn, region, "web ACL"):
        return elsewhere
    try:
        found = clients("wafv2").get_web_acl(Name=name, Id=id_, Scope="REGIONAL")["WebACL"]
    except ClientError as error:
        if code(error) in _GONE:
            return Finding("failed", "none has this name and id", "Correct WebAclArn.")
        raise
    groups = [rule.get("Statement", {}).get("ManagedRuleGroupStatement", {}) for rule in found.get("Rules", ())]
    if any(group.get("Name") == _BODY_RULES and not _lets_bodies_pass(group) for group in groups):
        told = f"{_BODY_RULES} blocks bodies above 8 KB: long messages, and files"
        return Finding("warning", told, f"Have its rule {_BODY_SIZE} count instead.")
    return Finding("ok", f"it is there, with {len(groups)} rules")


def _lets_bodies_pass(group: dict[str, Any]) -> bool:
    overridden = {one["Name"]: one.get("ActionToUse", {}) for one in group.get("RuleActionOverrides", ())}
    excluded = {one["Name"] for one in group.get("ExcludedRules", ())}
    return _BODY_SIZE in excluded or "Block" not in overridden.get(_BODY_SIZE, {"Block": {}})


def _key(clients: _Clients, arn: str, region: str) -> Finding:
    if elsewhere := _elsewhere(arn, region, "key"):
        return elsewhere
    kms = clients("kms")
    try:
        found = kms.describe_key(KeyId=arn)["KeyMetadata"]
    except ClientError as error:
        if code(error) in _GONE:
            return Finding("failed", f"{arn} is not there", "Correct EncryptionKeyArn.")
        raise
    if found["KeyState"] != "Enabled":
        return Finding("failed", f"it is {found['KeyState']}", "Enable it, or name another one.")
    if found["KeySpec"] != "SYMMETRIC_DEFAULT":
        advice = "Name a symmetric key, to encrypt and decrypt with: services take no other."
        return Finding("failed", f"it is {found['KeySpec']}, for {found['KeyUsage']}", advice)
    allowed = _services(json.loads(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"]))
    needed = {f"logs.{region}.": "CloudWatch Logs", "s3.": "S3, which writes to a queue"}
    if missing := [who for start, who in needed.items() if not any(one.startswith(start) for one in allowed)]:
        advice = "Allow them in the key's policy, as examples/key/template.yaml does."
        return Finding("failed", f"its policy does not allow {' and '.join(missing)}", advice)
    return Finding("ok", "it is enabled, and services may use it")


def _services(policy: dict[str, Any]) -> set[str]:
    """The services that a key's policy allows something."""
    named: set[str] = set()
    for statement in policy["Statement"]:
        principal = statement.get("Principal", {})
        said = principal.get("Service", ()) if isinstance(principal, dict) else ()
        named |= {said} if isinstance(said, str) else set(said)
    return named
