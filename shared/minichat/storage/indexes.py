"""The indexes of the conversation table, keys only; described for CloudFormation in infra/tables.yaml."""

from typing import Any

from pynamodb.indexes import GlobalSecondaryIndex, KeysOnlyProjection

from minichat.storage.attributes import InstantAttribute, UnicodeAttribute


class ByOwner(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # the library left one method untyped
    """Chats of a user by activity."""

    class Meta:
        index_name = "ByOwner"
        projection = KeysOnlyProjection()

    owner = UnicodeAttribute(hash_key=True)
    listed_at = UnicodeAttribute(range_key=True)


class RunningIndex(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # as above
    """Running turns by their start."""

    class Meta:
        index_name = "Running"
        projection = KeysOnlyProjection()

    running_shard = UnicodeAttribute(hash_key=True)
    started_at = InstantAttribute(range_key=True)


class Temporary(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # as above
    """Temporary chats by the time when they end if unused."""

    class Meta:
        index_name = "Temporary"
        projection = KeysOnlyProjection()

    temporary_shard = UnicodeAttribute(hash_key=True)
    ends_at = InstantAttribute(range_key=True)
