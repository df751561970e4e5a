"""Taking files in, against the engine and the scripted provider: killed anywhere, at once, deleted meanwhile."""

import io
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from inspect import isfunction
from typing import Any

import httpx2
import pytest
from PIL import Image

from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.chat import Chat
from minichat.domain.cleanup import CleanupOutcome
from minichat.events.payloads import AttachmentCleanup, DocSummaryTask
from minichat.providers.files import Account, Files
from minichat.services import attachments as service
from minichat.services import chats, provider_cleanup
from minichat.services.ingest import IngestDeps, Ingested, ingest
from minichat.services.policy_in_force import Rules
from minichat.settings import Attachments, CleanupSettings, Store
from minichat.storage import attachment_steps, attachments, keys, objects, vector_stores
from minichat.storage.items import ChatItem, batch_get
from minichat.storage.transact import commit
from tests.support.domain.builders import a_call, a_model, a_policy, new_id, unhurried
from tests.support.http.given_files import a_document
from tests.support.providers.calls import an_entry
from tests.support.providers.files import a_scripted_provider
from tests.support.storage.faults import Killed
from tests.support.storage.invariants import Tables

PDF = b"%PDF-1.7\nHello."
IMAGE = io.BytesIO()
Image.new("RGB", (300, 200), "red").save(IMAGE, "PNG")
PNG = IMAGE.getvalue()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as address:
        yield address


