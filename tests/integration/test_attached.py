"""Messages with attachments against the engine: sent or deleted and never both, carried over, counted, forgotten."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from minichat.auth_settings import Auth
from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.citations import CitedFile
from minichat.domain.errors import (
    AttachmentLocked,
    ChatError,
    ChatNotFound,
    GenerationInProgress,
    ImagesDisabled,
    InvalidAttachment,
    InvalidRequest,
    QuotaExceeded,
    RequestIdConflict,
    RequestIdReused,
    TooManyImages,
    UnsupportedMedia,
)
from minichat.domain.identity import AttachmentId, ChatId, RequestId, UserId
from minichat.domain.policy import KillSwitches
from minichat.domain.settlement import Ending
from minichat.domain.tools import Tools
from minichat.domain.turn import ToolCalls, TurnState
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.services import attachments as service
from minichat.services import chats, mutate, new_turn
from minichat.services.finalize import finalize
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Attachments, Settings, Store
from minichat.storage import attachment_steps, attachments, keys, messages
from minichat.storage.documents import from_raw
from minichat.storage.items import batch_get
from minichat.storage.transact import commit
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, new_id, some_limits, unhurried
from tests.support.services import ready_files
from tests.support.services.ready_files import stored
from tests.support.storage.faults import counted_calls, side_by_side
from tests.support.storage.invariants import Tables, violations

SUPPORT = {"tool_support": {"file_search": True, "code_interpreter": True, "web_search": True}}
MODEL = a_model(preference={"is_default": True}, multimodal_capabilities=["VISION_INPUT"], general_config=SUPPORT)
RULES = Rules(unhurried(), a_policy(MODEL))
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
READS = {"BatchGetItem", "Query"}
ENDS = {"turn_completed", "turn_failed"}


def a_chat() -> Chat:
    return chats.create(a_call(), chats.NewChat(), RULES)


def announced(chat: Chat, content_type: str = "application/pdf", name: str = "a.pdf") -> Attachment:
    return ready_files.announced(a_call(), chat, RULES, content_type, name)


def ready(attachment: Attachment, picture: bytes | None = None) -> Attachment:
    return ready_files.ready(a_call(), attachment, picture)


def a_document(chat: Chat) -> Attachment:
    return ready(announced(chat))


def an_image(chat: Chat, picture: bytes = b"small") -> Attachment:
    return ready(announced(chat, "image/png", "a.png"), picture)


def a_command(chat: Chat, *sent_with: Attachment, request_id: str | None = None) -> SendMessage:
    ids = tuple(one.attachment_id for one in sent_with)
    return SendMessage(chat.chat_id, "What is this?", RequestId(request_id or str(uuid4())), ids)


def sent(chat: Chat, *sent_with: Attachment, rules: Rules = RULES) -> RunningTurn:
    running = send(a_call(), a_command(chat, *sent_with), rules)
    assert isinstance(running, RunningTurn)
    return running


def completed(running: RunningTurn) -> RunningTurn:
    assert finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="A moon."), RULES.settings)
    return running


def a_turn(chat: Chat, *sent_with: Attachment) -> RunningTurn:
    return completed(sent(chat, *sent_with))


def listed(chat: Chat, **options: Any) -> list[dict[str, Any]]:
    page = listing.messages(a_call(), CursorCodec("secret"), chat.chat_id, listing.Query(100, None, **options))
    return list(page["items"])


def references(*sent_with: Attachment) -> list[int]:
    return [stored(one).references for one in sent_with]


def test_a_message_remembers_what_it_was_sent_with_and_counts_it(store: Store) -> None:
    chat = a_chat()
    document, image = a_document(chat), an_image(chat)
    running = a_turn(chat, image, document)
    ids = (image.attachment_id, document.attachment_id)
    assert running.turn.attachment_ids == ids
    message = messages.read(chat.tenant_id, chat.chat_id, running.turn.user_message_id)
    assert message is not None
    assert message.attachment_ids == ids
    assert references(document, image) == [1, 1]
    a_turn(chat, document)
    assert references(document, image) == [2, 1]
    assert violations(Tables.of(store)) == []


def test_images_are_shown_and_documents_offered_to_every_message_after(store: Store) -> None:
    chat = a_chat()
    document, image = a_document(chat), an_image(chat)
    sheet = ready(announced(chat, XLSX, "a.xlsx"))
    running = a_turn(chat, image)
    tools = Tools(vector_stores=(f"vs-{chat.chat_id}",), code_files=(str(sheet.provider_file_id),))
    assert (running.turn.image_ids, running.admission.tools) == ((image.attachment_id,), tools)
    following = sent(chat)
    assert (following.turn.image_ids, following.admission.tools) == ((), tools)
    assert following.files == {
        document.provider_file_id: CitedFile(document.attachment_id, "a.pdf"),
        sheet.provider_file_id: CitedFile(sheet.attachment_id, "a.xlsx"),
    }


@pytest.mark.parametrize("called", [True, False])
def test_the_audit_trail_tells_what_a_message_was_sent_with(store: Store, called: bool) -> None:
    chat = a_chat()
    document, image = a_document(chat), an_image(chat)
    running = sent(chat, document, image)
    assert finalize(a_call(), running.turn, Ending(TurnState.CANCELLED, provider_called=called), RULES.settings)
    (event,) = (json.loads(item["payload"]) for item in Tables.of(store).outbox if item["type"] == "turn_failed")
    pdf = {"filename": "a.pdf", "content_type": "application/pdf", "size_bytes": 9}
    png = {"filename": "a.png", "content_type": "image/png", "size_bytes": 9, "image_used_in_turn": called}
    assert event["attachments"] == [
        {"attachment_id": document.attachment_id, "attachment_kind": "document", **pdf},
        {"attachment_id": image.attachment_id, "attachment_kind": "image", **png},
    ]


def test_the_audit_trail_has_no_secret_of_a_file_name(store: Store) -> None:
    chat = a_chat()
    key = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    file = ready(announced(chat, "text/plain", f"{key}.txt"))
    running = sent(chat, file)
    assert finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="a"), RULES.settings)
    other = ready(announced(chat, "text/plain", f"{key}.txt"))
    service.delete(a_call(), chat.chat_id, other.attachment_id)
    told = {item["type"]: item["payload"] for item in Tables.of(store).outbox if item["queue"] == "audit"}
    assert key not in "".join(told.values())
    deleted = json.loads(told["attachment_delete"])
    assert (deleted["attachment_kind"], deleted["content_type"], deleted["size_bytes"]) == ("document", "text/plain", 9)
    assert deleted["filename"] == "[redacted:github-token].txt"


@pytest.mark.parametrize(
    ("claim", "ending", "told"),
    [
        (None, Ending(TurnState.COMPLETED, text="a"), {"quota": {"decision": "allow"}}),
        (
            "features",
            Ending(TurnState.FAILED, "file_search_calls_exceeded"),
            {
                "license": {"feature": "ai_chat", "decision": "allow"},
                "quota": {"decision": "allow", "quota_scope": "file_search"},
            },
        ),
    ],
)
def test_the_audit_trail_tells_which_decisions_a_turn_met(
    store: Store, claim: str | None, ending: Ending, told: dict[str, Any]
) -> None:
    settings = Settings(auth=Auth(features_claim=claim))
    assert finalize(a_call(), sent(a_chat()).turn, ending, settings)
    (event,) = (json.loads(item["payload"]) for item in Tables.of(store).outbox if item["type"] in ENDS)
    decisions = event["policy_decisions"]
    # What has its default may be absent.
    assert {name: decisions[name] | told[name] for name in decisions} == told


def test_what_is_not_ready_or_deleted_is_not_offered(store: Store) -> None:
    chat = a_chat()
    announced(chat)
    gone = a_document(chat)
    service.delete(a_call(), chat.chat_id, gone.attachment_id)
    running = sent(chat)
    assert not running.admission.tools.any
    assert running.files == {}


@pytest.mark.holds("turns.refused-nothing")
def test_an_attachment_that_cannot_be_used_is_refused_by_name_and_leaves_no_trace(store: Store) -> None:
    chat = a_chat()
    good, pending, deleted = a_document(chat), announced(chat), a_document(chat)
    service.delete(a_call(), chat.chat_id, deleted.attachment_id)
    elsewhere = a_document(a_chat())
    unknown = replace(good, attachment_id=AttachmentId(str(uuid4())))
    bobs = replace(good, attachment_id=AttachmentId(new_id(a_call().now)), uploaded_by=UserId("bob"))
    commit([attachments.put(bobs)], token=new_id(a_call().now))
    before = Tables.of(store)
    for wrong in (pending, deleted, elsewhere, unknown, bobs):
        with pytest.raises(InvalidAttachment) as refusal:
            sent(chat, good, wrong)
        (error,) = refusal.value.errors
        assert error.field == "attachment_ids"
        assert wrong.attachment_id in error.message
        assert error.code == ("not_ready" if wrong is pending else "not_found")
    with pytest.raises(InvalidRequest):
        sent(chat, good, good)
    assert Tables.of(store) == before


@pytest.mark.holds("contract.send-order")
def test_of_everything_that_is_wrong_with_a_send_the_first_check_decides(store: Store) -> None:
    chat, gone = a_chat(), a_chat()
    chats.delete(a_call(), gone.chat_id)
    known = completed(sent(chat)).turn.request_id
    running = sent(chat).turn.request_id
    unknown = (AttachmentId(str(uuid4())),)
    used_up = Rules(Settings(), a_policy(MODEL, user_limits={"default": some_limits(total=0)}))
    before = Tables.of(store)

    def refusal(content: str, chat_id: ChatId, request_id: str, *files: AttachmentId) -> type[ChatError]:
        with pytest.raises(ChatError) as refused:
            send(a_call(), SendMessage(chat_id, content, RequestId(request_id), files), used_up)
        return type(refused.value)

    assert refusal(" ", gone.chat_id, known, *unknown) is InvalidRequest
    assert refusal("other", gone.chat_id, known, *unknown) is ChatNotFound
    assert refusal("other", chat.chat_id, known, *unknown) is RequestIdReused
    assert refusal("other", chat.chat_id, running, *unknown) is RequestIdConflict
    assert refusal("other", chat.chat_id, str(uuid4()), *unknown) is GenerationInProgress
    free = a_chat()
    assert refusal("other", free.chat_id, str(uuid4()), *unknown) is InvalidAttachment
    assert refusal("other", free.chat_id, str(uuid4())) is QuotaExceeded
    tables = Tables.of(store)
    assert [item for item in tables.conversations if free.chat_id not in item["pk"]] == before.conversations
    assert tables.outbox == before.outbox


@pytest.mark.holds("contract.send-order")
def test_images_beyond_the_limit_are_refused_before_anything_else_of_the_policy(store: Store) -> None:
    chat = a_chat()
    images = [an_image(chat) for _ in range(5)]
    used_up = a_policy(MODEL, user_limits={"default": some_limits(total=0)})
    before = Tables.of(store)
    with pytest.raises(TooManyImages, match="4"):
        sent(chat, *images, rules=Rules(Settings(), used_up))
    assert Tables.of(store) == before
    assert len(sent(chat, a_document(chat), *images[:4]).admission.images) == 4


@pytest.mark.holds("turns.nothing-before")
def test_what_the_policy_refuses_leaves_no_trace(store: Store) -> None:
    chat = a_chat()
    image, sheet = an_image(chat), ready(announced(chat, XLSX, "a.xlsx"))
    off = a_policy(MODEL, kill_switches=KillSwitches(disable_images=True))
    blind = a_policy(a_model(preference={"is_default": True}))
    quota = Settings().quota.model_copy(update={"code_interpreter_daily_quota": 0})
    before = Tables.of(store)
    for rules, refusal in (
        (Rules(Settings(), off), ImagesDisabled),
        (Rules(Settings(), blind), UnsupportedMedia),
        (Rules(unhurried(quota=quota), RULES.policy), QuotaExceeded),
    ):
        with pytest.raises(refusal):
            sent(chat, image, sheet, rules=rules)
    assert Tables.of(store) == before


@pytest.mark.holds("turns.interpreter-day")
def test_a_days_calls_of_the_interpreter_are_counted_against_its_quota(store: Store) -> None:
    chat = a_chat()
    ready(announced(chat, XLSX, "a.xlsx"))
    quota = Settings().quota.model_copy(update={"code_interpreter_daily_quota": 2})
    rules = Rules(unhurried(quota=quota), RULES.policy)
    ending = Ending(TurnState.COMPLETED, text="Two.", tool_calls=ToolCalls(code_interpreter=1))
    for _ in range(2):
        assert finalize(a_call(), sent(chat, rules=rules).turn, ending, rules.settings)
    with pytest.raises(QuotaExceeded) as refusal:
        sent(chat, rules=rules)
    assert refusal.value.limit.scope == "code_interpreter"
    assert not sent(a_chat(), rules=rules).admission.tools.any


def test_an_attachment_is_deleted_or_sent_with_a_message_but_never_both(store: Store) -> None:
    # Turns that run set searches aside, and nobody ends these.
    quota = Settings().quota.model_copy(update={"file_search_daily_quota": 10_000})
    plenty = Rules(unhurried(quota=quota), RULES.policy)
    both: dict[str, int] = {"sent": 0, "deleted": 0}
    for round_ in range(60):
        chat = a_chat()
        attachment = a_document(chat)

        def attempt(number: int, chat: Chat = chat, attachment: Attachment = attachment) -> Any:
            if number:
                return service.delete(a_call(), chat.chat_id, attachment.attachment_id)
            return sent(chat, attachment, rules=plenty)

        answers = at_once(attempt, first=round_ % 2)
        now = stored(attachment)
        won = isinstance(answers[0], RunningTurn)
        both["sent" if won else "deleted"] += 1
        assert (now.references, now.deleted_at is not None) == (int(won), not won)
        assert isinstance(answers[0], RunningTurn | InvalidAttachment), answers
        assert answers[1] is None or isinstance(answers[1], AttachmentLocked), answers
        assert won == (answers[1] is not None)
    assert all(both.values()), both
    tables = Tables.of(store)
    assert [one for one in violations(tables) if "refer" in one or "counts" in one] == []


def at_once(do: Callable[[int], object], *, first: int) -> list[object]:
    """What the calls 0 and 1 gave or raised, side by side; the other one is begun first every other time."""

    def one(number: int) -> object:
        try:
            return do(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        pending = {number: pool.submit(one, number) for number in (first, 1 - first)}
        return [pending[number].result() for number in (0, 1)]


def test_the_deletion_that_comes_between_the_look_and_the_transaction_wins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = a_chat()
    attachment = a_document(chat)
    begin = new_turn.begin

    def late(*given: Any) -> Any:
        service.delete(a_call(), chat.chat_id, attachment.attachment_id)
        return begin(*given)

    monkeypatch.setattr("minichat.services.send.begin", late)
    with pytest.raises(InvalidAttachment) as refusal:
        sent(chat, attachment)
    assert [error.field for error in refusal.value.errors] == ["attachment_ids"]
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize("edits", [False, True], ids=["retry", "edit"])
@pytest.mark.holds("turns.successor")
def test_a_successor_has_the_attachments_and_the_count_stays(store: Store, edits: bool) -> None:
    chat = a_chat()
    document, image = a_document(chat), an_image(chat)
    old = a_turn(chat, document, image)
    for _ in range(2):
        if edits:
            command = SendMessage(chat.chat_id, "And this?", RequestId(str(uuid4())))
            new = mutate.edit(a_call(), old.turn.request_id, command, RULES)
        else:
            new = mutate.retry(a_call(), chat.chat_id, old.turn.request_id, RequestId(str(uuid4())), RULES)
        assert new.turn.attachment_ids == old.turn.attachment_ids
        assert [shown.attachment_id for shown in new.admission.images] == [image.attachment_id]
        assert new.admission.tools.vector_stores
        assert references(document, image) == [1, 1]
        with pytest.raises(AttachmentLocked):
            service.delete(a_call(), chat.chat_id, image.attachment_id)
        old = completed(new)
    assert violations(Tables.of(store)) == []


def test_a_retry_that_images_are_switched_off_for_leaves_the_old_turn(store: Store) -> None:
    chat = a_chat()
    image = an_image(chat)
    old = a_turn(chat, image)
    off = Rules(Settings(), a_policy(MODEL, kill_switches=KillSwitches(disable_images=True)))
    fewer = Rules(Settings(attachments=Attachments(max_images_per_message=1)), RULES.policy)
    before = Tables.of(store)
    with pytest.raises(ImagesDisabled):
        mutate.retry(a_call(), chat.chat_id, old.turn.request_id, RequestId(str(uuid4())), off)
    assert Tables.of(store) == before
    two = a_turn(chat, image, an_image(chat))
    with pytest.raises(TooManyImages):
        mutate.retry(a_call(), chat.chat_id, two.turn.request_id, RequestId(str(uuid4())), fewer)


def test_a_deleted_turn_lets_its_attachments_go_unless_another_has_them(store: Store) -> None:
    chat = a_chat()
    once, twice = a_document(chat), a_document(chat)
    a_turn(chat, twice)
    last = a_turn(chat, once, twice)
    with pytest.raises(AttachmentLocked):
        service.delete(a_call(), chat.chat_id, once.attachment_id)
    mutate.delete(a_call(), chat.chat_id, last.turn.request_id, RULES.settings)
    assert references(once, twice) == [0, 1]
    service.delete(a_call(), chat.chat_id, once.attachment_id)
    with pytest.raises(AttachmentLocked):
        service.delete(a_call(), chat.chat_id, twice.attachment_id)
    assert violations(Tables.of(store)) == []


def test_of_deletions_of_one_turn_at_once_the_attachment_is_uncounted_once(store: Store) -> None:
    chat = a_chat()
    attachment = a_document(chat)
    a_turn(chat, attachment)
    turn = a_turn(chat, attachment).turn
    with ThreadPoolExecutor(8) as pool:
        gone = [
            pool.submit(mutate.delete, a_call(), chat.chat_id, turn.request_id, RULES.settings).exception()
            for _ in range(8)
        ]
    assert gone.count(None) == 1
    assert references(attachment) == [1]


def test_a_completed_turn_is_replayed_with_the_same_attachments_only(store: Store) -> None:
    chat = a_chat()
    document, other = a_document(chat), a_document(chat)
    command = a_command(chat, document)
    first = send(a_call(), command, RULES)
    assert isinstance(first, RunningTurn)
    completed(first)
    assert isinstance(send(a_call(), command, RULES), Replay)
    with pytest.raises(Exception, match="other content or attachments"):
        send(a_call(), replace(command, attachment_ids=(other.attachment_id,)), RULES)
    assert references(document, other) == [1, 0]


def test_lists_show_attachments_with_their_thumbnails(store: Store) -> None:
    chat = a_chat()
    document, image = a_document(chat), an_image(chat)
    a_turn(chat, image, document)
    question, answer = listed(chat)
    assert answer["attachments"] == []
    assert question["attachments"] == [
        {
            "attachment_id": image.attachment_id,
            "kind": "image",
            "filename": "a.png",
            "status": "ready",
            "img_thumbnail": {"content_type": "image/webp", "width": 1, "height": 1, "data_base64": "c21hbGw="},
        },
        {"attachment_id": document.attachment_id, "kind": "document", "filename": "a.pdf", "status": "ready"},
    ]


def test_thumbnails_beyond_what_a_page_may_have_are_left_out(store: Store) -> None:
    chat = a_chat()
    images = [an_image(chat, bytes(300_000)) for _ in range(4)]
    a_turn(chat, *images)
    shown = listed(chat)[0]["attachments"]
    assert ["img_thumbnail" in one for one in shown] == [True, True, True, False]


def test_thumbnails_that_take_just_what_a_page_may_have_are_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "THUMBNAILS_MAX_BYTES", 20)
    chat = a_chat()
    a_turn(chat, *(an_image(chat, bytes(10)) for _ in range(3)))
    shown = listed(chat)[0]["attachments"]
    assert ["img_thumbnail" in one for one in shown] == [True, True, False]


def test_a_message_that_is_larger_than_a_page_is_listed_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_MAX_BYTES", 1)
    chat = a_chat()
    a_turn(chat)
    assert [message["role"] for message in listed(chat)] == ["user"]


def test_what_messages_write_has_no_thumbnail_and_a_deletion_leaves_none(store: Store) -> None:
    chat = a_chat()
    image = an_image(chat, bytes(100_000))
    turn = a_turn(chat, image).turn
    items = {item["sk"]: item for item in Tables.of(store).conversations}
    assert len(str(items[f"ATT#{image.attachment_id}"])) < 1000
    assert "data" in items[f"THUMB#{image.attachment_id}"]
    mutate.delete(a_call(), chat.chat_id, turn.request_id, RULES.settings)
    service.delete(a_call(), chat.chat_id, image.attachment_id)
    assert not any("data" in item for item in Tables.of(store).conversations)


def test_a_spreadsheet_is_forgotten_with_its_deletion(store: Store) -> None:
    chat = a_chat()
    key = keys.documents(chat.tenant_id, chat.chat_id)
    made = [ready(announced(chat, XLSX, f'"{number}".xlsx')) for number in range(3)]
    an_image(chat)
    assert [one.filename for one in from_raw(batch_get([key])[key])] == ['"0".xlsx', '"1".xlsx', '"2".xlsx']
    service.delete(a_call(), chat.chat_id, made[1].attachment_id)
    found = from_raw(batch_get([key])[key])
    assert [one.attachment_id for one in found] == [made[0].attachment_id, made[2].attachment_id]


def test_nothing_becomes_ready_in_a_chat_that_is_deleted(store: Store) -> None:
    chat = a_chat()
    attachment = announced(chat)
    now = a_call().now
    assert attachment_steps.take(attachment, "w", now=now, until=now)
    assert attachment_steps.uploaded(attachment, "w", "file-1")
    chats.delete(a_call(), chat.chat_id)
    assert not attachment_steps.ready(replace(attachment, provider_file_id="file-1"), "w", None, token=new_id(now))
    assert keys.documents(chat.tenant_id, chat.chat_id) not in batch_get([keys.documents(chat.tenant_id, chat.chat_id)])


def test_attachments_cost_no_round_trip_but_where_they_are_listed_or_carried_over(store: Store) -> None:
    chat = a_chat()
    document, image = a_document(chat), an_image(chat)
    with counted_calls() as calls, side_by_side(READS, 2):
        running = sent(chat, document, image)
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]
    completed(running)
    with counted_calls() as calls:
        listed(chat)
    assert calls == ["Query", "BatchGetItem"]
    with counted_calls() as calls:
        listed(chat, select="content")
    assert calls == ["Query"]
    with counted_calls() as calls:
        retried = mutate.retry(a_call(), chat.chat_id, running.turn.request_id, RequestId(str(uuid4())), RULES)
    assert sorted(calls) == ["BatchGetItem", "BatchGetItem", "Query", "TransactWriteItems"]
    completed(retried)
    with counted_calls() as calls:
        mutate.delete(a_call(), chat.chat_id, retried.turn.request_id, RULES.settings)
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]


def test_a_user_of_another_chat_finds_nothing_of_it(store: Store) -> None:
    chat = a_chat()
    document = a_document(chat)
    stranger = a_call(a_caller(user=9))
    theirs = chats.create(stranger, chats.NewChat(), RULES)
    with pytest.raises(InvalidAttachment):
        send(a_call(a_caller(user=9)), a_command(theirs, document), RULES)
    assert references(document) == [0]
