"""The local stack's bucket of uploads, with the event notifications that `template.yaml` describes."""

from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from minichat.local.tables import load_template

UPLOADS = "UploadsBucket"
NAME = "minichat-uploads"


def create(root: Path, endpoint: str, region: str, queue_urls: dict[str, str], name: str = NAME) -> dict[str, str]:
    """Creates the bucket unless it exists, and returns the settings that name it.

    `queue_urls` are those of the queues at the same endpoint, by their logical ids.
    """
    template = load_template(root / "template.yaml")
    properties = template["Resources"][UPLOADS]["Properties"]
    options: dict[str, Any] = {
        "endpoint_url": endpoint,
        "region_name": region,
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",  # local engines accept any
    }
    client = boto3.client("s3", **options)
    try:
        client.create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise
    origins = template["Parameters"]["UploadOrigins"]["Default"].split(",")
    (rule,) = properties["CorsConfiguration"]["CorsRules"]
    client.put_bucket_cors(
        Bucket=name,
        CORSConfiguration={
            "CORSRules": [
                {
                    "AllowedMethods": rule["AllowedMethods"],
                    "AllowedOrigins": origins,
                    "AllowedHeaders": rule["AllowedHeaders"],
                    "MaxAgeSeconds": rule["MaxAge"],
                }
            ]
        },
    )
    queues = boto3.client("sqs", **options)
    (told,) = properties["NotificationConfiguration"]["QueueConfigurations"]
    url = queue_urls[told["Queue"].removeprefix("Queues.Outputs.").removesuffix("Arn")]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": [told["Event"]]}]},
    )
    return {"MINICHAT_ATTACHMENTS__BUCKET": name, "MINICHAT_ATTACHMENTS__ENDPOINT": endpoint}