@pytest.fixture
def files(url: str) -> Iterator[Files]:
    client = Files({"openai": an_entry(url)})
    yield client
    client.close()


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The bucket of uploads."""
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(objects, "put", lambda key, content, _: kept.update({key: content}))
    monkeypatch.setattr(objects, "read", lambda key, at_most: kept[key][: at_most + 1] if key in kept else None)
    monkeypatch.setattr(objects, "delete", lambda key: kept.pop(key, None))
    return kept


@dataclass
class World:
    """A provider, and a clock that goes on by itself and can be put forward."""

    url: str
    files: Files
    ahead: timedelta = field(default_factory=timedelta)
    settings: Attachments = field(default_factory=Attachments)
    summarizes: bool = False

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @property
    def means(self) -> IngestDeps:
        return IngestDeps(self.files, self.settings, self.now, new_id, lambda _: None, self.summarizes)

    def ingest(self, attachment: Attachment, seconds: float = 5) -> Ingested:
        where = attachment.tenant_id, attachment.chat_id, attachment.attachment_id
        return ingest(*where, self.means, ends_at=self.now() + timedelta(seconds=seconds))

    def until_it_ends(self, attachment: Attachment) -> Ingested:
        """What became of it after as many attempts as it takes, each when claims of the one before are over."""
        for _ in range(30):
            outcome = self.ingest(attachment)
            if outcome is not Ingested.AGAIN:
                return outcome
            self.ahead += timedelta(seconds=20)
        raise AssertionError("it never ends")

    def clean(self, attachment: Attachment) -> CleanupOutcome:
        """Cleans up what its user deleted."""
        event = AttachmentCleanup(
            tenant_id=attachment.tenant_id,
            chat_id=attachment.chat_id,
            attachment_id=attachment.attachment_id,
            storage_backend="openai",
            attachment_kind=attachment.kind,
            deleted_at=self.now(),
        )
        return provider_cleanup.clean_attachment(event, self.cleanup)

    @property
    def cleanup(self) -> provider_cleanup.CleanupDeps:
        return provider_cleanup.CleanupDeps(self.files, CleanupSettings(), self.now)

    def has(self, chat: Chat) -> tuple[list[str], dict[str, list[str]]]:
        """Files and vector stores that the provider has of a chat."""
        told = httpx2.get(f"{self.url}/control/files", trust_env=False).json()
        names = {one: about.get("filename") or about.get("name") or "" for one, about in told["about"].items()}
        stores = {one: held for one, held in told["vector_stores"].items() if chat.chat_id in names.get(one, "")}
        return [one for one in told["files"] if chat.chat_id in names.get(one, "")], stores


@pytest.fixture
def world(url: str, files: Files, store: Store) -> World:
    return World(url, files)


RULES = Rules(
    unhurried(), a_policy(a_model(general_config={"tool_support": {"code_interpreter": True, "file_search": True}}))
)


def a_chat() -> Chat:
    return chats.create(a_call(), chats.NewChat(), RULES)


def an_attachment(
    chat: Chat, content: bytes = PDF, content_type: str = "application/pdf", name: str = "a.pdf"
) -> Attachment:
    return service.add(a_call(), chat, service.NewFile(name, content_type, len(content)), content, RULES)


def an_image(chat: Chat, content: bytes = PNG) -> Attachment:
    return an_attachment(chat, content, "image/png", "a.png")


def a_sheet(chat: Chat, content: bytes) -> Attachment:
    return an_attachment(chat, content, "application/octet-stream", "a.xlsx")


def arrived(attachment: Attachment, bucket: dict[str, bytes], content: bytes | None) -> Attachment:
    """The attachment, with this in the bucket instead: what a form let in."""
    if content is None:
        return attachment
    bucket[keys.upload(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)] = content
    return attachment


def stored(attachment: Attachment) -> Attachment:
    found = attachments.read(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    assert found is not None
    return found


def counted(chat: Chat) -> tuple[int, int]:
    key = keys.chat(chat.tenant_id, chat.chat_id)
    head = ChatItem.from_raw_data(dict(batch_get([key])[key]))
    return int(head.documents or 0), int(head.upload_bytes or 0)


def end(attachment: Attachment) -> tuple[str, str | None]:
    now = stored(attachment)
    return now.status.value, now.error_code


def test_a_document_becomes_ready_once_it_is_found_in_the_chats_store(world: World, bucket: dict[str, bytes]) -> None:
    chat = a_chat()
    attachment = an_attachment(chat, PDF + b"[[index-polls:3]]")
    assert world.ingest(attachment) is Ingested.READY
    now = stored(attachment)
    assert (now.status, now.thumbnail) == ("ready", None)
    assert world.has(chat) == ([now.provider_file_id], {now.vector_store_id: [now.provider_file_id]})
    assert bucket == {}
    assert world.ingest(attachment) is Ingested.NOTHING
    assert stored(attachment) == now


@pytest.mark.parametrize("summarizes", [True, False])
def test_what_can_be_searched_wants_a_summary_once_it_is_ready_where_there_are_any(
    world: World, store: Store, summarizes: bool
) -> None:
    world.summarizes = summarizes
    chat = a_chat()
    document, image, sheet = (
        an_attachment(chat),
        an_image(chat),
        an_attachment(chat, a_document(), "application/octet-stream", "a.xlsx"),
    )
    for one in (document, image, sheet):
        assert [world.ingest(one) for _ in range(2)] == [Ingested.READY, Ingested.NOTHING]
    tasks = [one["payload"] for one in Tables.of(store).outbox if one["type"] == "doc_summary"]
    wanted = [DocSummaryTask.model_validate_json(one).attachment_id for one in tasks]
    assert wanted == [document.attachment_id] * summarizes


def test_an_image_gets_a_thumbnail_and_no_store(world: World) -> None:
    chat = a_chat()
    attachment = an_image(chat)
    assert world.ingest(attachment) is Ingested.READY
    (now,) = attachments.shown(attachment.tenant_id, attachment.chat_id, [attachment.attachment_id])
    assert now.thumbnail is not None
    assert (now.thumbnail.width, now.thumbnail.height) == (128, 85)
    assert world.has(chat) == ([now.provider_file_id], {})


def test_a_spreadsheet_is_not_searched(world: World) -> None:
    chat = a_chat()
    attachment = a_sheet(chat, a_document())
    assert world.ingest(attachment) is Ingested.READY
    assert world.has(chat)[1] == {}


@pytest.mark.parametrize(
    ("make", "content", "code"),
    [
        (an_attachment, b"MZ\x90\0 no PDF at all"[: len(PDF)], "unsupported_file_type"),
        (an_attachment, PDF + b"more", "file_too_large"),
        (an_attachment, PDF[:-1], "upload_failed"),
        (an_image, PNG[:40] + b"\0" * (len(PNG) - 40), "invalid_image"),
        (lambda chat: a_sheet(chat, b"PK\3\4 and no more"), None, "unsupported_file_type"),
        (lambda chat: a_sheet(chat, a_document(bytes(20 * 1024 * 1024))), None, "file_too_large"),
    ],
)
def test_what_is_not_as_announced_fails_and_no_provider_sees_it(
    world: World, bucket: dict[str, bytes], make: Callable[[Chat], Attachment], content: bytes | None, code: str
) -> None:
    chat = a_chat()
    attachment = arrived(make(chat), bucket, content)
    assert world.ingest(attachment) is Ingested.FAILED
    assert end(attachment) == ("failed", code)
    assert (world.has(chat), counted(chat), bucket) == (([], {}), (0, 0), {})


@pytest.mark.parametrize(
    ("marker", "code"),
    [
        (b"[[upload:400x1]]", "upload_failed"),
        (b"[[upload:500x99]]", "upload_failed"),
        (b"[[upload-lost:99]]", None),
        (b"[[upload:429x2]]", None),
        (b"[[put-in:400x1]]", "indexing_failed"),
        (b"[[put-in:503x99]]", "indexing_failed"),
        (b"[[put-in:503x2]]", None),
        (b"[[index:failed]]", "indexing_failed"),
        (b"[[index-polls:99999]]", "indexing_failed"),
    ],
)
def test_a_provider_that_fails_is_asked_again_or_ends_it(world: World, marker: bytes, code: str | None) -> None:
    chat = a_chat()
    attachment = an_attachment(chat, PDF + marker)
    world.means.sleep(0)
    outcome = Ingested.AGAIN
    while outcome is Ingested.AGAIN:
        outcome = world.ingest(attachment, seconds=0.3)
    assert end(attachment) == ("ready" if code is None else "failed", code)
    held, stores = world.has(chat)
    assert len(held) == (code is None)
    assert [one for held_by in stores.values() for one in held_by] == held
    assert counted(chat)[0] == (code is None)


def test_a_file_that_never_comes_is_given_up_when_its_time_is_over(world: World, bucket: dict[str, bytes]) -> None:
    chat = a_chat()
    attachment = an_attachment(chat)
    bucket.clear()
    world.ahead = attachment.created_at - world.now() + timedelta(seconds=800)
    assert world.ingest(attachment) is Ingested.WAITING
    assert end(attachment) == ("pending", None)
    world.ahead += timedelta(seconds=100)
    assert world.ingest(attachment) is Ingested.FAILED
    assert end(attachment) == ("failed", "upload_abandoned")
    assert counted(chat) == (0, 0)


def test_a_file_that_comes_too_late_or_again_is_thrown_away(world: World, bucket: dict[str, bytes]) -> None:
    attachment = an_attachment(a_chat())
    assert world.ingest(attachment) is Ingested.READY
    now = stored(attachment)
    arrived(attachment, bucket, b"%PDF-another")
    assert world.ingest(attachment) is Ingested.NOTHING
    assert (stored(attachment), bucket) == (now, {})


def test_fifty_first_uploads_at_once_make_one_store(world: World) -> None:
    chat = a_chat()
    made = [an_attachment(chat) for _ in range(50)]
    world.settings = Attachments(max_attempts=10)

    def until_ready(attachment: Attachment) -> Ingested:
        while (outcome := world.ingest(attachment, seconds=20)) is Ingested.AGAIN:
            pass
        return outcome

    before = httpx2.get(f"{world.url}/control/files", trust_env=False).json()["stores_made"]
    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(until_ready, made)) == {Ingested.READY}
    after = httpx2.get(f"{world.url}/control/files", trust_env=False).json()["stores_made"]
    held, stores = world.has(chat)
    assert (after - before, len(held)) == (1, 50)
    assert [sorted(one) for one in stores.values()] == [sorted(held)]


def test_the_same_file_taken_in_by_many_is_uploaded_once(world: World) -> None:
    chat = a_chat()
    attachment = an_attachment(chat)
    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(lambda _: world.ingest(attachment), range(10)))
    assert outcomes.count(Ingested.READY) == 1
    assert set(outcomes) <= {Ingested.READY, Ingested.AGAIN, Ingested.NOTHING}
    assert len(world.has(chat)[0]) == 1


@pytest.mark.parametrize("waits_for", ["index", "store"])
@pytest.mark.parametrize("whole_chat", [False, True], ids=["attachment", "chat"])
def test_whoever_waits_for_a_provider_lets_go_when_what_it_does_is_deleted(
    world: World, waits_for: str, whole_chat: bool
) -> None:
    chat = a_chat()
    attachment = an_attachment(chat, PDF + b"[[index-polls:99999]]")
    if waits_for == "store":
        other, until = an_attachment(chat), world.now() + timedelta(hours=1)
        claim = VectorStore(
            chat.tenant_id, chat.chat_id, "openai", claimed_by="w", claimed_at=until, claimed_until=until
        )
        assert attachment_steps.take(other, "w", now=world.now(), until=until)
        assert vector_stores.claim(claim, other, "w", token=new_id(until))
    pauses = itertools.count()

    def sleep(_: float) -> None:
        if (pause := next(pauses)) == 3 and whole_chat:
            chats.delete(a_call(), chat.chat_id)
        elif pause == 3:
            service.delete(a_call(), chat.chat_id, attachment.attachment_id)
        assert pause <= 3, "it waits on"

    means = replace(world.means, sleep=sleep)
    where = attachment.tenant_id, attachment.chat_id, attachment.attachment_id
    assert ingest(*where, means, ends_at=world.now() + timedelta(hours=1)) is Ingested.AGAIN
    assert next(pauses) == 4
    now = stored(attachment)
    assert (now.status, now.ingest.worker) == ("uploaded", None), "nobody else has to wait for its lease"


def test_nobody_takes_a_dead_claim_over_for_a_chat_that_was_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = a_chat()
    attachment, then = an_attachment(chat), world.now()
    claim = VectorStore(chat.tenant_id, chat.chat_id, "openai", claimed_by="dead", claimed_at=then, claimed_until=then)
    commit([vector_stores.put(claim)], token=new_id(then))
    original = vector_stores.read

    def deleted_meanwhile(*where: Any) -> VectorStore | None:
        monkeypatch.setattr(vector_stores, "read", original)
        chats.delete(a_call(), chat.chat_id)
        return original(*where)

    monkeypatch.setattr(vector_stores, "read", deleted_meanwhile)
    assert world.ingest(attachment) is Ingested.AGAIN
    now = original(chat.tenant_id, chat.chat_id, "openai")
    assert now is not None
    assert (now.claimed_by, now.vector_store_id) == ("dead", None)


def test_a_worker_whose_attachment_another_has_lets_go(world: World) -> None:
    attachment = an_attachment(a_chat(), PDF + b"[[index-polls:99999]]")

    def sleep(_: float) -> None:
        later = world.now() + timedelta(days=1)
        assert attachment_steps.take(stored(attachment), "another", now=later, until=later)

    where = attachment.tenant_id, attachment.chat_id, attachment.attachment_id
    means = replace(world.means, sleep=sleep)
    assert ingest(*where, means, ends_at=world.now() + timedelta(hours=1)) is Ingested.AGAIN
    assert stored(attachment).ingest.worker == "another"


CALLS: list[tuple[Any, str]] = [
    *((attachments, name) for name in ("with_chat", "read")),
    *(
        (attachment_steps, name)
        for name in ("take", "release", "upload_begins", "uploaded", "enters_store", "ready", "failed")
    ),
    *((vector_stores, name) for name in ("read", "claim", "take_over", "name", "let_go")),
    *((objects, name) for name in ("read", "delete")),
    *((Account, name) for name, what in vars(Account).items() if isfunction(what) and not name.startswith("_")),
]


class Killer:
    """Kills the process before or after the so-many-th call that it makes to anything outside of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for module, name in CALLS:
            monkeypatch.setattr(module, name, self._wrapped(getattr(module, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            answer = call(*args, **kwargs)
            self._tick()
            return answer

        return wrapped

    def _tick(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def kills(self, number: int, do: Callable[[], object]) -> bool:
        """Whether it was killed there; False when it ended before."""
        self.left = number
        try:
            do()
        except Killed:
            return True
        finally:
            self.left = None
        return False


MAKERS: list[Callable[[Chat], Attachment]] = [
    an_attachment,
    an_image,
    lambda chat: an_attachment(chat, PDF + b"[[index:failed]]"),
    lambda chat: an_attachment(chat, PDF + b"[[upload:400x1]]"),
]


@pytest.mark.parametrize("make", MAKERS, ids=["document", "image", "unindexable", "refused"])
def test_killed_anywhere_it_ends_all_the_same_and_nothing_is_left_over(
    world: World, bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, make: Callable[[Chat], Attachment]
) -> None:
    killer = Killer(monkeypatch)
    for number in itertools.count():
        chat = a_chat()
        attachment = make(chat)
        world.ahead = timedelta()
        if not killer.kills(number, lambda attachment=attachment: world.ingest(attachment)):  # type: ignore[misc]
            break
        world.ahead += timedelta(seconds=61)
        world.until_it_ends(attachment)
        now = stored(attachment)
        held, stores = world.has(chat)
        assert now.status in ("ready", "failed"), number
        assert held == ([now.provider_file_id] if now.status == "ready" else []), number
        assert len(stores) <= 1, number
        assert counted(chat)[1] == (now.size_bytes if now.status == "ready" else 0), number
        assert bucket == {}, number
    assert number > 10


@pytest.mark.parametrize("whole_chat", [False, True], ids=["attachment", "chat"])
def test_killed_anywhere_and_deleted_nothing_is_left_at_the_provider(
    world: World, bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, whole_chat: bool
) -> None:
    killer = Killer(monkeypatch)
    for number in itertools.count():
        chat = a_chat()
        attachment = an_attachment(chat)
        world.ahead = timedelta()
        if not killer.kills(number, lambda attachment=attachment: world.ingest(attachment)):  # type: ignore[misc]
            break
        if whole_chat:
            chats.delete(a_call(), chat.chat_id)
        else:
            service.delete(a_call(), chat.chat_id, attachment.attachment_id)
            world.clean(attachment)
        world.ahead += timedelta(seconds=61)
        if whole_chat:
            cleaned = provider_cleanup.clean_chat_resources(
                chat.tenant_id, chat.chat_id, world.cleanup, ends_at=world.now() + timedelta(days=1)
            )
            assert cleaned is CleanupOutcome.DONE, number
        assert world.until_it_ends(attachment) is Ingested.NOTHING
        held, stores = world.has(chat)
        assert held == [], number
        assert bucket == {}, number
        if whole_chat:
            assert stores == {}, number
    assert number > 10


def test_killed_anywhere_in_a_chat_that_is_deleted_its_cleanup_alone_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of the file is lost, too: nobody comes again to find out what its worker made."""
    killer = Killer(monkeypatch)
    for number in itertools.count():
        chat = a_chat()
        attachment = an_attachment(chat)
        world.ahead = timedelta()
        if not killer.kills(number, lambda attachment=attachment: world.ingest(attachment)):  # type: ignore[misc]
            break
        chats.delete(a_call(), chat.chat_id)
        world.ahead += timedelta(seconds=61)
        ends_at = world.now() + timedelta(days=1)
        cleaned = provider_cleanup.clean_chat_resources(chat.tenant_id, chat.chat_id, world.cleanup, ends_at=ends_at)
        assert (cleaned, world.has(chat)) == (CleanupOutcome.DONE, ([], {})), number
    assert number > 10


def test_deleted_while_it_is_taken_in_it_leaves_nothing(
    world: World, bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between every two calls of the worker somebody deletes the attachment and its cleanup runs."""
    ticks = itertools.count()
    at: list[int] = [-1]
    doomed: list[Attachment] = []

    def deleting(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(ticks) == at[0]:
                at[0] = -1
                service.delete(a_call(), doomed[0].chat_id, doomed[0].attachment_id)
                world.clean(doomed[0])
            return call(*args, **kwargs)

        return wrapped

    for module, name in CALLS[3:-2]:
        monkeypatch.setattr(module, name, deleting(getattr(module, name)))
    for number in itertools.count():
        chat = a_chat()
        attachment = an_attachment(chat)
        doomed[:], world.ahead = [attachment], timedelta()
        ticks, at[0] = itertools.count(), number
        world.ingest(attachment)
        if at[0] == number:
            break
        world.until_it_ends(attachment)
        assert world.has(chat)[0] == [], number
        assert counted(chat) == (0, 0), number
        assert bucket == {}, number
    assert number > 8
