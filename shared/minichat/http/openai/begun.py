"""A request of this door as a turn: begun, or found where it is sent again, with its events from the first one on."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from minichat import greenlets
from minichat.domain.chat import Chat
from minichat.domain.errors import ChatNotFound, NotLatestTurn, RequestIdConflict
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.policy import Model
from minichat.domain.turn import Turn
from minichat.http.deps import AppDeps
from minichat.http.openai import ids
from minichat.http.openai.inquiry import Inquiry
from minichat.http.openai.parameters import check_sampling, check_web_search, refuse
from minichat.observability import note
from minichat.services import chats, generate, repeated_turns
from minichat.services.channel import Numbered
from minichat.services.chats import NewChat
from minichat.services.generate import Answering
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send, send_first
from minichat.services.stream_resume import Resumed, follow, replay, resume, resumed
from minichat.storage import turns


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn, whether its chat is temporary, and its events; `leave` says that nobody reads them any more."""

    turn: Turn
    is_temporary: bool
    events: AsyncIterator[Sequence[Numbered]]
    leave: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Again:
    """What tells a request that is sent again: its key, if the caller gave one, and how often the client's library says
    to have sent it before."""

    key: str | None
    count: int


async def begun(call: Call, app: AppDeps, asked: Inquiry, again: Again) -> Begun:
    """The turn that answers a request. Raises what `send` and `send_first` raise."""
    ready = await greenlets.run(_prepared, call, asked, again, app.rules_of(call.caller))
    is_temporary = ready.is_temporary
    try:
        outcome = await generate.admitted(greenlets.run(ready.admission), call, app.machine)
    except NotLatestTurn:
        refuse("previous_response_id", "Only the latest response of a conversation is continued.", "not_latest_turn")
    except RequestIdConflict as conflict:
        if conflict.request_id is None:
            raise
        known = await greenlets.run(repeated_turns.by_request_id, call, ready.command, app.settings)
        if known is None:
            raise
        return followed(
            call, app, await greenlets.run(resumed, call, known, 0, app.settings), is_temporary=is_temporary
        )
    if isinstance(outcome, Replay):
        return followed(call, app, replay(call, outcome.turn, app.settings), is_temporary=is_temporary)
    note(chat_id=outcome.turn.chat_id, request_id=outcome.turn.request_id, turn_id=outcome.turn.turn_id, replay=False)
    return _told(app, asked, outcome, is_temporary=is_temporary)


def _told(app: AppDeps, asked: Inquiry, outcome: Answering, *, is_temporary: bool) -> Begun:
    channel = outcome.channel
    if asked.background:
        # Nobody is expected to stay.
        channel.on_leave = None
    events = channel.read(app.settings.streaming.ping_interval_seconds)
    return Begun(outcome.turn, is_temporary, events, channel.leave)


def followed(call: Call, app: AppDeps, found: Resumed, *, is_temporary: bool) -> Begun:
    """A known turn, told again from its first event, and followed while it runs."""
    turn = found.turn
    note(chat_id=turn.chat_id, request_id=turn.request_id, turn_id=turn.turn_id, replay=True)
    return Begun(turn, is_temporary, follow(call, found, app.settings, app.machine.clock))


async def told_again(call: Call, app: AppDeps, first: Begun) -> Begun:
    """The same turn from its first event again: whoever read it has lost its end."""
    turn = first.turn
    found = await greenlets.run(resume, call, turn.chat_id, turn.request_id, 0, app.settings)
    return followed(call, app, found, is_temporary=first.is_temporary)


@dataclass(frozen=True, slots=True)
class Ready:
    """What begins a turn, its command, and whether its chat is temporary."""

    admission: Callable[[], RunningTurn | Replay]
    command: SendMessage
    is_temporary: bool


def _prepared(call: Call, asked: Inquiry, again: Again, rules: Rules) -> Ready:
    if asked.previous is None and asked.conversation is None:
        chat_id = ids.new_chat_id(call, again.key)
        _check_model(asked, rules.policy.model_for_new_chat(asked.model))
        command = _command(call, asked, chat_id, again.key, None)
        wish = NewChat(model_id=asked.model, temporary=asked.is_temporary)
        return Ready(partial(send_first, call, command, wish, rules), command, asked.is_temporary)
    chat, follows = _continued(call, asked)
    if asked.model not in {None, chat.model}:
        refuse("model", f"A conversation keeps its model, which is {chat.model!r} here.", "invalid_value")
    own = next((one for one in rules.policy.enabled_models() if one.id == chat.model), None)
    if own is not None:
        _check_model(asked, own)
    command = _command(call, asked, chat.chat_id, again.key, follows)
    if again.key is None and again.count:
        command = _sent_before(call, chat, command)
    return Ready(partial(send, call, command, rules), command, chat.is_temporary)


def _command(call: Call, asked: Inquiry, chat_id: ChatId, key: str | None, follows: RequestId | None) -> SendMessage:
    request_id = ids.new_request_id(call, chat_id, key)
    return SendMessage(chat_id, asked.content, request_id, asked.attachment_ids, asked.web_search, asked.aside, follows)


def _check_model(asked: Inquiry, model: Model) -> None:
    check_sampling(asked.sampling, model)
    if asked.web_search:
        check_web_search(model, "tools")


def _continued(call: Call, asked: Inquiry) -> tuple[Chat, RequestId | None]:
    """The chat that the request continues, and the turn that must be its latest. Raises InvalidRequest."""
    param, named = "conversation", asked.conversation
    where, follows = None if named is None else ids.chat_of(named), None
    if asked.previous is not None:
        param, named = "previous_response_id", asked.previous
        where, follows = ids.turn_of(asked.previous) or (None, None)
    chat = None
    if where is not None:
        try:
            chat = chats.get(call, where)
        except ChatNotFound:
            chat = None
    if chat is None or (follows is not None and chat.is_temporary):
        why = "There is none of this id that is stored." if follows is None else "It is not there, or was not stored."
        refuse(param, why, "conversation_not_found" if param == "conversation" else "previous_response_not_found")
    return chat, follows


def _sent_before(call: Call, chat: Chat, command: SendMessage) -> SendMessage:
    """The command under the id of the turn that its client began before and lost, if the chat's latest is that one.

    OpenAI's libraries send a request again that was cut, with a count and no key.
    """
    if chat.latest_request_id is None:
        return command
    _, latest = turns.read(call.caller.tenant_id, chat.chat_id, chat.latest_request_id)
    if latest is None or latest.fingerprint != command.fingerprint:
        return command
    if command.follows not in {None, latest.prev_request_id}:
        return command
    return replace(command, request_id=latest.request_id)
