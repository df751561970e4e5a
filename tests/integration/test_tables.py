"""The local tables are those of the template, and the models agree with both."""

import boto3

from minichat.local import tables
from minichat.settings import Store
from minichat.storage.indexes import ByOwner
from minichat.storage.items import ConversationItem
from tests.conftest import ROOT


def test_local_tables_are_the_templates(store: Store) -> None:
    client = boto3.client("dynamodb", endpoint_url=store.endpoint, region_name=store.region)
    described = tables.described(ROOT)
    names = {"ConversationTable": store.conversation_table, "OutboxTable": store.outbox_table}
    assert set(described) == set(names)
    for logical_id, name in names.items():
        made = client.describe_table(TableName=name)["Table"]
        wanted = described[logical_id]
        assert made["KeySchema"] == wanted["KeySchema"]
        indexes = {index["IndexName"]: index for index in made.get("GlobalSecondaryIndexes", [])}
        assert set(indexes) == {index["IndexName"] for index in wanted.get("GlobalSecondaryIndexes", [])}
        for index in wanted.get("GlobalSecondaryIndexes", []):
            assert indexes[index["IndexName"]]["KeySchema"] == index["KeySchema"]
            assert indexes[index["IndexName"]]["Projection"] == index["Projection"]
        ttl = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires_at")
        assert ("LatestStreamArn" in made) == ("StreamSpecification" in wanted)


def test_creating_them_again_changes_nothing(store: Store) -> None:
    tables.create(ROOT, store)


def test_the_models_know_the_templates_keys_and_index() -> None:
    wanted = tables.described(ROOT)["ConversationTable"]
    assert [key["AttributeName"] for key in wanted["KeySchema"]] == ["pk", "sk"]
    assert ConversationItem._hash_keyname == "pk"
    index = next(i for i in wanted["GlobalSecondaryIndexes"] if i["IndexName"] == ByOwner.Meta.index_name)
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["owner", "listed_at"]
