"""The local stack's tables, created from `infra/tables.yaml` itself."""

from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import ClientError

from minichat.local.process import CannotStart
from minichat.settings import Store

TEMPLATE = Path("infra") / "tables.yaml"

_CREATED_WITH = (
    "AttributeDefinitions",
    "KeySchema",
    "GlobalSecondaryIndexes",
    "BillingMode",
    "StreamSpecification",
)


class _Loader(yaml.SafeLoader):
    """YAML that keeps CloudFormation's short tags as plain values."""


def _tagged(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _tagged)


class NotACheckout(CannotStart):
    """The local stack is started outside a checkout of the repository."""


def project_root() -> Path:
    """The checkout that contains this package or the current directory.

    Raises NotACheckout when neither is.
    """
    for start in (Path(__file__).resolve(), Path.cwd() / "here"):
        for folder in start.parents:
            if (folder / TEMPLATE).is_file() and (folder / "template.yaml").is_file():
                return folder
    raise NotACheckout("The local stack is built from template.yaml and infra/: run it inside the repository.")


def load_template(path: Path) -> dict[str, Any]:
    """A CloudFormation template, with its short tags kept as plain values."""
    template: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a SafeLoader
    return template


def described(root: Path) -> dict[str, dict[str, Any]]:
    """Properties of each table of the template, by logical id."""
    template = load_template(root / TEMPLATE)
    return {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::DynamoDB::Table"
    }


def create(root: Path, store: Store) -> None:
    """Creates both tables at the store's endpoint, under the store's names, unless they exist."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  engines of this machine ask for any
    )
    names = {"ConversationTable": store.conversation_table, "OutboxTable": store.outbox_table}
    for logical_id, properties in described(root).items():
        definition = {key: properties[key] for key in _CREATED_WITH if key in properties}
        if "StreamSpecification" in definition:
            # CloudFormation infers a member that the API requires.
            definition["StreamSpecification"] = {"StreamEnabled": True, **definition["StreamSpecification"]}
        try:
            client.create_table(TableName=names[logical_id], **definition)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUseException":
                raise
            continue
        client.get_waiter("table_exists").wait(TableName=names[logical_id], WaiterConfig={"Delay": 1})
        client.update_time_to_live(
            TableName=names[logical_id], TimeToLiveSpecification=properties["TimeToLiveSpecification"]
        )
