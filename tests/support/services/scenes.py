"""A scene for each row of the table of architecture 5: what writes, about to do so, and what may happen beside it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import boto3

from minichat.domain import orphan
from minichat.domain.api_key import ApiKey
from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.chat import Chat
from minichat.domain.cleanup import Cleanup, CleanupStatus
from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.message import Reaction
from minichat.domain.quota_recount import Difference, QuotaAccount
from minichat.domain.reconcile_report import ReconcileFinding, ReconcileRun, summed
from minichat.domain.settlement import Ending
from minichat.domain.stream import Delta
from minichat.domain.summary import Compression, Frontier, Summary
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.access import AuthorizationPublished, GrantChanged
from minichat.events.payloads import ApiKeyChanged, UsageEvent
from minichat.services import attachments as files
from minichat.services import chats, mutate, reactions, refusal_audit
from minichat.services.cancel import cancel
from minichat.services.finalize import Finder, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.stream_record import Transcript
from minichat.settings import Store
from minichat.storage import (
    api_keys,
    attachment_steps,
    exports,
    followers,
    grants,
    keys,
    leases,
    outbox,
    policies,
    provider_versions,
    purge,
    quota,
    reconcile_reports,
    summaries,
    usage_ledger,
    vector_stores,
)
from minichat.storage import authorizations as own_policies
from minichat.storage import chats as stored_chats
from minichat.storage import titles as stored_titles
from minichat.storage.items import OutboxItem
from tests.support.domain.builders import NOW, a_model, a_policy, new_id, unhurried
from tests.support.services.ready_files import announced, ready, stored
from tests.support.services.walk import Act, Scene, items_of
from tests.support.storage.invariants import Item, Tables

MODEL = a_model(
    preference={"is_default": True}, general_config={"tool_support": {"file_search": True, "web_search": True}}
)
RULES = Rules(unhurried(), a_policy(MODEL))
ENDING = Ending(TurnState.COMPLETED, text="fine", usage=Usage(10, 5))
_versions = count(1)


class World:
    """A tenant of its own, with a clock of its own that goes on a second with each call."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.caller = Caller(TenantId(str(uuid4())), UserId(str(uuid4())))
        self.now = NOW
        self.version = 0
        self.run = keys.reconciled(None, NOW)
        self.chats: set[ChatId] = set()

    def tables(self) -> Tables:
        """What there is of this tenant, and of the version of the policy that the scene is about."""
        tenant_id, user_id = self.caller.tenant_id, self.caller.user_id
        # The task of an export has a partition of the outbox to itself.
        exported = (ChatId(one.export_id) for one in exports.of_tenant(tenant_id))
        listed = (*stored_chats.ids_of(tenant_id, user_id), *exported)
        found = items_of(self.store, {keys.partition(tenant_id, chat_id) for chat_id in {*self.chats, *listed}})
        day = self.now.date().isoformat()
        others = keys.quota(tenant_id, user_id, day), keys.usage(tenant_id, day), keys.ledger_entry(tenant_id, day, "")
        access = keys.api_key(tenant_id, ""), keys.authorization_in_force(tenant_id), keys.grant(tenant_id, "")
        also = (
            *others,
            *access,
            keys.erasure(tenant_id, ""),
            keys.export(tenant_id, ""),
            keys.providers_in_force(tenant_id),
            keys.reconciled(tenant_id, self.now),
        )
        more = items_of(self.store, [key.pk for key in also], events=False).conversations
        if self.version:
            more += [one for one in items_of(self.store, [keys.POLICY]).conversations if self._is_mine(one)]
        more += [one for one in items_of(self.store, [self.run.pk]).conversations if one["sk"] == self.run.sk]
        return Tables(found.conversations + more, found.outbox)

    def _is_mine(self, item: Item) -> bool:
        return item["sk"] == keys.policy_version(self.version).sk or item.get("version") == self.version

    def call(self, after: timedelta = timedelta(seconds=1)) -> Call:
        """The next call."""
        self.now += after
        return Call(self.caller, self.now, new_id)

    def later(self) -> Call:
        """A call after so much silence that a turn counts as dead that has not begun."""
        return self.call(orphan.BEGINNING_PATIENCE + timedelta(seconds=1))

    def chat(self) -> Chat:
        """A new chat."""
        chat = chats.create(self.call(), chats.NewChat(), RULES)
        self.chats.add(chat.chat_id)
        return chat

    def temporary(self) -> Chat:
        """A new chat that is temporary."""
        chat = chats.create(self.call(), chats.NewChat(temporary=True), RULES)
        self.chats.add(chat.chat_id)
        return chat

    def turn(self, chat: Chat, content: str = "hello") -> Turn:
        """A turn that runs."""
        return _running(send(self.call(), SendMessage(chat.chat_id, content, _id()), RULES))

    def ended(self, chat: Chat) -> Turn:
        """A turn with its answer."""
        turn = self.turn(chat)
        assert finalize(self.call(), turn, ENDING, RULES.settings)
        return turn

    def file(self, chat: Chat) -> Attachment:
        """A document that is announced."""
        return announced(self.call(), chat, RULES, "application/pdf", "a.pdf")

    def ready(self, chat: Chat) -> Attachment:
        """A document that can be sent with."""
        return ready(self.call(), self.file(chat))

    def taken(self, chat: Chat) -> Attachment:
        """A document that worker `w` works on."""
        file = self.file(chat)
        assert attachment_steps.take(file, "w", now=self.now, until=self.now + timedelta(minutes=5))
        return stored(file)

    def uploaded(self, chat: Chat) -> Attachment:
        """The same, with its file at the provider."""
        file = self.taken(chat)
        assert attachment_steps.uploaded(file, "w", "file-1")
        return stored(file)

    def claim(self, worker: str = "w", until: timedelta = timedelta(minutes=1), *, chat: Chat) -> VectorStore:
        """A worker's claim on the chat's vector store."""
        where = chat.tenant_id, chat.chat_id, "openai"
        return VectorStore(*where, claimed_by=worker, claimed_at=self.now, claimed_until=self.now + until)

    def claimed(self, chat: Chat, until: timedelta = timedelta(minutes=1)) -> VectorStore:
        """The chat's vector store, claimed by worker `w`."""
        claim = self.claim(chat=chat, until=until)
        assert vector_stores.claim(claim, self.uploaded(chat), "w", token=new_id(self.now))
        return claim


