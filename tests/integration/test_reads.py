"""Reads that are answered as AWS may answer them, and no engine does: in pieces, in any order, late, or not at all."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.errors import ChatNotFound, ServiceUnavailable
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.stream import Told
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import UsageEvent
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.services import attachments as files
from minichat.services import chats, orphans, reconcile_quota
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import (
    attachments,
    indexes,
    items,
    keys,
    messages,
    parts,
    purge,
    scan,
    starting_point,
    transact,
    turn_lists,
    usage_ledger,
)
from minichat.storage import chats as stored_chats
from minichat.storage.attachment_items import AttachmentItem
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.storage.faults import answered_instead, lagging_index, refused, short_pages, torn_batches
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
LIMITS = RULES.policy.user_limits.default
TENANT = a_caller().tenant_id
CODEC = CursorCodec("secret")
LONG = "long " * 100_000
LONG_QUESTION = "long " * 30_000
FILES = [AttachmentId(f"00000000-0000-4000-8000-00000000000{number}") for number in range(6)]


def a_turn_of(chat_id: ChatId, content: str = "hello") -> Turn:
    running = send(a_call(), SendMessage(chat_id, content, RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def ended(turn: Turn, text: str = "hi") -> Turn:
    assert finalize(a_call(), turn, Ending(TurnState.COMPLETED, text=text, usage=Usage(10, 5)), RULES.settings)
    return turn


@pytest.fixture
def chat(store: Store) -> tuple[ChatId, Turn]:
    """A chat with short and long messages, files, and a stream in many parts; its last turn. Its owner has others."""
    for _ in range(4):
        chats.create(a_call(), chats.NewChat(), RULES)
    chat_id = chats.create(a_call(), chats.NewChat(), RULES).chat_id
    for number in range(5):
        turn = ended(
            a_turn_of(chat_id, LONG_QUESTION if number == 2 else f"message {number}"), LONG if number == 3 else "hi"
        )
    for number in range(7):
        told = [Told("delta", {"type": "text", "content": f"word{number}.{one} "}) for one in range(3)]
        transact.commit(parts.puts(turn, 1 + 3 * number, told, kept=timedelta(hours=1)), token=new_id(NOW))
    for file_id in FILES:
        AttachmentItem(*keys.attachment(TENANT, chat_id, file_id), kind="document", storage_backend="openai").save()
    for image in scan.outbox(NOW - timedelta(days=1), NOW + timedelta(days=1)):
        if image["queue"]["S"] == "usage":
            usage_ledger.book(
                UsageEvent.model_validate_json(image["payload"]["S"]), image["sk"]["S"], retention_days=400
            )
    return chat_id, turn


def pages(read: Callable[[listing.Query], Any], limit: int) -> list[Any]:
    """All of a list, page by page, and back again."""
    found, cursor = [], None
    while True:
        page = read(listing.Query(limit, cursor))
        page = page if isinstance(page, dict) else page.model_dump(mode="json")
        found.append(page["items"])
        cursor = page["page_info"]["next_cursor"]
        if cursor is None:
            break
    back = page["page_info"]["prev_cursor"]
    while back is not None:
        page = read(listing.Query(limit, back))
        page = page if isinstance(page, dict) else page.model_dump(mode="json")
        found.append(page["items"])
        back = page["page_info"]["prev_cursor"]
    return found


def everything(chat_id: ChatId, turn: Turn) -> dict[str, Any]:
    """What every reader of more than one item gives, as far as a request or a worker reads it."""
    after = turn.user_message_id
    return {
        "messages": pages(lambda query: listing.messages(a_call(), CODEC, chat_id, query), 3),
        "chats": pages(lambda query: listing.chats(a_call(), CODEC, query), 2),
        "chats of a user": list(stored_chats.ids_of(TENANT, a_caller().user_id)),
        "recent": messages.recent(TENANT, chat_id, 8, at_most_bytes=10**9),
        "stretch": list(messages.stretch(TENANT, chat_id, None, after)),
        "one message": messages.read(TENANT, chat_id, after),
        "turns": list(turn_lists.of_chat(TENANT, chat_id)),
        "files": list(attachments.of_chat(TENANT, chat_id)),
        "some files": attachments.of_ids(TENANT, chat_id, FILES),
        "opening": starting_point.open_for_turn(
            a_call(), starting_point.Wanted(chat_id, turn.request_id, LIMITS, 0, 0, tuple(FILES))
        ),
        "stream": list(parts.after(turn, 4)),
        "ledger": sorted(usage_ledger.entries(TENANT, NOW.date().isoformat()), key=lambda one: one.dedupe_key),
        "totals": list(usage_ledger.totals(TENANT, "2000-01-01", "2100-01-01")),
        "outbox": sorted(one["sk"]["S"] for one in scan.outbox(NOW - timedelta(days=1), NOW + timedelta(days=1))),
        "differences": reconcile_quota.reconcile(TENANT).differences,
    }


@pytest.mark.parametrize("at_most", [2, 3])
def test_a_page_that_is_full_early_hides_nothing(chat: tuple[ChatId, Turn], at_most: int) -> None:
    whole_answer = everything(*chat)
    with short_pages(at_most):
        assert everything(*chat) == whole_answer


@pytest.mark.parametrize("at_most", [1, 5])
def test_a_batch_that_is_answered_in_pieces_and_in_any_order_is_whole_in_the_end(
    chat: tuple[ChatId, Turn], at_most: int
) -> None:
    whole_answer = everything(*chat)
    with torn_batches(at_most):
        assert everything(*chat) == whole_answer


def unread(store: Store, chat_id: ChatId) -> Any:
    """A batch of reads that gives nothing."""
    answer, _ = refused("none", status=200)
    key = keys.chat(TENANT, chat_id)
    left = {store.conversation_table: {"Keys": [{"pk": {"S": key.pk}, "sk": {"S": key.sk}}]}}
    return answer, {"Responses": {}, "UnprocessedKeys": left, "ResponseMetadata": {}}


def test_a_batch_that_gives_nothing_is_read_again_after_longer_and_longer_pauses_and_not_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("minichat.storage.items.greenlets.sleep", pauses.append)
    chat_id = chats.create(a_call(), chats.NewChat(), RULES).chat_id
    with answered_instead("BatchGetItem", [unread(store, chat_id)] * 3):
        assert chats.get(a_call(), chat_id).chat_id == chat_id
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    left = [unread(store, chat_id)] * 100
    with answered_instead("BatchGetItem", left), pytest.raises(ServiceUnavailable):
        chats.get(a_call(), chat_id)
    assert 100 - len(left) == items.UNREAD_ATTEMPTS
    assert sum(pauses[3:]) < 4


def test_an_index_that_lags_shows_no_deleted_chat_and_breaks_no_page(store: Store) -> None:
    made = [chats.create(a_call(), chats.NewChat(str(number)), RULES).chat_id for number in range(4)]

    def listed(limit: int = 20, cursor: str | None = None) -> Any:
        return listing.chats(a_call(), CODEC, listing.Query(limit, cursor))

    with lagging_index(indexes.ByOwner.Meta.index_name) as seen:
        assert [str(one.id) for one in listed().items] == made[::-1]
        chats.delete(a_call(), made[1])
        chats.rename(a_call(), made[0], "first of all")
        chats.create(a_call(), chats.NewChat("not known yet"), RULES)
        late = listed()
        assert [(str(one.id), one.title) for one in late.items] == [
            (made[3], "3"), (made[2], "2"), (made[0], "first of all"),
        ]  # fmt: skip
        # The index as it was: four entries, one of them of a chat that is gone. A page is filled in spite of it.
        (answer,) = seen.values()
        assert len(answer["Items"]) == 4
        page = listed(3)
        assert [str(one.id) for one in page.items] == [made[3], made[2], made[0]]
        assert page.page_info.next_cursor is None
    assert [one.title for one in listed().items] == ["not known yet", "first of all", "3", "2"]


def running_since(cutoff: datetime) -> list[Turn]:
    pages = (page for shard in keys.RUNNING_SHARDS for page in turn_lists.running_since(cutoff, shard))
    return [one for page in pages for one in page if isinstance(one, Turn)]


@pytest.mark.parametrize("gone", [False, True])
def test_an_index_that_lags_brings_no_turn_to_its_end_twice(store: Store, *, gone: bool) -> None:
    turn = a_turn_of(chats.create(a_call(), chats.NewChat(), RULES).chat_id)
    late = Call(a_caller(), turn.started_at + timedelta(hours=1), new_id)
    with lagging_index(indexes.RunningIndex.Meta.index_name):
        assert [one.turn_id for one in running_since(late.now)] == [turn.turn_id]
        ended(turn)
        before = Tables.of(store)
        if gone:  # with its chat, whose items have expired
            items.TurnItem(*keys.turn(turn.tenant_id, turn.chat_id, turn.request_id)).delete()
        assert running_since(late.now) == []
        assert orphans.sweep(late.now, new_id, RULES.settings) == orphans.OrphanSweep(0, 0)
    if not gone:
        assert Tables.of(store) == before
        assert violations(before) == []


def test_what_a_deleted_chat_leaves_behind_may_go_in_any_order_and_late(
    chat: tuple[ChatId, Turn], store: Store
) -> None:
    """Time to live removes items within days, each by itself: the head may be the first to go, or the last."""
    chat_id, turn = chat
    chats.delete(a_call(), chat_id)
    purge.contents(TENANT, chat_id, NOW)
    purge.needed(TENANT, chat_id, NOW, uncleaned_at=NOW)
    left = [item for item in Tables.of(store).conversations if item["pk"].endswith(f"#C#{chat_id}")]
    left.sort(key=lambda item: item["sk"] != keys.CHAT_SK)
    for item in left:
        items.ConversationItem(item["pk"], item["sk"]).delete()
        with pytest.raises(ChatNotFound):
            chats.get(a_call(), chat_id)
        with pytest.raises(ChatNotFound):
            listing.messages(a_call(), CODEC, chat_id, listing.Query(20, None))
        with pytest.raises(ChatNotFound):
            send(a_call(), SendMessage(chat_id, "hello", RequestId(str(uuid4()))), RULES)
        with pytest.raises(ChatNotFound):
            orphans.read_and_repair(a_call(), chat_id, turn.request_id, RULES.settings)


def test_an_upload_key_that_has_expired_and_is_still_there_counts_as_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = chats.create(a_call(), chats.NewChat(), RULES)
    file = files.NewFile("a.pdf", "application/pdf", 9, idempotency_key="k")
    first, again = (files.announce(a_call(), chat, file, RULES)[0].attachment_id for _ in range(2))
    tomorrow = Call(a_caller(), a_call().now + timedelta(hours=25), new_id)
    assert first == again != files.announce(tomorrow, chat, file, RULES)[0].attachment_id
