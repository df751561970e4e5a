"""The shapes of the items, and the one connection of this process to DynamoDB.

Attribute names are short: DynamoDB bills them with every write, and a turn that stays below 1 KB costs half of one
that does not (docs/decisions/0006-data-model.md).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.connection import Connection
from pynamodb.connection.table import TableConnection
from pynamodb.constants import TOTAL
from pynamodb.exceptions import GetError, PynamoDBException
from pynamodb.expressions.condition import Condition

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.observability import spend
from minichat.pauses import CHANCE, jittered
from minichat.settings import Store
from minichat.storage import dynamodb
from minichat.storage.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    CallsAttribute,
    IdsAttribute,
    InstantAttribute,
    NumberAttribute,
    SignalAttribute,
    SpentAttribute,
    UnicodeAttribute,
)
from minichat.storage.indexes import ByOwner, RunningIndex, Temporary
from minichat.storage.keys import Key, Raw
from minichat.storage.models import LeanModel

S = TypeVar("S")
T = TypeVar("T")

LARGEST_PAGE = 120
"""Items of a query's page at most, unless the caller asks for more."""
READS = "reads"
"""What units of reads are spent for."""
BATCH_READ_LIMIT = 100
"""Keys of one BatchGetItem (AWS limit)."""
READ_ATTEMPTS = 2
LONGEST_PAUSE_SECONDS = 0.2


class _Connected:
    region: str | None = None
    host: str | None = None
    table_name = "not connected"
    connect_timeout_seconds: float | None = None
    read_timeout_seconds: float | None = None
    max_pool_connections: int | None = None
    # No retries by botocore: an unseen retry hides whether the write took effect before. `answered` retries reads,
    # storage.transact writes.
    max_retry_attempts: int | None = 0


class ConversationItem(LeanModel):
    """Any item of the conversation table."""

    class Meta(_Connected):
        pass

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    by_owner = ByOwner()
    running = RunningIndex()
    temporary = Temporary()


class ChatItem(ConversationItem):
    """The head of a chat. `owner` and `listed_at` are the index ByOwner; a deleted chat has neither. A temporary
    chat has `ends_at`, and is in the index Temporary by it until it is deleted.

    `documents` and `upload_bytes` count its attachments that are neither deleted nor failed.
    """

    user_id = UnicodeAttribute(attr_name="user")
    model = UnicodeAttribute()
    title = UnicodeAttribute(null=True)
    message_count = NumberAttribute(attr_name="messages")
    created_at = InstantAttribute()
    updated_at = InstantAttribute()
    latest_request_id = UnicodeAttribute(attr_name="latest", null=True)
    running_request_id = UnicodeAttribute(attr_name="running", null=True)
    last_message_at = InstantAttribute(null=True)
    summarized_up_to = UnicodeAttribute(attr_name="sum", null=True)
    deleted_at = InstantAttribute(null=True)
    owner = UnicodeAttribute(null=True)
    listed_at = UnicodeAttribute(null=True)
    temporary_shard = UnicodeAttribute(null=True)
    ends_at = InstantAttribute(null=True)
    documents = NumberAttribute(attr_name="docs", null=True)
    upload_bytes = NumberAttribute(attr_name="bytes", null=True)