def _id() -> RequestId:
    return RequestId(str(uuid4()))


def _running(outcome: object) -> Turn:
    assert isinstance(outcome, RunningTurn)
    return outcome.turn


# What happens beside many of the writes.


def _delete_chat(world: World, chat: Chat) -> Act:
    return lambda: chats.delete(world.call(), chat.chat_id)


def _send(world: World, chat: Chat, **said: Any) -> Act:
    return lambda: type(send(world.call(), SendMessage(chat.chat_id, "else", _id(), **said), RULES)).__name__


def _retry(world: World, turn: Turn) -> Act:
    return lambda: type(mutate.retry(world.call(), turn.chat_id, turn.request_id, _id(), RULES)).__name__


def _delete_turn(world: World, turn: Turn) -> Act:
    return lambda: mutate.delete(world.call(), turn.chat_id, turn.request_id, RULES.settings)


def _finish(world: World, turn: Turn) -> Act:
    return lambda: "Ended" if finalize(world.call(), turn, ENDING, RULES.settings) else "lost"


def _cancel(world: World, turn: Turn) -> Act:
    def act() -> str:
        now = cancel(world.call(), turn.chat_id, turn.request_id, RULES.settings)
        return "asked" if now.cancel_requested_at is not None else now.state.public

    return act


def _renew(world: World, turn: Turn) -> Act:
    return lambda: "alive" if leases.progress(world.call(), turn, provider_called=True) else "lost"


def _delete_file(world: World, file: Attachment) -> Act:
    return lambda: files.delete(world.call(), file.chat_id, file.attachment_id)


# The rows.


def _chats_create(world: World) -> Scene:
    wish, made = chats.NewChat(idempotency_key="k"), set[ChatId]()

    def act() -> str:
        made.add(chats.create(world.call(), wish, RULES).chat_id)
        return "ok" if len(made) == 1 else "another"

    return Scene(act, beside={"chats.create": act})


def _chats_rename(world: World) -> Scene:
    chat = world.chat()
    turn = world.turn(chat)
    return Scene(
        lambda: chats.rename(world.call(), chat.chat_id, "renamed") and "ok",
        beside={"chats.delete": _delete_chat(world, chat), "endings.finish": _finish(world, turn)},
    )


def _chats_delete(world: World) -> Scene:
    chat = world.chat()
    old = world.ended(chat)
    act = _delete_chat(world, chat)
    return Scene(
        act,
        beside={
            "chats.delete": act,
            "turns.start": _send(world, chat),
            "turn_mutations.supersede": _retry(world, old),
            "turn_mutations.delete": _delete_turn(world, old),
            "attachment_steps.create": lambda: world.file(chat) and "ok",
        },
    )


