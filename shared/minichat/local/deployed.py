"""A deployment on AWS: what its stack says of itself, as the settings that operators' commands need."""

import json
import os
from collections.abc import Mapping

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from minichat.settings import PREFIX, SettingsError

OUTPUTS = {
    "STORE__CONVERSATION_TABLE": "ConversationTableName",
    "STORE__OUTBOX_TABLE": "OutboxTableName",
    "QUEUES__URLS": "QueueUrls",
    "QUEUES__DEAD_LETTERS": "DeadLetterUrls",
    "ATTACHMENTS__BUCKET": "UploadsBucketName",
    "PROVIDER_SECRETS_PREFIX": "ProviderSecretsPrefix",
}
"""Settings, and the outputs of the stack that say them."""
PARAMETERS = {
    "AUTH": "JwtSettings",
    "AUTH__ISSUER": "JwtIssuer",
    "AUTH__AUDIENCE": "JwtAudience",
    "AUTH__JWKS": "JwtJwksUrl",
    "AUTH__TENANT_CLAIM": "JwtTenantClaim",
    "AUTH__FEATURES_CLAIM": "JwtFeaturesClaim",
    "AUDIT__CONTENT": "AuditContent",
    "EXPORT__WEBHOOKS": "Webhooks",
    "PROVIDERS": "Providers",
}
"""Settings, and the parameters of the stack that say them."""
AUDIT_BUCKET = "AuditBucketName"
API_URL = "ApiUrl"


def attach(stack: str, region: str | None, profile: str | None) -> dict[str, str]:
    """Points this process to the deployment of a stack, and returns the stack's outputs.

    Its settings are then those of the stack alone: variables of others are forgotten, AWS's own stay.
    Raises SettingsError when AWS does not tell, or the stack is none of this product.
    """
    try:
        session = boto3.session.Session(region_name=region, profile_name=profile)
        config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "max_attempts": 2})
        client = session.client("cloudformation", config=config)
        (found,) = client.describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise SettingsError(f"--stack: {_why(error, stack, region)}") from None
    outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())}
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", ())}
    if missing := sorted({*OUTPUTS.values(), AUDIT_BUCKET, API_URL} - outputs.keys()):
        raise SettingsError(
            f"--stack: {stack} ({found['StackStatus']}) has no output {', '.join(missing)}: it is another product's "
            "stack, was never deployed whole, or was deployed by an older version."
        )
    said = {PREFIX + name: outputs[output] for name, output in OUTPUTS.items()}
    said |= by_parameters(parameters)
    said |= {
        f"{PREFIX}AUDIT__SINK": f"s3://{outputs[AUDIT_BUCKET]}",
        f"{PREFIX}STORE__REGION": session.region_name or "",
        "AWS_DEFAULT_REGION": session.region_name or "",
    }
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(said if profile is None else {**said, "AWS_PROFILE": profile})
    return outputs


def by_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """The variables that the functions get from these parameters of the template."""
    said = {PREFIX + name: value for name, one in PARAMETERS.items() if (value := parameters.get(one))}
    if not parameters.get("Providers"):
        secret = {"source": "secretsmanager", "name": parameters.get("ProviderSecretName", "")}
        entry = {"base_url": parameters.get("ProviderBaseUrl", ""), "auth": {"secret": secret}}
        said[f"{PREFIX}PROVIDERS"] = json.dumps({"openai": entry})
    return said


def _why(error: BotoCoreError | ClientError, stack: str, region: str | None) -> str:
    if not isinstance(error, ClientError):
        return f"AWS does not tell: {error}"  # names a profile or a region, never a secret
    said = error.response["Error"]
    if "does not exist" in said.get("Message", ""):
        return f"there is no stack {stack!r}{f' in {region}' if region else ''}: --region and --profile say where."
    return f"AWS does not tell ({said.get('Code')}): cloudformation:DescribeStacks is needed."