class TurnItem(ConversationItem):
    """A turn. `running_shard` puts it in the index Running, by `started_at`, until it is finalized."""

    turn_id = UnicodeAttribute(attr_name="id")
    requester_type = UnicodeAttribute(attr_name="req_type")
    requester_user_id = UnicodeAttribute(attr_name="user")
    state = UnicodeAttribute()
    fingerprint = UnicodeAttribute(attr_name="print")
    user_message_id = UnicodeAttribute(attr_name="user_msg")
    assistant_message_id = UnicodeAttribute(attr_name="asst_msg")
    messages = NumberAttribute()
    prev_request_id = UnicodeAttribute(attr_name="prev", null=True)
    started_at = InstantAttribute()
    last_progress_at = InstantAttribute(attr_name="progress_at")
    web_search_enabled = BooleanAttribute(attr_name="web", null=True)
    attachment_ids = IdsAttribute(attr_name="att", null=True)
    image_ids = IdsAttribute(attr_name="img", null=True)
    summary_tokens = NumberAttribute(attr_name="sum", null=True)
    cancel_requested_at = InstantAttribute(attr_name="cancel_at", null=True)
    provider_request_started_at = InstantAttribute(attr_name="called_at", null=True)
    completed_at = InstantAttribute(attr_name="ended_at", null=True)
    error_code = UnicodeAttribute(attr_name="error", null=True)
    error_detail = UnicodeAttribute(attr_name="detail", null=True)
    cites = BooleanAttribute(null=True)
    cut = SignalAttribute(null=True)
    provider_response_id = UnicodeAttribute(attr_name="resp_id", null=True)
    committed_credits_micro = NumberAttribute(attr_name="committed", null=True)
    settlement_method = UnicodeAttribute(attr_name="settled", null=True)
    deleted_at = InstantAttribute(null=True)
    replaced_by_request_id = UnicodeAttribute(attr_name="replaced_by", null=True)
    running_shard = UnicodeAttribute(null=True)
    events_stored = NumberAttribute(attr_name="events", null=True)
    terminal_number = NumberAttribute(attr_name="terminal", null=True)
    teller = UnicodeAttribute(null=True)
    spent = SpentAttribute(null=True)

    reserve_tokens = NumberAttribute(attr_name="r_tokens")
    reserve_max_output_tokens = NumberAttribute(attr_name="r_out")
    reserve_credits_micro = NumberAttribute(attr_name="r_micro")
    reserve_policy_version = NumberAttribute(attr_name="r_policy")
    reserve_selected_model = UnicodeAttribute(attr_name="r_selected")
    reserve_effective_model = UnicodeAttribute(attr_name="r_model")
    reserve_generation_floor = NumberAttribute(attr_name="r_floor")
    reserve_input_multiplier = NumberAttribute(attr_name="r_price_in")
    reserve_output_multiplier = NumberAttribute(attr_name="r_price_out")
    reserve_daily_period = UnicodeAttribute(attr_name="r_day")
    reserve_monthly_period = UnicodeAttribute(attr_name="r_month")
    reserve_premium = BooleanAttribute(attr_name="r_premium")
    reserve_decision = UnicodeAttribute(attr_name="r_decision")
    reserve_downgrade_reason = UnicodeAttribute(attr_name="r_reason", null=True)
    reserve_web_search_calls = NumberAttribute(attr_name="r_web", null=True)
    reserve_code_interpreter_calls = NumberAttribute(attr_name="r_code", null=True)
    reserve_file_search_calls = NumberAttribute(attr_name="r_file", null=True)
    reserve_image_inputs = NumberAttribute(attr_name="r_img", null=True)
    reserve_bytes_per_token = NumberAttribute(attr_name="r_bytes", null=True)
    reserve_tenant_policy_version = NumberAttribute(attr_name="r_tenant", null=True)
    reserve_user_policy_version = NumberAttribute(attr_name="r_user", null=True)
    reserve_in_flight = NumberAttribute(attr_name="r_fly", null=True)
    reserve_tenant_in_flight = NumberAttribute(attr_name="r_tfly", null=True)
    reserve_context_tokens = NumberAttribute(attr_name="e_ctx", null=True)
    reserve_image_tokens = NumberAttribute(attr_name="e_img", null=True)
    reserve_tool_tokens = NumberAttribute(attr_name="e_tool", null=True)

    usage_input_tokens = NumberAttribute(attr_name="u_in", null=True)
    usage_output_tokens = NumberAttribute(attr_name="u_out", null=True)
    usage_cache_read_input_tokens = NumberAttribute(attr_name="u_cache_read", null=True)
    usage_cache_write_input_tokens = NumberAttribute(attr_name="u_cache_write", null=True)
    usage_reasoning_tokens = NumberAttribute(attr_name="u_reasoning", null=True)

    tool_calls_web_search = NumberAttribute(attr_name="t_web", null=True)
    tool_calls_code_interpreter = NumberAttribute(attr_name="t_code", null=True)
    tool_calls_file_search = NumberAttribute(attr_name="t_file", null=True)