def _chats_postpone(world: World) -> Scene:
    chat = world.temporary()
    used_at = world.now + timedelta(hours=1)

    def postpones(to: timedelta) -> Act:
        return lambda: str(stored_chats.postpone(chat, used_at + to))

    return Scene(
        postpones(timedelta()),
        beside={
            "chats.postpone": postpones(timedelta(seconds=1)),
            "chats.delete": _delete_chat(world, chat),
            "turns.start": _send(world, chat),
        },
    )


def _titles_give(world: World) -> Scene:
    chat = world.chat()
    turn = world.ended(chat)

    def entitles(title: str) -> Act:
        def act() -> str:
            call = world.call()
            event = outbox.item(call, chat.chat_id, used(world, system=True))
            return str(stored_titles.give(call, chat.chat_id, title, turn.assistant_message_id, event))

        return act

    return Scene(
        entitles("A greeting"),
        beside={
            "titles.give": entitles("Another greeting"),
            "chats.rename": lambda: chats.rename(world.call(), chat.chat_id, "Mine") and "ok",
            "chats.delete": _delete_chat(world, chat),
            "turn_mutations.delete": _delete_turn(world, turn),
            "turn_mutations.supersede": _retry(world, turn),
        },
    )


def _turns_start(world: World) -> Scene:
    chat = world.chat()
    old, file = world.ended(chat), world.ready(chat)
    command = SendMessage(chat.chat_id, "hello", _id(), (file.attachment_id,))

    def sends(call: Callable[[], Call]) -> Act:
        return lambda: type(send(call(), command, RULES)).__name__

    return Scene(
        sends(world.call),
        after=sends(world.later),
        beside={
            "turns.start": _send(world, chat),
            "turn_mutations.supersede": _retry(world, old),
            "turn_mutations.delete": _delete_turn(world, old),
            "chats.delete": _delete_chat(world, chat),
            "attachment_steps.delete": _delete_file(world, file),
        },
        changes=frozenset({"teller"}),
    )


def _turn_mutations_supersede(world: World) -> Scene:
    chat = world.chat()
    old = world.ended(chat)

    def retries(call: Callable[[], Call]) -> Act:
        return lambda: type(mutate.retry(call(), chat.chat_id, old.request_id, _id(), RULES)).__name__

    def edit() -> str:
        return type(mutate.edit(world.call(), old.request_id, SendMessage(chat.chat_id, "x", _id()), RULES)).__name__

    return Scene(
        retries(world.call),
        after=retries(world.later),
        beside={
            "turns.start": _send(world, chat),
            "turn_mutations.supersede": edit,
            "turn_mutations.delete": _delete_turn(world, old),
            "chats.delete": _delete_chat(world, chat),
        },
        changes=frozenset({"teller"}),
    )


