"""What is hidden costs nothing: reads of a conversation depend on what it shows, whatever was taken back before."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.chat import Chat
from minichat.domain.errors import GenerationInProgress
from minichat.domain.identity import Call, ChatId, MessageId, RequestId
from minichat.domain.message import Message
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.services import chats, mutate, reactions, stream_resume
from minichat.services.finalize import Teller, finalize
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import keys, messages, turn_mutations, turns
from minichat.storage.items import MessageItem, MessagePartItem
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.services.events import each
from tests.support.storage.faults import counted_calls
from tests.support.storage.invariants import Tables, violations
from tests.support.storage.read_units import Reads, counted_reads

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
TENANT = a_caller().tenant_id
CODEC = CursorCodec("secret")
LONG = "0123456789abcdef" * 5_000  # 80 KB


def a_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def a_send(chat_id: ChatId, content: str = "a question" * 80) -> Turn:
    running = send(a_call(), SendMessage(chat_id, content, RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def ended(turn: Turn, text: str = "an answer" * 200) -> Turn:
    """The turn, ended by its teller, who had told its text in two events and stored none of them."""
    assert finalize(a_call(), turn, Ending(TurnState.COMPLETED, text=text), RULES.settings, Teller(2))
    return turn


def a_retry(turn: Turn) -> Turn:
    return mutate.retry(a_call(), turn.chat_id, turn.request_id, RequestId(str(uuid4())), RULES).turn


def an_edit(turn: Turn) -> Turn:
    command = SendMessage(turn.chat_id, "a question" * 80, RequestId(str(uuid4())))
    return mutate.edit(a_call(), turn.request_id, command, RULES).turn


def a_deletion(turn: Turn) -> None:
    mutate.delete(a_call(), turn.chat_id, turn.request_id, RULES.settings)


def a_page(chat_id: ChatId, **said: Any) -> dict[str, Any]:
    said = {"limit": 4, "cursor": None} | said
    return listing.messages(a_call(), CODEC, chat_id, listing.Query(**said))


def counted(do: Callable[[], object]) -> Reads:
    with counted_reads() as reads:
        do()
    return reads


def costs(chat_id: ChatId, latest: Turn) -> tuple[dict[str, int], Turn]:
    """The read units of everything that goes over a conversation, and the chat's latest turn, which shows the same."""
    middle = a_page(chat_id, orderby="created_at desc")["page_info"]["next_cursor"]
    sent: list[Turn] = []
    found = {
        "the first page": counted(lambda: a_page(chat_id)),
        "the newest": counted(lambda: a_page(chat_id, orderby="created_at desc")),
        "a page in the middle": counted(lambda: a_page(chat_id, cursor=middle)),
        "questions only": counted(lambda: a_page(chat_id, filter_="role eq 'user'")),
        "send": counted(lambda: sent.append(a_send(chat_id))),
    }
    ended(sent[0])
    found["delete"] = counted(lambda: a_deletion(sent[0]))
    found["retry"] = counted(lambda: sent.append(a_retry(latest)))
    return {name: reads.sum for name, reads in found.items()}, ended(sent[1])


def test_reads_cost_the_same_after_no_ten_and_three_hundred_retries_edits_and_deletions(store: Store) -> None:
    chat_id = a_chat()
    for _ in range(8):
        latest = ended(a_send(chat_id))
    after: dict[int, dict[str, int]] = {}
    for number in range(301):
        if number in {0, 10, 300}:
            after[number], latest = costs(chat_id, latest)
        match number % 3:
            case 0:
                latest = ended(a_retry(latest))
            case 1:
                latest = ended(an_edit(latest))
            case _:
                a_deletion(ended(a_send(chat_id)))
    assert after[0] == after[10] == after[300]
    # Fourteen items of some hundred bytes, the head and its turn, quota, summary and documents.
    assert after[300]["send"] <= 10
    assert violations(Tables.of(store)) == []


def test_a_long_text_that_was_taken_back_is_neither_read_nor_moved(store: Store) -> None:
    chat_id = a_chat()
    first = ended(a_send(chat_id))
    short = ended(a_send(chat_id))
    before = counted(lambda: a_deletion(short)).sum
    for _ in range(3):
        long = ended(a_send(chat_id, LONG), LONG)
        reads = counted(lambda long=long: a_deletion(long))  # type: ignore[misc]
        assert not any(key.startswith("TEXT#") for key in reads.keys)
    assert reads.sum == before
    reads = counted(lambda: a_send(chat_id))
    shown = [key for key in reads.keys if key.startswith(("MSG#", "TEXT#", "WITHDRAWN#"))]
    assert shown == [f"MSG#{first.assistant_message_id}", f"MSG#{first.user_message_id}"]
    assert violations(Tables.of(store)) == []