class MessageItem(ConversationItem):
    """A message: its text as it is, or `packed` (zlib), or `text_bytes` of it in `parts` numbered items.

    `citations` are as storage.messages packs them. Attributes are absent for what most answers share: they are whole,
    made by the selected model, and without tools.
    """

    request_id = UnicodeAttribute(attr_name="request")
    role = UnicodeAttribute()
    content = UnicodeAttribute(attr_name="text", null=True)
    packed = BinaryAttribute(attr_name="zip", null=True, legacy_encoding=False)
    parts = NumberAttribute(null=True)
    text_bytes = NumberAttribute(attr_name="bytes", null=True)
    citations = BinaryAttribute(attr_name="cited", null=True, legacy_encoding=False)
    created_at = InstantAttribute()
    model = UnicodeAttribute(null=True)
    input_tokens = NumberAttribute(attr_name="u_in", null=True)
    output_tokens = NumberAttribute(attr_name="u_out", null=True)
    cut = SignalAttribute(null=True)
    selected_model = UnicodeAttribute(attr_name="selected", null=True)
    downgrade_reason = UnicodeAttribute(attr_name="reason", null=True)
    tool_calls = CallsAttribute(attr_name="tools", null=True)
    attachment_ids = IdsAttribute(attr_name="att", null=True)
    reaction = UnicodeAttribute(null=True)
    reacted_at = InstantAttribute(null=True)
    deleted_at = InstantAttribute(null=True)


class MessagePartItem(ConversationItem):
    """One numbered part of a long text, as UTF-8: bytes may be cut anywhere, and are smaller than escaped text."""

    content = BinaryAttribute(attr_name="text", legacy_encoding=False)


class ExpiringItem(ConversationItem):
    """The expiry of any item: seconds since 1970, after which DynamoDB may remove it."""

    expires_at = NumberAttribute(null=True)


class OutboxItem(LeanModel):
    """An event on its way out. Nothing else is in its table, so every stream record is an event."""

    class Meta(_Connected):
        pass

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    queue = UnicodeAttribute()
    event_type = UnicodeAttribute(attr_name="type")
    dedupe_key = UnicodeAttribute(attr_name="dedupe")
    payload = UnicodeAttribute()
    trace_id = UnicodeAttribute(attr_name="trace", null=True)
    delay_seconds = NumberAttribute(attr_name="delay", null=True)
    expires_at = NumberAttribute()


UNREAD_ATTEMPTS = 6
"""How often a batch that returns nothing is read, with pauses that double from 50 ms: two or three seconds."""


def connect(store: Store, *, on_loop: bool = False) -> None:
    """Points every model at the tables of `store`. Called once at a process's start; no network is used."""
    for model, name in ((ConversationItem, store.conversation_table), (OutboxItem, store.outbox_table)):
        model.Meta.table_name = name
        model.Meta.region = store.region
        model.Meta.host = store.endpoint
        model.Meta.connect_timeout_seconds = store.connect_timeout_seconds
        model.Meta.read_timeout_seconds = store.read_timeout_seconds
        model.Meta.max_pool_connections = store.max_connections
        model._connection = None  # so that a second connect() takes effect; subclasses find the base's connection
        model._get_connection()
    # One client for both tables.
    client: Any = dynamodb.Client(store)
    table().connection._client = outbox_table().connection._client = client
    if not on_loop:
        # Made now: a cold start gets more CPU than its first request.
        _ = client.blocking


def table() -> TableConnection:
    """The conversation table."""
    return ConversationItem._get_connection()


def connection() -> Connection:
    """The one client of this process, for transactions."""
    return table().connection


def outbox_table() -> TableConnection:
    """The outbox table, below the models."""
    return OutboxItem._get_connection()


def answered(read: Callable[[], T]) -> T:
    """The result of a read, which is repeated once when there is no answer.

    Raises ServiceUnavailable when the second attempt has no answer either.
    """
    for attempt in range(READ_ATTEMPTS):
        if attempt:
            greenlets.sleep(CHANCE.uniform(0, LONGEST_PAUSE_SECONDS))
        try:
            return read()
        except PynamoDBException as error:
            failure = error
    raise ServiceUnavailable from failure


def consumed(answer: Mapping[str, Any]) -> float:
    """The units that an answer says: of one table, or of each that it is about."""
    said = answer.get("ConsumedCapacity", [])
    return sum(float(table["CapacityUnits"]) for table in (said if isinstance(said, list) else [said]))