def _turn_mutations_delete(world: World) -> Scene:
    chat = world.chat()
    old = world.ended(chat)
    act = _delete_turn(world, old)
    return Scene(
        act,
        beside={
            "turn_mutations.delete": act,
            "turns.start": _send(world, chat),
            "turn_mutations.supersede": _retry(world, old),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _leases_take_over(world: World) -> Scene:
    chat = world.chat()
    command = SendMessage(chat.chat_id, "hello", _id())
    dead = _running(send(world.call(), command, RULES))
    world.later()

    def sends(call: Callable[[], Call]) -> Act:
        return lambda: type(send(call(), command, RULES)).__name__

    again = sends(world.call)
    return Scene(
        again,
        after=sends(world.later),
        beside={
            "leases.take_over": again,
            "leases.progress": _renew(world, dead),
            "endings.finish": _finish(world, dead),
        },
    )


def _leases_progress(world: World) -> Scene:
    turn = world.turn(world.chat())
    return Scene(
        _renew(world, turn),
        beside={"endings.finish": _finish(world, turn), "leases.request_cancel": _cancel(world, turn)},
    )


def _leases_request_cancel(world: World) -> Scene:
    chat = world.chat()
    turn = world.turn(chat)
    act = _cancel(world, turn)
    return Scene(
        act,
        beside={
            "leases.request_cancel": act,
            "endings.finish": _finish(world, turn),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _endings_finish(world: World) -> Scene:
    chat = world.chat()
    turn = world.turn(chat)
    act = _finish(world, turn)

    def watchdog() -> str:
        seen = replace(turn, last_progress_at=world.now - timedelta(hours=1))
        ending = Ending(TurnState.FAILED, "orphan_timeout", provider_called=True)
        by = Finder(stale_since=world.now)
        return "Ended" if finalize(world.call(), seen, ending, RULES.settings, by) else "lost"

    return Scene(
        act,
        beside={
            "endings.finish": watchdog,
            "leases.progress": _renew(world, turn),
            "leases.request_cancel": _cancel(world, turn),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _record_store(world: World) -> Scene:
    turn = world.turn(world.chat())

    def act() -> str:
        record = Transcript()
        record.add(Delta("part of it"))
        asyncio.run(record.store(turn, RULES.settings.streaming))
        return "ok"

    return Scene(act, beside={"endings.finish": _finish(world, turn)})


def _purge_contents(world: World) -> Scene:
    chat = world.chat()
    world.ended(chat)
    chats.delete(world.call(), chat.chat_id)
    at = world.now + timedelta(days=30)

    def act() -> str:
        purge.contents(chat.tenant_id, chat.chat_id, at)
        return "ok"

    return Scene(act, beside={"purge.contents": act})


def _purge_needed(world: World) -> Scene:
    chat = world.chat()
    claim = world.claimed(chat, until=timedelta())
    file = world.ready(chat)
    chats.delete(world.call(), chat.chat_id)
    at = world.now + timedelta(days=30)

    def act() -> str:
        purge.needed(chat.tenant_id, chat.chat_id, at, uncleaned_at=at + timedelta(days=3650))
        return "ok"

    return Scene(
        act,
        beside={
            "purge.needed": act,
            "attachment_steps.settle": lambda: attachment_steps.settle(
                file, Cleanup(CleanupStatus.DONE, updated_at=world.now)
            ),
            "vector_stores.mark_gone": lambda: vector_stores.mark_gone(claim, world.now),
        },
        next_go=act,
    )


def _summaries_write(world: World) -> Scene:
    chat = world.chat()
    world.ended(chat)
    last = world.ended(chat)
    frontier = Frontier(world.now, last.assistant_message_id)

    def act() -> str:
        call, made = world.call(), Summary("They talked.", frontier, 10)
        event = outbox.item(call, chat.chat_id, used(world, system=True))
        return str(summaries.write(call, chat.chat_id, Compression(None, frontier), made, event))

    return Scene(
        act,
        beside={
            "summaries.write": act,
            "turn_mutations.delete": _delete_turn(world, last),
            "turn_mutations.supersede": _retry(world, last),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _reactions_write(world: World) -> Scene:
    chat = world.chat()
    turn = world.ended(chat)

    def reacts(reaction: Reaction) -> Act:
        return lambda: reactions.react(world.call(), chat.chat_id, turn.assistant_message_id, reaction) and "ok"

    return Scene(
        reacts("like"),
        beside={
            "reactions.write": reacts("dislike"),
            "turn_mutations.delete": _delete_turn(world, turn),
            "turn_mutations.supersede": _retry(world, turn),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _uploads_create(world: World) -> Scene:
    chat = world.chat()
    wish, made = files.NewFile("a.pdf", "application/pdf", 9, "k"), set[str]()

    def act() -> str:
        made.add(files.announce(world.call(), chat, wish, RULES)[0].attachment_id)
        return "ok" if len(made) == 1 else "another"

    return Scene(act, beside={"attachment_steps.create": act, "chats.delete": _delete_chat(world, chat)})


def _uploads_delete(world: World) -> Scene:
    chat = world.chat()
    file = world.ready(chat)
    act = _delete_file(world, file)
    return Scene(
        act,
        beside={
            "attachment_steps.delete": act,
            "turns.start": _send(world, chat, attachment_ids=(file.attachment_id,)),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _uploads_take(world: World) -> Scene:
    file = world.file(world.chat())

    def takes(worker: str) -> Act:
        return lambda: str(attachment_steps.take(file, worker, now=world.now, until=world.now + timedelta(minutes=5)))

    return Scene(
        takes("w"), beside={"attachment_steps.take": takes("v"), "attachment_steps.delete": _delete_file(world, file)}
    )


def _uploads_release(world: World) -> Scene:
    file = world.taken(world.chat())
    return Scene(
        lambda: attachment_steps.release(file, "w"), beside={"attachment_steps.delete": _delete_file(world, file)}
    )


def _uploads_upload_begins(world: World) -> Scene:
    chat = world.chat()
    file = world.taken(chat)
    return Scene(
        lambda: str(attachment_steps.upload_begins(file, "w", world.now, token=new_id(world.now))),
        beside={"attachment_steps.delete": _delete_file(world, file), "chats.delete": _delete_chat(world, chat)},
    )


def _uploads_uploaded(world: World) -> Scene:
    file = world.taken(world.chat())
    return Scene(
        lambda: str(attachment_steps.uploaded(file, "w", "file-1")),
        beside={"attachment_steps.delete": _delete_file(world, file)},
    )


def _uploads_enters_store(world: World) -> Scene:
    chat = world.chat()
    file = world.uploaded(chat)
    return Scene(
        lambda: str(attachment_steps.enters_store(file, "w", "vs-1", token=new_id(world.now))),
        beside={"attachment_steps.delete": _delete_file(world, file), "chats.delete": _delete_chat(world, chat)},
    )


def _uploads_ready(world: World) -> Scene:
    chat = world.chat()
    file = world.uploaded(chat)

    def wanted() -> OutboxItem:
        return outbox.item(world.call(), chat.chat_id, used(world, system=True))

    return Scene(
        lambda: str(attachment_steps.ready(file, "w", None, token=new_id(world.now), event=wanted())),
        beside={"attachment_steps.delete": _delete_file(world, file), "chats.delete": _delete_chat(world, chat)},
    )


def _uploads_summarized(world: World) -> Scene:
    chat = world.chat()
    file = world.ready(chat)

    def act() -> str:
        call = world.call()
        event = outbox.item(call, chat.chat_id, used(world, system=True))
        return str(attachment_steps.summarized(call, file, "About the moon.", event))

    return Scene(
        act,
        beside={
            "attachment_steps.summarized": act,
            "attachment_steps.delete": _delete_file(world, file),
            "turns.start": _send(world, chat, attachment_ids=(file.attachment_id,)),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _uploads_failed(world: World) -> Scene:
    chat = world.chat()
    file = world.uploaded(chat)
    return Scene(
        lambda: str(attachment_steps.failed(file, "w", "upload_failed", nothing_left=True, token=new_id(world.now))),
        beside={"attachment_steps.delete": _delete_file(world, file), "chats.delete": _delete_chat(world, chat)},
    )


def _vector_stores_claim(world: World) -> Scene:
    chat = world.chat()
    mine, other = world.uploaded(chat), world.file(chat)
    assert attachment_steps.take(other, "v", now=world.now, until=world.now + timedelta(minutes=5))

    def claims(file: Attachment, worker: str) -> Act:
        claim = world.claim(worker, chat=chat)
        return lambda: str(vector_stores.claim(claim, file, worker, token=new_id(world.now)))

    return Scene(
        claims(mine, "w"),
        beside={
            "vector_stores.claim": claims(other, "v"),
            "attachment_steps.delete": _delete_file(world, mine),
            "chats.delete": _delete_chat(world, chat),
        },
    )


def _vector_stores_take_over(world: World) -> Scene:
    chat = world.chat()
    dead = world.claimed(chat, until=timedelta())
    until = world.now + timedelta(minutes=1)
    return Scene(
        lambda: str(vector_stores.take_over(dead, "v", until)),
        beside={
            "vector_stores.take_over": lambda: str(vector_stores.take_over(dead, "u", until)),
            "vector_stores.name": lambda: str(vector_stores.name(dead, "w", "vs-1")),
            "vector_stores.mark_gone": lambda: str(vector_stores.mark_gone(dead, world.now)),
        },
    )


def _vector_stores_name(world: World) -> Scene:
    claim = world.claimed(world.chat())
    until = world.now + timedelta(minutes=1)
    return Scene(
        lambda: str(vector_stores.name(claim, "w", "vs-1")),
        beside={
            "vector_stores.take_over": lambda: str(vector_stores.take_over(claim, "v", until)),
            "vector_stores.mark_gone": lambda: str(vector_stores.mark_gone(claim, world.now)),
        },
    )


def _vector_stores_let_go(world: World) -> Scene:
    claim = world.claimed(world.chat())
    until = world.now + timedelta(minutes=1)
    return Scene(
        lambda: vector_stores.let_go(claim, "w", world.now),
        beside={"vector_stores.take_over": lambda: str(vector_stores.take_over(claim, "v", until))},
    )


def _attachments_settle(world: World) -> Scene:
    chat = world.chat()
    file = world.ready(chat)
    files.delete(world.call(), chat.chat_id, file.attachment_id)
    seen = stored(file)

    def settles(cleanup: Cleanup) -> Act:
        return lambda: str(attachment_steps.settle(seen, cleanup))

    done = settles(Cleanup(CleanupStatus.DONE, updated_at=world.now))
    failed = settles(Cleanup(CleanupStatus.PENDING, 1, "down", world.now))
    return Scene(done, beside={"attachment_steps.settle": failed})


def _vector_stores_mark_gone(world: World) -> Scene:
    claim = world.claimed(world.chat(), until=timedelta())
    until = world.now + timedelta(minutes=1)
    return Scene(
        lambda: str(vector_stores.mark_gone(claim, world.now)),
        beside={
            "vector_stores.mark_gone": lambda: str(vector_stores.mark_gone(claim, world.now)),
            "vector_stores.take_over": lambda: str(vector_stores.take_over(claim, "v", until)),
            "vector_stores.name": lambda: str(vector_stores.name(claim, "w", "vs-1")),
        },
    )


def _quota_correct(world: World) -> Scene:
    chat = world.chat()
    turn = world.turn(chat)
    month = f"{world.now:%Y-%m}-01"
    where = keys.quota(world.caller.tenant_id, world.caller.user_id, month)
    _added(world, where, total=7)
    account = QuotaAccount(world.caller.tenant_id, world.caller.user_id, month)
    reserved = turn.reserve.credits_micro
    found = [Difference(account, month[:7], "total", reserved + 7, reserved)]
    return Scene(
        lambda: str(quota.correct(account, found)),
        beside={"endings.finish": _finish(world, turn), "turns.start": _send(world, world.chat())},
        is_broken=True,
    )


def _ledger_book(world: World) -> Scene:
    event = used(world)

    def books() -> str:
        return str(usage_ledger.book(event, new_id(world.now), retention_days=400))

    return Scene(books, beside={"usage_ledger.book": books})


def _ledger_book_together(world: World) -> Scene:
    mine, others = used(world), used(world)

    def books() -> str:
        both = {new_id(world.now): mine, new_id(world.now): others}
        return str([*usage_ledger.book_together(both, retention_days=400).values()])

    def books_one() -> str:
        return str(usage_ledger.book(others, new_id(world.now), retention_days=400))

    return Scene(books, beside={"usage_ledger.book": books_one})


def _ledger_correct(world: World) -> Scene:
    tenant, day = world.caller.tenant_id, world.now.date().isoformat()
    usage_ledger.book(used(world), new_id(world.now), retention_days=400)
    right = next(one for one in usage_ledger.totals(tenant, day, day) if one.user_id is None)
    _added(world, keys.usage(tenant, day), micro=1)
    seen = next(one for one in usage_ledger.totals(tenant, day, day) if one.user_id is None).used
    more = used(world)
    return Scene(
        lambda: str(usage_ledger.correct(right, seen, retention_days=400)),
        beside={"usage_ledger.book": lambda: str(usage_ledger.book(more, new_id(world.now), retention_days=400))},
    )


def _outbox_once(world: World) -> Scene:
    # Where events are that belong to no chat: the scene looks there, too.
    world.chats.add(ChatId("decision_refused"))
    refusal, told = refusal_audit.Refusal(world.caller, "quota", "quota_exceeded"), world.now

    def act() -> str:
        return str(refusal_audit.RefusalTeller().write(refusal, told, ""))

    return Scene(act, beside={"outbox.once": act})


def _policies_publish(world: World) -> Scene:
    version = next(_versions)
    world.version = version

    def publishes(title: str) -> Act:
        policy = a_policy(MODEL.model_copy(update={"display_name": title}), policy_version=version)
        return lambda: policies.publish(policy, at=world.now, by="me", token=new_id(world.now)) and "ok"

    return Scene(publishes("Mine"), beside={"policies.publish": publishes("Theirs")})


def _authorizations_publish(world: World) -> Scene:
    tenant, caller = world.caller.tenant_id, world.caller.user_id
    world.chats.add(ChatId("authorization_published"))

    def publishes(text: str) -> Act:
        own = own_policies.OwnText(1, text, world.now, caller)
        event = AuthorizationPublished(**_by(world), version=1)
        return lambda: own_policies.publish(tenant, own, None, event, token=new_id(world.now))

    return Scene(publishes("mine"), beside={"authorizations.publish": publishes("theirs")})


def _providers_publish(world: World) -> Scene:
    tenant = world.caller.tenant_id
    world.chats.add(ChatId("providers_published"))

    def publishes(by: str) -> Act:
        def act() -> str:
            publication = provider_versions.Publication(by, world.now, new_id(world.now))
            provider_versions.publish_providers(tenant, b"{}", publication, previous=None)
            return "ok"

        return act

    return Scene(publishes("me"), beside={"provider_versions.publish_providers": publishes("them")})


def _reports_keep_findings(world: World) -> Scene:
    found = summed([ReconcileFinding("ledger", world.caller.tenant_id, "a total", "1", "2")])
    return Scene(lambda: reconcile_reports.keep_findings(world.now, world.caller.tenant_id, found))


def _reports_keep_run(world: World) -> Scene:
    at = world.now + timedelta(seconds=next(_versions))
    world.run = keys.reconciled(None, at)
    run = ReconcileRun(at, 1.5, turns=1, accounts=1, entries=1, repaired=0)
    return Scene(lambda: reconcile_reports.keep_run(run, summed([])))


def _a_grant(world: World) -> tuple[grants.Grant, dict[str, Any]]:
    world.chats |= {ChatId("grant_create"), ChatId("grant_revoke")}
    grant_id, caller = new_id(world.now), world.caller
    until = world.now + timedelta(hours=1)
    grant = grants.Grant(caller.tenant_id, grant_id, UserId("helper"), until, "a ticket", caller.user_id, world.now)
    told = {"grant_id": grant_id, "support_user_id": "helper", "until": until, "reason": "a ticket"}
    return grant, _by(world) | told


def _grants_create(world: World) -> Scene:
    grant, told = _a_grant(world)
    event, token = GrantChanged(event_type="grant_create", **told), new_id(world.now)
    return Scene(lambda: grants.create(grant, event, token=token))


def _grants_delete(world: World) -> Scene:
    grant, told = _a_grant(world)
    grants.create(grant, GrantChanged(event_type="grant_create", **told), token=new_id(world.now))
    event = GrantChanged(event_type="grant_revoke", **told)

    def act() -> str:
        return str(grants.delete(grant, event, token=new_id(world.now)))

    return Scene(act, beside={"grants.delete": act})


def _an_api_key(world: World) -> tuple[ApiKey, Callable[[str], OutboxItem]]:
    world.chats.add(ChatId("api_key"))
    key = ApiKey(
        tenant_id=world.caller.tenant_id,
        key_id="abcdefghjkmnpqrs",
        name="a service",
        account="service",
        scopes=("chat:read",),
        created_at=world.now,
        created_by=world.caller.user_id,
        expires_at=world.now + timedelta(days=1),
    )

    def event(kind: Any) -> OutboxItem:
        told: dict[str, Any] = {"api_key_id": key.key_id, "name": key.name, "account": key.account}
        told["scopes"] = list(key.scopes)
        changed = ApiKeyChanged(event_type=kind, expires_at=key.expires_at, **_by(world), **told)
        return outbox.item(world.call(), ChatId("api_key"), changed)

    return key, event


def _api_keys_add(world: World) -> Scene:
    key, event = _an_api_key(world)

    def act() -> str:
        return str(api_keys.add(world.call(), key, b"digest", event("api_key_create")))

    return Scene(act, beside={"api_keys.add": act})


def _api_keys_revoke(world: World) -> Scene:
    key, event = _an_api_key(world)
    assert api_keys.add(world.call(), key, b"digest", event("api_key_create"))

    def act() -> str:
        return str(api_keys.revoke(world.call(), key.key_id, event("api_key_revoke")))

    return Scene(act, beside={"api_keys.revoke": act})


def _api_keys_used(world: World) -> Scene:
    key, event = _an_api_key(world)
    assert api_keys.add(world.call(), key, b"digest", event("api_key_create"))
    at = world.now + timedelta(minutes=1)

    def revoke() -> str:
        return str(api_keys.revoke(world.call(), key.key_id, event("api_key_revoke")))

    return Scene(lambda: str(api_keys.used(key, at, before=world.now)), beside={"api_keys.revoke": revoke})


def _followers_take(world: World) -> Scene:
    def act() -> str:
        return "taken" if followers.take(world.call(), 1) else "none"

    return Scene(act, beside={"followers.take": act})


def _followers_renew(world: World) -> Scene:
    place = followers.take(world.call(), 1)
    at = world.now + timedelta(seconds=30)

    def act() -> str:
        return "lost" if followers.renew(place, at) is None else "renewed"

    return Scene(act, beside={"followers.give_back": lambda: followers.give_back(place)})


def _followers_give_back(world: World) -> Scene:
    place = followers.take(world.call(), 1)
    at = world.now + timedelta(seconds=30)
    renew: Act = lambda: "lost" if followers.renew(place, at) is None else "renewed"  # noqa: E731
    return Scene(lambda: followers.give_back(place), beside={"followers.renew": renew})


def _by(world: World) -> dict[str, Any]:
    """What every event of an administrator says."""
    caller = world.caller
    return {
        "tenant_id": caller.tenant_id,
        "timestamp": world.now,
        "requester_type": "user",
        "actor_user_id": caller.user_id,
    }


def used(world: World, *, system: bool = False) -> UsageEvent:
    """What a turn of the tenant has used, or something that the system did by itself."""
    values: dict[str, Any] = {
        "tenant_id": world.caller.tenant_id,
        "user_id": None if system else world.caller.user_id,
        "chat_id": str(uuid4()),
        "turn_id": None if system else str(uuid4()),
        "request_id": str(uuid4()),
        "requester_type": "system" if system else "user",
        "selected_model": "small",
        "effective_model": "small",
        "terminal_state": "completed",
        "billing_outcome": "system_task" if system else "completed",
        "settlement_method": "none" if system else "actual",
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "reserved_credits_micro": 0,
        "actual_credits_micro": 0 if system else 7,
        "committed_credits_micro": 0 if system else 7,
        "policy_version_applied": 1,
        "system_task_type": "thread_summary_update" if system else None,
        "timestamp": world.now,
    }
    return UsageEvent(**values)


def _added(world: World, where: keys.Key, **added: int) -> None:
    """Adds to attributes of an item, behind the product's back."""
    table: Any = boto3.resource("dynamodb", endpoint_url=world.store.endpoint, region_name=world.store.region).Table(
        world.store.conversation_table
    )
    for name, value in added.items():
        table.update_item(
            Key=where._asdict(),
            UpdateExpression="ADD #name :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )


SCENES: dict[str, Callable[[World], Scene]] = {
    "chats.create": _chats_create,
    "chats.rename": _chats_rename,
    "titles.give": _titles_give,
    "chats.delete": _chats_delete,
    "chats.postpone": _chats_postpone,
    "turns.start": _turns_start,
    "turn_mutations.supersede": _turn_mutations_supersede,
    "turn_mutations.delete": _turn_mutations_delete,
    "leases.take_over": _leases_take_over,
    "leases.progress": _leases_progress,
    "leases.request_cancel": _leases_request_cancel,
    "endings.finish": _endings_finish,
    "stream_record.store": _record_store,
    "purge.contents": _purge_contents,
    "purge.needed": _purge_needed,
    "summaries.write": _summaries_write,
    "reactions.write": _reactions_write,
    "attachment_steps.create": _uploads_create,
    "attachment_steps.delete": _uploads_delete,
    "attachment_steps.take": _uploads_take,
    "attachment_steps.release": _uploads_release,
    "attachment_steps.upload_begins": _uploads_upload_begins,
    "attachment_steps.uploaded": _uploads_uploaded,
    "attachment_steps.enters_store": _uploads_enters_store,
    "attachment_steps.ready": _uploads_ready,
    "attachment_steps.summarized": _uploads_summarized,
    "attachment_steps.failed": _uploads_failed,
    "vector_stores.claim": _vector_stores_claim,
    "vector_stores.take_over": _vector_stores_take_over,
    "vector_stores.name": _vector_stores_name,
    "vector_stores.let_go": _vector_stores_let_go,
    "attachment_steps.settle": _attachments_settle,
    "vector_stores.mark_gone": _vector_stores_mark_gone,
    "quota.correct": _quota_correct,
    "usage_ledger.book": _ledger_book,
    "usage_ledger.book_together": _ledger_book_together,
    "usage_ledger.correct": _ledger_correct,
    "outbox.once": _outbox_once,
    "policies.publish": _policies_publish,
    "authorizations.publish": _authorizations_publish,
    "provider_versions.publish_providers": _providers_publish,
    "reconcile_reports.keep_findings": _reports_keep_findings,
    "reconcile_reports.keep_run": _reports_keep_run,
    "grants.create": _grants_create,
    "grants.delete": _grants_delete,
    "api_keys.add": _api_keys_add,
    "api_keys.revoke": _api_keys_revoke,
    "api_keys.used": _api_keys_used,
    "followers.take": _followers_take,
    "followers.renew": _followers_renew,
    "followers.give_back": _followers_give_back,
}
