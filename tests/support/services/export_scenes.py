"""Scenes of exports, and with them every row of the table of architecture 5."""

from dataclasses import replace

from minichat.domain.export import DataExport, ExportProgress
from minichat.domain.identity import ChatId
from minichat.events.exports import ExportEnded
from minichat.services import chats, exporting
from minichat.storage import exports, outbox
from tests.support.domain.builders import new_id
from tests.support.services import erasure_scenes
from tests.support.services.erasure_scenes import SETTINGS
from tests.support.services.scenes import World
from tests.support.services.walk import Scene

CHANGING = frozenset({"export", "busy_until", "ended_at"})


def _export(world: World) -> DataExport:
    chat = world.chat()
    world.chats |= {ChatId("export_requested"), ChatId("export_ended")}
    made = exporting.of_chat(world.call(), chat.chat_id, SETTINGS)
    world.chats.add(ChatId(made.export_id))
    return made


def _stopped(world: World, export: DataExport) -> str:
    return str(exports.stop(export, world.now))


def _accept(world: World) -> Scene:
    world.chats.add(ChatId("export_requested"))

    def act() -> str:
        made = exporting.accept(world.call(), world.caller.user_id, SETTINGS)
        world.chats.add(ChatId(made.export_id))
        return "ok"

    erased = erasure_scenes._accept(world).act
    return Scene(act, beside={"exports.accept": act, "erasures.accept": erased}, changes=CHANGING)


def _begins(world: World) -> Scene:
    export = _export(world)
    until = world.now

    def act() -> str:
        return str(exports.begins(export, until))

    return Scene(act, beside={"exports.stop": lambda: _stopped(world, export)}, changes=CHANGING)


def _went_on(world: World) -> Scene:
    export = _export(world)

    def act() -> str:
        return str(exports.went_on(export, ExportProgress(("p", "s"))))

    beside = {"exports.went_on": act, "exports.stop": lambda: _stopped(world, export)}
    return Scene(act, beside=beside, changes=CHANGING)


def _ended(world: World) -> Scene:
    export = _export(world)
    assert export.chat_id is not None
    (chat,) = (one for one in world.chats if one == export.chat_id)

    def act() -> str:
        event = ExportEnded(
            tenant_id=export.tenant_id,
            timestamp=world.now,
            requester_type="system",
            export_id=export.export_id,
            scope="chat",
            outcome="ready",
            counts={},
        )
        done = replace(export, state="ready", ended_at=world.now)
        return str(exports.ended(export, done, outbox.of_tenant(event, new_id(world.now))))

    def delete() -> str:
        chats.delete(world.call(), chat)
        return "ok"

    beside = {"exports.ended": act, "exports.stop": lambda: _stopped(world, export), "chats.delete": delete}
    return Scene(act, beside=beside, changes=CHANGING)


def _stop(world: World) -> Scene:
    export = _export(world)

    def act() -> str:
        return _stopped(world, export)

    return Scene(act, beside={"exports.stop": act}, changes=CHANGING)


SCENES = {
    **erasure_scenes.SCENES,
    "exports.accept": _accept,
    "exports.begins": _begins,
    "exports.went_on": _went_on,
    "exports.ended": _ended,
    "exports.stop": _stop,
}
