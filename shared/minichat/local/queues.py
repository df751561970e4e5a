"""The local stack's queues, created from `infra/queues.yaml` itself."""

import json
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from minichat.local.tables import load_template

TEMPLATE = Path("infra") / "queues.yaml"

_CREATED_WITH = (
    "FifoQueue",
    "DeduplicationScope",
    "FifoThroughputLimit",
    "VisibilityTimeout",
    "MessageRetentionPeriod",
    "MaximumMessageSize",
)


def create(root: Path, endpoint: str, region: str, prefix: str = "minichat") -> dict[str, str]:
    """Creates every queue of the template unless it exists, and returns the URLs by logical id."""
    client = _client(endpoint, region)
    queues = {
        name: resource["Properties"]
        for name, resource in load_template(root / TEMPLATE)["Resources"].items()
        if resource["Type"] == "AWS::SQS::Queue"
    }
    urls: dict[str, str] = {}
    # Dead-letter queues first: the others name them.
    for logical_id in sorted(queues, key=lambda name: "RedrivePolicy" in queues[name]):
        properties = queues[logical_id]
        attributes = {name: _text(properties[name]) for name in _CREATED_WITH if name in properties}
        if redrive := properties.get("RedrivePolicy"):
            dead_letters = urls[redrive["deadLetterTargetArn"].partition(".")[0]]
            target = client.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])
            attributes["RedrivePolicy"] = json.dumps(
                redrive | {"deadLetterTargetArn": target["Attributes"]["QueueArn"]}
            )
        name = f"{prefix}-{logical_id}{'.fifo' if properties.get('FifoQueue') else ''}"
        try:
            urls[logical_id] = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        except ClientError as error:
            if "Exist" not in error.response["Error"]["Code"]:
                raise
            # An earlier version of the template made it: like a deployment, update what can be changed.
            urls[logical_id] = client.get_queue_url(QueueName=name)["QueueUrl"]
            attributes.pop("FifoQueue", None)
            client.set_queue_attributes(QueueUrl=urls[logical_id], Attributes=attributes)
    return urls


def variables(root: Path, endpoint: str, urls: dict[str, str]) -> dict[str, str]:
    """The settings that name these queues, as in the template's outputs."""
    outputs = load_template(root / TEMPLATE)["Outputs"]
    return {
        "MINICHAT_QUEUES__ENDPOINT": endpoint,
        "MINICHAT_QUEUES__URLS": _substituted(outputs["Urls"]["Value"], urls),
        "MINICHAT_QUEUES__DEAD_LETTERS": _substituted(outputs["DeadLetterUrls"]["Value"], urls),
    }


def _substituted(text: str, urls: dict[str, str]) -> str:
    for logical_id, url in urls.items():
        text = text.replace(f"${{{logical_id}}}", url)
    return text


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _client(endpoint: str, region: str) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  engines of this machine ask for any
    )