def test_a_page_reads_the_long_texts_that_it_shows_and_no_others(store: Store) -> None:
    chat_id = a_chat()
    turn_ids = [ended(a_send(chat_id, f"{number}{LONG}"), "short").user_message_id for number in range(3)]
    reads = counted(lambda: a_page(chat_id, limit=2))
    assert {key.split("#")[1] for key in reads.keys if key.startswith("TEXT#")} == {turn_ids[0]}
    reads = counted(lambda: a_page(chat_id, limit=9, select="id,role"))
    assert not any(key.startswith("TEXT#") for key in reads.keys)
    told = a_page(chat_id, limit=9)["items"]
    assert [one["content"] for one in told[::2]] == [f"{number}{LONG}" for number in range(3)]


def test_long_texts_cost_a_send_one_call_more_and_short_ones_none(store: Store) -> None:
    chat_id = a_chat()
    ended(a_send(chat_id, LONG), LONG)
    ended(a_send(chat_id, LONG), LONG)
    with counted_calls() as calls:
        running = send(a_call(), SendMessage(chat_id, "short", RequestId(str(uuid4()))), RULES)
    assert sorted(calls) == ["BatchGetItem", "BatchGetItem", "Query", "TransactWriteItems"]
    assert isinstance(running, RunningTurn)
    assert [len(one.content) for one in running.admission.assembly.history] == [len(LONG)] * 4


def test_what_was_taken_back_is_still_found_by_its_id(store: Store) -> None:
    chat_id = a_chat()
    short, long = ended(a_send(chat_id, "a question"), "an answer"), ended(a_send(chat_id, LONG), f"{LONG}!")
    said = [message(turn, which) for turn in (short, long) for which in ("user", "assistant")]
    a_deletion(long)
    ended(a_retry(short))
    assert [message(turn, which) for turn in (short, long) for which in ("user", "assistant")] == said
    shown = [one["content"] for one in a_page(chat_id)["items"]]
    assert shown == ["a question", "an answer" * 200]


def message(turn: Turn, which: str) -> Message | None:
    message_id = turn.user_message_id if which == "user" else turn.assistant_message_id
    return messages.read(turn.tenant_id, turn.chat_id, message_id)


async def test_a_replay_that_began_before_its_turn_was_replaced_has_the_whole_answer(store: Store) -> None:
    chat_id = a_chat()
    turn = ended(a_send(chat_id, "a question"), "an answer")
    found = send(a_call(), SendMessage(chat_id, "a question", turn.request_id), RULES)
    assert isinstance(found, Replay)
    a_retry(turn)
    call = a_call()
    replay = stream_resume.replay(call, found.turn, RULES.settings)
    told = [one.event async for one in each(stream_resume.follow(call, replay, RULES.settings, lambda: call.now))]
    assert [one.data["content"] for one in told if one.name == "delta"] == ["an answer"]


async def test_a_stream_is_told_from_the_message_though_its_turn_was_replaced_meanwhile(store: Store) -> None:
    turn = ended(a_send(a_chat(), "a question"), "an answer")
    late = Call(a_caller(), turn.started_at + timedelta(days=2), new_id)  # its parts have expired
    resumed = stream_resume.resume(late, turn.chat_id, turn.request_id, 0, RULES.settings)
    a_retry(turn)
    told = [one.event async for one in each(stream_resume.follow(late, resumed, RULES.settings, lambda: late.now))]
    assert [one.data["content"] for one in told if one.name == "delta"] == ["an answer"]


def test_a_turn_that_failed_before_one_that_was_deleted_is_told_and_answered(store: Store) -> None:
    """The newest message is older than the chat's last, and nothing is missing."""
    chat_id = a_chat()
    failed = a_send(chat_id, "one")
    finalize(a_call(), failed, Ending(TurnState.FAILED, "provider_error"), RULES.settings)
    a_deletion(ended(a_send(chat_id, "two")))
    with counted_calls() as calls:
        running = send(a_call(), SendMessage(chat_id, "three", RequestId(str(uuid4()))), RULES)
    assert sorted(calls) == ["BatchGetItem", "Query", "Query", "TransactWriteItems"]
    assert isinstance(running, RunningTurn)
    assert [one.content for one in running.admission.assembly.history] == ["one"]


