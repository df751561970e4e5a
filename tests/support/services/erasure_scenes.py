"""Scenes of erasures, and with them every row of the table of architecture 5."""

from dataclasses import replace

from pydantic import SecretStr

from minichat.domain.erasure import Erasure, Progress
from minichat.domain.identity import ChatId, UserId
from minichat.domain.policy_layers import UserLayer
from minichat.events.access import AuthorizationPublished
from minichat.events.erasures import ErasureCompleted
from minichat.services import chats, erasing
from minichat.storage import authorizations as own_policies
from minichat.storage import erasures, keys, outbox, policies, usage_ledger
from minichat.storage.items import batch_get
from minichat.storage.keys import Key, Raw
from minichat.storage.persons import Whose
from tests.support.domain.builders import new_id
from tests.support.services import scenes
from tests.support.services.scenes import RULES, World, used
from tests.support.services.walk import Act, Scene

SETTINGS = RULES.settings.model_copy(update={"manifest_secret": SecretStr("of tests")})
CHANGING = frozenset({"pseudonym", "manifest", "published_by", "user"})


def _erasure(world: World) -> Erasure:
    world.chats |= {ChatId("erasure_requested"), ChatId("chat-cleanup"), ChatId("erasure_completed")}
    return erasing.accept(world.call(), world.caller.user_id, SETTINGS)


def _accept(world: World) -> Scene:
    chat = world.chat()
    world.chats |= {ChatId("erasure_requested"), ChatId("chat-cleanup")}

    def act() -> str:
        erasing.accept(world.call(), world.caller.user_id, SETTINGS)
        return "ok"

    return Scene(
        act,
        beside={
            "erasures.accept": act,
            "turns.start": scenes._send(world, chat),
            "chats.create": lambda: chats.create(world.call(), chats.NewChat(), RULES) and "ok",
        },
        changes=CHANGING,
    )


def _went_on(world: World) -> Scene:
    erasure = _erasure(world)

    def act() -> str:
        return str(erasures.went_on(erasure, Progress(("p", "s"), met=1)))

    return Scene(act, beside={"erasures.went_on": act}, changes=CHANGING)


def _removed(world: World) -> Scene:
    erasure = _erasure(world)
    place = policies.of_user(erasure.tenant_id, world.caller.user_id)
    world.chats.add(ChatId("policy"))
    policies.publish(UserLayer(), place, at=world.now, by="boss", token=new_id(world.now))
    raw = _stored(place.version(1))

    def act() -> str:
        return str(erasures.removed(erasure, [raw]))

    return Scene(act, beside={"erasures.removed": act}, changes=CHANGING)


def _renamed(world: World) -> Scene:
    erasure = _erasure(world)
    tenant, whose = erasure.tenant_id, Whose(erasure.tenant_id, world.caller.user_id)
    own = own_policies.OwnText(1, "", world.now, world.caller.user_id)
    world.chats.add(ChatId("authorization_published"))
    event = AuthorizationPublished(**scenes._by(world), version=1)
    own_policies.publish(tenant, own, None, event, token=new_id(world.now))
    raw = _stored(keys.authorization_version(tenant, 1))

    def act() -> str:
        return str(erasures.renamed(erasure, raw, whose))

    return Scene(act, beside={"erasures.renamed": act}, changes=CHANGING)


def _complete(world: World) -> Scene:
    erasure = _erasure(world)
    last = erasures.left_for_last(Whose(erasure.tenant_id, world.caller.user_id))
    done = replace(erasure, completed_at=world.now, manifest="m", counts={"chats": 0})

    def act() -> str:
        event = ErasureCompleted(
            tenant_id=erasure.tenant_id,
            timestamp=world.now,
            requester_type="system",
            erasure_id=erasure.erasure_id,
            scope="user",
            counts={},
        )
        item = outbox.of_tenant(event, new_id(world.now))
        return str(erasures.complete(erasure, done, last, item))

    return Scene(act, beside={"erasures.complete": act}, changes=CHANGING)


def _move(world: World) -> Scene:
    erasure, event = _erasure(world), used(world)
    tenant, user, day = erasure.tenant_id, world.caller.user_id, world.now.date().isoformat()
    usage_ledger.book(event, new_id(world.now), retention_days=400)
    (total,) = usage_ledger.of_user(tenant, user, [day])
    entries = list(usage_ledger.entries(tenant, day))

    def act() -> str:
        counted = erasures.counted(erasure, {"ledger_entries_kept": 1})
        return str(usage_ledger.move(total, entries, UserId("mck:~0"), counted))

    def book() -> str:
        return str(usage_ledger.book(used(world), new_id(world.now), retention_days=400))

    beside: dict[str, Act] = {"usage_ledger.move": act, "usage_ledger.book": book}
    return Scene(act, beside=beside, changes=CHANGING)


def _stored(key: Key) -> Raw:
    return batch_get([key])[key]


SCENES = {
    **scenes.SCENES,
    "erasures.accept": _accept,
    "erasures.went_on": _went_on,
    "erasures.removed": _removed,
    "erasures.renamed": _renamed,
    "erasures.complete": _complete,
    "usage_ledger.move": _move,
}
