"""A chat's one vector store at a provider: a worker claims it under a condition, and makes it once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.cleanup import Failure
from minichat.domain.identity import Clock, NewId
from minichat.pauses import growing
from minichat.providers.files import Account, Files
from minichat.storage import vector_stores as stored

CLAIM = timedelta(seconds=60)
"""How long a claim keeps others away: longer than a provider may take to answer."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.6


@dataclass(frozen=True, slots=True)
class Pause:
    """How to wait, and until when; `look` raises once nobody wants the result."""

    clock: Clock
    sleep: Callable[[float], object]
    ends_at: datetime
    look: Callable[[], None]


def of_chat(attachment: Attachment, worker: str, account: Account, pause: Pause, new_id: NewId) -> str | Failure:
    """The provider's id of the chat's vector store; makes the store if there is none.

    If another worker has claimed it, waits for that worker, and takes over when it is late.
    Raises ServiceUnavailable, and what the pause's `look` raises.
    """
    where = attachment.tenant_id, attachment.chat_id, attachment.storage_backend
    pauses = growing(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    while True:
        now = pause.clock()
        store = stored.read(*where)
        if store is None:
            claim = VectorStore(*where, claimed_by=worker, claimed_at=now, claimed_until=now + CLAIM)
            if stored.claim(claim, attachment, worker, token=new_id(now)):
                return _made(claim, worker, account, pause.clock)
        elif store.gone_at is not None:
            return Failure("the chat is being cleaned up", may_pass=True)
        elif store.vector_store_id is not None:
            return store.vector_store_id
        elif is_free(store, now):
            # A dead claim may be old, and taking it over leads to a new store: it must still be wanted.
            pause.look()
            if stored.take_over(store, worker, now + CLAIM):
                return _found_or_made(store, worker, account, pause.clock)
        if pause.clock() >= pause.ends_at:
            return Failure("the vector store is not made yet", may_pass=True)
        pause.sleep(next(pauses))
        pause.look()


def is_free(store: VectorStore, now: datetime) -> bool:
    """Whether no worker can be making the store: it is made, or its claim has expired."""
    return store.vector_store_id is not None or store.claimed_until is None or store.claimed_until <= now


def delete(store: VectorStore, files: Files) -> Failure | None:
    """Deletes what the provider has for a claim: the store, or those that a worker made and died before naming."""
    account = Account(files, store.tenant_id, store.provider)
    if store.vector_store_id is not None:
        return account.delete_vector_store(store.vector_store_id)
    if store.claimed_at is None:
        return None
    found = account.find_vector_stores(name_of(store), store.claimed_at)
    if isinstance(found, Failure):
        return found
    failures = [account.delete_vector_store(one) for one in found]
    return next((failure for failure in failures if failure is not None), None)


def name_of(store: VectorStore) -> str:
    """The store's name at the provider."""
    return f"minichat-{store.chat_id}"


def _found_or_made(store: VectorStore, worker: str, account: Account, clock: Clock) -> str | Failure:
    """An earlier worker may have made it, and died before naming it."""
    found = account.find_vector_stores(name_of(store), store.claimed_at or clock())
    if isinstance(found, Failure):
        stored.let_go(store, worker, clock())
        return found
    if not found:
        return _made(store, worker, account, clock)
    for another in found[1:]:
        account.delete_vector_store(another)
    return _named(store, worker, account, found[0])


def _made(store: VectorStore, worker: str, account: Account, clock: Clock) -> str | Failure:
    made = account.make_vector_store(name_of(store))
    if isinstance(made, Failure):
        stored.let_go(store, worker, clock())
        return made
    return _named(store, worker, account, made)


def _named(store: VectorStore, worker: str, account: Account, made: str) -> str | Failure:
    if stored.name(store, worker, made):
        return made
    now = stored.read(store.tenant_id, store.chat_id, store.provider)
    if now is not None and now.vector_store_id == made:
        return made  # our write took effect: its answer was lost, and the repetition was refused
    failure = account.delete_vector_store(made)
    return failure or Failure("the claim was lost", may_pass=True)
