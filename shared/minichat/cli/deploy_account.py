"""What `minichat deploy check` looks at in an AWS account: what must be there, and what must be allowed to be made."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from minichat import settings
from minichat.cli import deploy_options
from minichat.cli.deploy_plan import Plan
from minichat.cli.findings import CONNECT_SECONDS, Check, Finding, code, unanswered
from minichat.local import deployed
from minichat.provider_entries import Secret

Clients = Callable[[str], Any]
"""Makes a client of an AWS service, by its name."""

FEW_STREAMS = 100
"""Streams at once below which a quota is worth a warning."""
TIMEOUT_QUOTA = "L-E5AE38E3"
"""API Gateway's quota of milliseconds for a buffered integration."""
CONCURRENCY_QUOTA = "L-B99A9384"
_NEEDED = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")


def of(plan: Plan, region: str | None, profile: str | None) -> Iterator[tuple[str, Check]]:
    """Every such check by its name. Without a region, or anybody signed in, only that is told."""
    try:
        session = boto3.session.Session(region_name=region or plan.region, profile_name=profile or plan.profile)
    except BotoCoreError as error:  # no such profile
        yield "credentials", partial(Finding, "failed", str(error), "Name a profile that is configured.")
        return
    if unknown := _unknown(session.region_name, session):
        yield "region", lambda: unknown
        return
    clients = partial(_client, session)
    signed_in = _signed_in(clients)
    yield "credentials", lambda: signed_in
    if signed_in.result == "failed":
        return
    looks: dict[str, tuple[Check, str]] = {
        "region": (partial(_streams, clients, session.region_name), "cloudformation:DescribeType"),
        "capabilities": (partial(_capabilities, plan), ""),
        "bucket of the build": (partial(_bucket, clients, plan), "s3:ListBucket"),
        "stack": (partial(_stack, clients, plan), "cloudformation:DescribeStacks"),
        "concurrency": (partial(_concurrency, clients, plan), "lambda:GetAccountSettings"),
        "gateway timeout": (partial(_timeout, clients, plan), "servicequotas:GetServiceQuota"),
        "gateway log role": (partial(_log_role, clients, plan), "apigateway:GET on /account"),
    }
    looks |= deploy_options.of(plan, clients, session.region_name)
    for name, secret in _secrets(plan).items():
        looks[f"{name}: secret"] = (partial(_secret, clients, plan, secret), "to read it")
    for name, (look, permission) in looks.items():
        yield name, partial(_allowed, look, permission)


def _allowed(look: Check, permission: str) -> Finding:
    """What a check finds; who deploys need not be allowed to look at everything."""
    try:
        return look()
    except ClientError as error:
        return Finding("warning", f"AWS does not tell ({code(error)})", f"Allow {permission} to look closer.")
    except BotoCoreError as error:
        return unanswered(error)


def _client(session: boto3.session.Session, service: Any) -> Any:
    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=CONNECT_SECONDS, retries={"mode": "standard", "max_attempts": 1}
    )
    return session.client(service, config=config)


def _unknown(region: str | None, session: boto3.session.Session) -> Finding | None:
    """What is wrong with a region's name, by the list of regions that comes with boto3."""
    if region is None:
        return Finding("failed", "none is named", "Name one: --region, or `region` in the configuration file.")
    having = [
        {
            one
            for partition in session.get_available_partitions()
            for one in session.get_available_regions(service, partition)
        }
        for service in ("lambda", "apigateway")
    ]
    if region in having[0] & having[1]:
        return None
    known = f"{region} is no region with Lambda and API Gateway that boto3 {boto3.__version__} knows"
    return Finding("failed", known, "Correct the region; a newer boto3 knows newer ones.")


def _streams(clients: Clients, region: str) -> Finding:
    """Whether API Gateway streams there, by the description of its methods that the region itself has."""
    found = clients("cloudformation").describe_type(Type="RESOURCE", TypeName="AWS::ApiGateway::Method")
    if "ResponseTransferMode" not in found["Schema"]:
        advice = "Choose another region: answers would come whole, and those of more than 29 s not at all."
        return Finding("failed", f"API Gateway in {region} does not stream responses, says its type registry", advice)
    return Finding("ok", f"API Gateway in {region} streams responses, says its type registry")