def test_a_mutation_of_a_turn_whose_messages_were_not_read_loses_none(store: Store) -> None:
    """No read of several items is one moment: what was not seen must be gone, or nothing is done."""
    turn = ended(a_send(a_chat(), "a question"), "an answer")
    chat, stored = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)
    assert isinstance(chat, Chat)
    assert stored is not None
    found = messages.newest(TENANT, turn.chat_id, 2).of(turn.request_id)
    before = Tables.of(store)
    call = a_call()
    with pytest.raises(GenerationInProgress):
        turn_mutations.delete(call, chat, turn_mutations.Target(stored, found[:1]), [], token=new_id(call.now))
    assert Tables.of(store) == before
    turn_mutations.delete(call, chat, turn_mutations.Target(stored, found), [], token=new_id(call.now))
    assert violations(Tables.of(store)) == []


def test_a_reaction_that_comes_while_its_turn_is_replaced_moves_with_the_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = ended(a_send(a_chat(), "a question"), "an answer")
    original = turn_mutations.supersede

    def after_a_reaction(*about: Any, **more: Any) -> None:
        monkeypatch.setattr(turn_mutations, "supersede", original)
        reactions.react(a_call(), turn.chat_id, turn.assistant_message_id, "like")
        original(*about, **more)

    monkeypatch.setattr(turn_mutations, "supersede", after_a_reaction)
    ended(a_retry(turn))
    answer = message(turn, "assistant")
    assert answer is not None
    assert (answer.content, answer.reaction) == ("an answer", "like")
    assert violations(Tables.of(store)) == []


def put_as_before(turn: Turn, content: str, *, hidden: bool, at: timedelta) -> MessageId:
    """A message as an earlier version stored it: hidden among the others, a long text right behind it."""
    created_at = turn.started_at + at
    message_id = MessageId(new_id(created_at))
    item = MessageItem(
        *keys.message(turn.tenant_id, turn.chat_id, message_id),
        request_id=turn.request_id,
        role="user",
        created_at=created_at,
        deleted_at=created_at if hidden else None,
    )
    if len(content) > messages.INLINE_MAX_BYTES:
        halves = [content[: len(content) // 2], content[len(content) // 2 :]]
        for number, half in enumerate(halves):
            MessagePartItem(item.pk, f"{item.sk}#{number:04d}", content=half.encode()).save()
        item.parts = 2
    else:
        item.content = content
    item.save()
    return message_id


def test_messages_of_an_earlier_version_are_read_as_they_are(store: Store) -> None:
    chat_id = a_chat()
    turn = ended(a_send(chat_id, "new"), "answer")
    for second, content in enumerate(["hidden", f"hidden{LONG}"] * 10):
        put_as_before(turn, content, hidden=True, at=timedelta(hours=-1, seconds=second))
    short = put_as_before(turn, "shown", hidden=False, at=timedelta(minutes=-2))
    long = put_as_before(turn, f"shown{LONG}", hidden=False, at=timedelta(minutes=-1))
    expected = ["shown", f"shown{LONG}", "new", "answer"]
    recent = messages.recent(TENANT, chat_id, 12, at_most_bytes=10**7)
    assert [one.content for one in recent.messages] == expected
    assert [one["content"] for one in a_page(chat_id)["items"]] == expected
    backwards = a_page(chat_id, orderby="created_at desc", limit=9)["items"]
    assert [one["content"] for one in backwards] == expected[::-1]
    until = turn.assistant_message_id
    assert [one.content for one in messages.stretch(TENANT, chat_id, None, until)] == expected
    assert [messages.read(TENANT, chat_id, one) for one in (short, long)] == recent.messages[:2]


def test_a_long_message_of_an_earlier_version_is_hidden_where_it_is(store: Store) -> None:
    chat_id = a_chat()
    turn = ended(a_send(chat_id, "new"), "answer")
    long = put_as_before(turn, LONG, hidden=False, at=timedelta(minutes=-1))
    _, stored = turns.read(turn.tenant_id, chat_id, turn.request_id)
    chat, _ = turns.read(turn.tenant_id, chat_id, turn.request_id)
    assert isinstance(chat, Chat)
    assert stored is not None
    old = replace(stored, user_message_id=long)
    said = messages.recent(TENANT, chat_id, 3, at_most_bytes=10**7).of(turn.request_id)
    turn_mutations.delete(a_call(), chat, turn_mutations.Target(old, said), [], token=new_id(a_call().now))
    kept = messages.read(TENANT, chat_id, long)
    assert kept is not None
    assert kept.content == LONG
    assert [one["content"] for one in a_page(chat_id)["items"]] == ["new"]