def is_there(item: LeanModel) -> bool:
    """Whether there is an item with this one's key, by a consistent read.

    Raises ServiceUnavailable when DynamoDB does not answer.
    """
    where: Any = item  # both tables have these keys
    wanted = type(item).get_operation_kwargs_from_class(where.pk, where.sk)
    try:
        answer = ask("GetItem", {**wanted, "ConsistentRead": True}, GetError)
    except GetError as error:
        raise ServiceUnavailable from error
    return bool(answer.get("Item"))


def ask(operation: str, params: dict[str, Any], failure: type[PynamoDBException]) -> dict[str, Any]:
    """The answer to an operation as DynamoDB's reference has it, with what it consumed.

    Raises `failure`, whose cause is pynamodb's form of botocore's error.
    """
    try:
        # Below `dispatch`, which asks for a random number and tells listeners that we do not have.
        answer: dict[str, Any] = connection()._make_api_call(operation, {**params, "ReturnConsumedCapacity": "TOTAL"})
    except (BotoCoreError, ClientError) as error:
        raise failure(f"{operation} failed: {error}", error) from error
    return answer


def batch_get(keys: Iterable[Key]) -> dict[Key, Raw]:
    """Those of the items that exist, read consistently, in one call per hundred keys.

    Raises ServiceUnavailable when DynamoDB does not answer.
    """
    found: dict[Key, Raw] = {}
    wanted = [{"pk": {"S": key.pk}, "sk": {"S": key.sk}} for key in dict.fromkeys(keys)]
    name = ConversationItem.Meta.table_name
    unread = 0
    while wanted:
        asked = {"RequestItems": {name: {"ConsistentRead": True, "Keys": wanted[:BATCH_READ_LIMIT]}}}
        answer = answered(partial(ask, "BatchGetItem", asked, GetError))
        spend(READS, consumed(answer))
        for item in answer["Responses"].get(name, []):
            found[Key(item["pk"]["S"], item["sk"]["S"])] = item
        # DynamoDB returns the keys that it had no capacity for.
        left = answer.get("UnprocessedKeys", {}).get(name, {}).get("Keys", [])
        unread = unread + 1 if len(left) == len(wanted[:BATCH_READ_LIMIT]) else 0
        if unread >= UNREAD_ATTEMPTS:
            raise ServiceUnavailable
        if unread:
            greenlets.sleep(jittered(0.05 * 2**unread))
        wanted = [*left, *wanted[BATCH_READ_LIMIT:]]
    return found


def query(
    pk: str, condition: Condition, *, limit: int, descending: bool = False, index: str | None = None
) -> tuple[list[Raw], bool]:
    """One page of a partition (of an index), and whether there is more. The base table is read consistently.

    Raises ServiceUnavailable when DynamoDB does not answer.
    """
    answer = answered(
        lambda: table().query(
            pk,
            range_key_condition=condition,
            index_name=index,
            limit=limit,
            scan_index_forward=not descending,
            consistent_read=index is None,
            return_consumed_capacity=TOTAL,
        )
    )
    spend(READS, consumed(answer))
    return answer["Items"], bool(answer.get("LastEvaluatedKey"))


def entries(index: str, value: str, condition: Condition, *, page: int) -> Iterator[list[Key]]:
    """The keys that an index has under a value of its hash key, in pages, from its start to its end.

    Raises ServiceUnavailable.
    """
    start = None
    while True:
        ask = partial(table().query, value, range_key_condition=condition, index_name=index, limit=page)
        answer = answered(partial(ask, exclusive_start_key=start))
        yield [Key(entry["pk"]["S"], entry["sk"]["S"]) for entry in answer["Items"]]
        start = answer.get("LastEvaluatedKey")
        if start is None:
            return


def between(pk: str, start: str, end: str, *, page: int, descending: bool = False) -> Iterator[Raw]:
    """Items of a partition with `start` <= sk < `end`, page after page as the caller iterates.

    `page` is what the caller usually needs; later pages are larger.
    Raises ServiceUnavailable.
    """
    sk = ConversationItem.sk
    more = True
    while more:
        # BETWEEN includes its bounds; `end` is a bound that no stored key equals, or a key that was read already.
        found, more = query(pk, sk.between(start, end), limit=page, descending=descending)
        yield from (item for item in found if item["sk"]["S"] != end)
        page = max(page, min(page * 2, LARGEST_PAGE))
        if more and descending:
            end = found[-1]["sk"]["S"]
        elif more:
            start = found[-1]["sk"]["S"] + "\0"