def _signed_in(clients: Clients) -> Finding:
    try:
        caller = clients("sts").get_caller_identity()
    except ClientError as error:
        return Finding(
            "failed", f"AWS refuses them ({code(error)}): nothing in the account was looked at", "Sign in again."
        )
    except BotoCoreError as error:
        found = unanswered(error)
        return Finding("failed", f"{found.detail}: nothing in the account was looked at", found.advice)
    return Finding("ok", f"account {caller['Account']}, as {caller['Arn']}")


def _capabilities(plan: Plan) -> Finding:
    missing = [one for one in _NEEDED if one not in plan.capabilities]
    if missing:
        advice = "Name them in `capabilities`: the stack makes roles, and nested stacks."
        return Finding("failed", f"{' and '.join(missing)} not given", advice)
    return Finding("ok", ", ".join(_NEEDED))


def _bucket(clients: Clients, plan: Plan) -> Finding:
    if plan.bucket is None and not plan.makes_bucket:
        return Finding("failed", "none is named", "Say `resolve_s3 = true`, or name one in `s3_bucket`.")
    if plan.bucket is None:
        return Finding("ok", "SAM makes one (resolve_s3)")
    try:
        clients("s3").head_bucket(Bucket=plan.bucket)
    except ClientError as error:
        if code(error) in {"404", "NoSuchBucket"}:
            advice = f"`aws s3 mb s3://{plan.bucket}`, or `resolve_s3 = true` instead."
            return Finding("failed", f"there is no bucket {plan.bucket}", advice)
        advice = "Name a bucket of your own, in the stack's region."
        return Finding("failed", f"bucket {plan.bucket} refuses: {code(error)}", advice)
    return Finding("ok", f"bucket {plan.bucket} is there")


def _stack(clients: Clients, plan: Plan) -> Finding:
    if not plan.stack:
        return Finding("failed", "has no name", "Name it in `stack_name`.")
    try:
        (found,) = clients("cloudformation").describe_stacks(StackName=plan.stack)["Stacks"]
    except ClientError as error:
        if "does not exist" in error.response["Error"].get("Message", ""):
            return Finding("ok", f"{plan.stack} is new")
        raise
    advice = _before(found["StackStatus"], plan.stack)
    return Finding("failed" if advice else "ok", f"{plan.stack} is {found['StackStatus']}", advice)


def _before(status: str, name: str) -> str:
    """What comes before a stack in this state can be deployed; nothing when it can."""
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        return f"Wait until that ends: `aws cloudformation describe-stack-events --stack-name {name}` tells of it."
    if status == "UPDATE_ROLLBACK_FAILED":
        return f"`aws cloudformation continue-update-rollback --stack-name {name}`: its events say what failed."
    if status in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}:
        return f"It never was whole: `aws cloudformation delete-stack --stack-name {name}`, then deploy."
    return ""


def _concurrency(clients: Clients, plan: Plan) -> Finding:
    """Every open stream takes one of the account's concurrent executions, and so does a consumer at work."""
    free = int(clients("lambda").get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"])
    consumers, ready = _consumers(plan), deploy_options.provisioned(plan)
    if ready and ready > free - deploy_options.ALWAYS_LEFT:
        most = max(free - deploy_options.ALWAYS_LEFT, 0)
        told = f"{ready} environments shall be provisioned, and {most} can be"
        return Finding("failed", told, _more("lambda", CONCURRENCY_QUOTA))
    told = f"{free} functions may run at once; consumers take up to {consumers}, each stream and each request one"
    if free >= consumers + FEW_STREAMS:
        return Finding("ok", told)
    return Finding("failed" if free <= consumers else "warning", told, _more("lambda", CONCURRENCY_QUOTA))


def _consumers(plan: Plan) -> int:
    """How many consumers the template lets work at once."""
    events = [
        event["Properties"]
        for resource in plan.template["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
    ]
    return sum(int(one.get("ScalingConfig", {}).get("MaximumConcurrency", 0)) for one in events)


def _timeout(clients: Clients, plan: Plan) -> Finding:
    """Streams may take longer than this quota; buffered operations may not."""
    seconds = int(plan.template["Resources"]["ApiFunction"]["Properties"]["Timeout"])
    quota = clients("service-quotas").get_service_quota(ServiceCode="apigateway", QuotaCode=TIMEOUT_QUOTA)["Quota"]
    told = f"API Gateway waits {quota['Value']:.0f} ms, and ApiFunction may take {seconds} s"
    if quota["Value"] > seconds * 1000:
        return Finding("ok", told)
    return Finding("failed", told, _more("apigateway", TIMEOUT_QUOTA))


def _more(service: str, quota: str) -> str:
    request = f"request-service-quota-increase --service-code {service} --quota-code {quota} --desired-value …"
    return f"`aws service-quotas {request}`."


def _log_role(clients: Clients, plan: Plan) -> Finding:
    """API Gateway logs with one role per account and region, which may be somebody else's."""
    owns = plan.parameters["OwnsGatewayAccount"] == "true"
    role = clients("apigateway").get_account().get("cloudwatchRoleArn")
    if not owns and not role:
        advice = "Say OwnsGatewayAccount=true, once per account and region."
        return Finding("failed", "the account has none, so the stage cannot log", advice)
    if owns and role and "GatewayLogRole" not in role:
        return Finding("warning", f"{role} would be replaced", "Say OwnsGatewayAccount=false: it will do.")
    return Finding("ok", f"{role} is there" if role else "the stack makes one")


def _secrets(plan: Plan) -> dict[str, Secret]:
    """The secrets that the parameters name, by whose they are."""
    configured, _ = settings.examine(deployed.by_parameters(plan.parameters))
    named = {f"provider {name}": one.auth.secret for name, one in configured.providers.items() if one.auth is not None}
    return named | {f"webhook {one.name}": one.secret for one in configured.export.webhooks}


def _secret(clients: Clients, plan: Plan, secret: Secret) -> Finding:
    if not _may_be_read(plan.parameters, secret):
        advice = (
            "See ProviderSecretName, ProviderSecretsPath, ProviderParameterName, WebhookSecretPrefix: they allow it."
        )
        return Finding("failed", f"no function may read {secret.source} {secret.name}", advice)
    try:
        value = _value(clients, secret)
    except ClientError as error:
        if code(error) in {"ResourceNotFoundException", "ParameterNotFound"}:
            return Finding("failed", f"{secret.name} is not there", f"Make it: `{_making(secret)}`.")
        raise
    if not value.strip():
        return Finding("failed", f"{secret.name} is empty", "Store the key there, as it is: no JSON around it.")
    return Finding("ok", f"{secret.name} is there")


def _value(clients: Clients, secret: Secret) -> str:
    if secret.source == "ssm":
        found = clients("ssm").get_parameter(Name=secret.name, WithDecryption=True)["Parameter"]
        return str(found.get("Value", ""))
    return str(clients("secretsmanager").get_secret_value(SecretId=secret.name).get("SecretString", ""))


def _making(secret: Secret) -> str:
    if secret.source == "ssm":
        return f"aws ssm put-parameter --type SecureString --name {secret.name} --value …"
    return f"aws secretsmanager create-secret --name {secret.name} --secret-string …"


def _may_be_read(parameters: Mapping[str, str], secret: Secret) -> bool:
    """Whether infra/identity.yaml lets the functions read it."""
    name = secret.name
    if name.startswith(f"/{parameters['ProviderSecretsPath']}/") and secret.source != "env":
        return True
    if secret.source == "ssm":
        own = parameters["ProviderParameterName"]
        return bool(own) and (name.lstrip("/") + "/").startswith(f"{own}/")
    named = name == parameters["ProviderSecretName"] or name.startswith(parameters["WebhookSecretPrefix"])
    return named and secret.source == "secretsmanager"
