"""`minichat chat`: a conversation with any deployment, from a terminal or a script."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from minichat.cli import target
from minichat.cli.canceller import Canceller
from minichat.cli.output import table
from minichat.cli.screen import Screen
from minichat.local.provider_words import ProviderWords
from minichat.settings import SettingsError
from minichat_client import (
    Answer,
    CitationsEvent,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    MiniChat,
    MiniChatError,
    Refused,
    StreamStartedEvent,
    ToolEvent,
)

ATTEMPTS = 6
"""To reach a server that was lost: sixteen seconds, as somebody waits."""
LISTED = 20
IN_ONE_PIECE = 0.1
"""Of the time that an answer took: the part after its first event, below which it was not streamed."""


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "chat",
        help="talk to a deployment",
        description="Talks to a deployment over HTTP. Ctrl-C cancels an answer, /help lists what can be said.",
    )
    parser.add_argument("--url", type=target.a_url, help="the API, such as https://api.example.org/mini-chat/v1")
    target.add_token_to(parser)
    parser.add_argument("--chat", type=_text, metavar="ID", help="go on with this chat (default: a new one)")
    parser.add_argument("--model", type=_text, help="for new chats (default: the deployment's)")
    parser.add_argument("--web-search", action="store_true", help="let answers search the web")
    parser.add_argument(
        "--attach", type=Path, action="append", default=[], metavar="FILE", help="give this to the chat"
    )
    parser.add_argument(
        "--timing", action="store_true", help="say when an answer began and ended, and fail when it was not streamed"
    )
    parser.add_argument("--message", "-m", type=_text, help="send this (- reads it), print the answer, and end")
    target.add_to(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0; 1 when the deployment refuses, cannot be reached or, without a terminal, could not answer everything."""
    url, token = _where(options)
    screen = Screen()
    with MiniChat(url, token, attempts=ATTEMPTS, on_reconnect=lambda why: screen.note(f"{why} Trying again.")) as api:
        talk = Talk(api, screen, options)
        try:
            if options.chat is not None:
                talk.open(options.chat, join=options.message is None)
            for file in options.attach:
                talk.attach(str(file))
            if options.message is not None:
                answered = talk.say(sys.stdin.read() if options.message == "-" else options.message)
                screen.note(f"chat {talk.chat_id}")
                return 0 if answered else 1
            if talk.chat_id is None:
                api.models()  # fails early when nobody answers or the token is bad
            return _conversation(talk, screen, token)
        except (MiniChatError, OSError) as error:
            screen.note(_told(error, token))
            return 1
        except KeyboardInterrupt:
            return 1


def _where(options: argparse.Namespace) -> tuple[str, str | None]:
    """URL and token, from the options or from the local stack's state."""
    about = target.attach(options)
    url = options.url or about.get("base_url")
    if url is None:
        raise SettingsError(
            "Say where to: --url URL, --stack NAME, or --local for the stack that runs on this machine."
        )
    return url, target.token_of(options, about.get("token"))


def _text(argument: str) -> str:
    """An argument as UTF-8; invalid bytes are replaced."""
    return os.fsencode(argument).decode(errors="replace")


def _told(error: Exception, token: str | None) -> str:
    if isinstance(error, Refused) and error.status == 401:
        advice = "Give one with --token-file or --token" if token is None else "It may have expired: give another"
        return f"{error} {advice}."
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _conversation(talk: "Talk", screen: Screen, token: str | None) -> int:
    """Reads and answers until the end of input; without a terminal, 1 when something could not be answered."""
    if screen.interactive:
        # Imported for its side effect: lines can be edited and recalled.
        with suppress(ImportError):
            import readline  # noqa: F401, PLC0415
        screen.note(f"Mini Chat at {talk.api.base_url}. /help lists what can be said, /quit ends.")
    failed = False
    while True:
        try:
            line = input("> " if screen.interactive else "").strip()
            if line == "/quit":
                break
            if line:
                failed |= not _obeyed(talk, screen, line)
        except EOFError:
            if screen.interactive:
                screen.line()
            break
        except KeyboardInterrupt:
            screen.line()
        except (MiniChatError, OSError) as error:
            failed = True
            screen.note(_told(error, token))
    return 1 if failed and not screen.interactive else 0


def _obeyed(talk: "Talk", screen: Screen, line: str) -> bool:
    if not line.startswith("/") or line.startswith("//"):
        return talk.say(line.removeprefix("/"))
    name, _, argument = line.partition(" ")
    command = _COMMANDS.get(name)
    if command is None:
        screen.note(f"There is no {name}: /help lists what there is.")
        return False
    return command[0](talk, argument.strip()) is not False


class Talk:
    """A user at a chat; the chat is made when the first message is sent."""

    def __init__(self, api: MiniChat, screen: Screen, options: argparse.Namespace) -> None:
        self.api = api
        self.chat_id: str | None = None
        self._screen = screen
        self._model: str | None = options.model
        self._web_search: bool = options.web_search
        self._timing: bool = options.timing
        self._attached: list[str] = []
        here = options.url is None and target.is_local(options)
        self._words = ProviderWords(target.state_folder(options)) if here else None

    def say(self, content: str) -> bool:
        """Sends a message and prints the answer; False when there was none."""
        chat_id = self.chat_id or self.new("")
        sent = self.api.send(chat_id, content, attachments=self._attached, web_search=self._web_search)
        answered = self._answered(chat_id, sent)
        self._attached = []
        return answered

    def attach(self, path: str) -> bool:
        """Gives the chat a file, and waits until it is ready; the next message is sent with it."""
        if not path:
            self._screen.note("Say which file: /attach FILE.")
            return False
        attachment = self.api.attach(self.chat_id or self.new(""), path)
        self._attached.append(attachment.id)
        self._screen.note(f"{attachment.filename} goes with the next message.")
        return True

    def retry(self, content: str) -> bool:
        """Has the latest message answered again; with content, another message in its place."""
        latest = self._latest()
        if self.chat_id is None or latest is None:
            return False
        instead = self.api.edit(self.chat_id, latest, content) if content else self.api.retry(self.chat_id, latest)
        return self._answered(self.chat_id, instead)

    def edit(self, content: str) -> bool:
        """Has another message answered instead of the latest one."""
        if not content:
            self._screen.note("Say what it should have been: /edit TEXT.")
            return False
        return self.retry(content)

    def delete(self, _: str) -> bool:
        """Deletes the latest turn: the message and its answer."""
        latest = self._latest()
        if self.chat_id is None or latest is None:
            return False
        self.api.delete_turn(self.chat_id, latest)
        self._screen.note("The last message and its answer are deleted.")
        return True

    def cancel(self, _: str) -> bool:
        """Cancels the answer that runs in this chat, wherever it began."""
        chat = None if self.chat_id is None else self.api.chat(self.chat_id)
        if chat is None or chat.running_request_id is None:
            self._screen.note("Nothing runs in this chat.")
            return False
        self.api.cancel(chat, chat.running_request_id)
        self._screen.note("It will end within two seconds.")
        return True

    def new(self, title: str) -> str:
        """Makes a chat, goes on in it, and returns its id."""
        chat = self.api.create_chat(title=title or None, model=self._model)
        self.chat_id, self._attached = chat.id, []
        if title:
            self._screen.note(f"chat {self.chat_id}, {chat.model}")
        return self.chat_id

    def open(self, chat_id: str, *, join: bool = True) -> bool:
        """Goes on with a chat, and joins the answer that runs in it."""
        chat = self.api.chat(chat_id)
        self.chat_id, self._attached = chat.id, []
        self._screen.note(f"{chat.title or 'A chat without a title'}: {chat.message_count} messages")
        running = chat.running_request_id
        return self._answered(chat.id, self.api.resume(chat, running)) if running and join else True

    def chats(self, _: str) -> None:
        """Lists the chats, the most recently active first."""
        found = list(islice(self.api.chats(page_size=LISTED + 1), LISTED + 1))
        rows = [
            (f"{chat.id}{' *' if chat.id == self.chat_id else ''}", chat.message_count, chat.model, chat.title or "")
            for chat in found[:LISTED]
        ]
        self._screen.line(table(("chat", "messages", "model", "title"), rows))
        if len(found) > LISTED:
            self._screen.note(f"These are the latest {LISTED}.")

    def history(self, _: str) -> None:
        """Prints the latest messages."""
        if self.chat_id is None:
            self._screen.note("Nothing was said yet.")
            return
        newest = self.api.messages(self.chat_id, newest_first=True, page_size=LISTED + 1)
        found = list(islice(newest, LISTED + 1))
        if len(found) > LISTED:
            self._screen.note(f"The latest {LISTED} messages:")
        for message in reversed(found[:LISTED]):
            self._screen.line(f"{message.role}: {message.content}")

    def models(self, _: str) -> None:
        """Lists the models that a new chat may have."""
        rows = [
            (model.model_id, model.tier, model.multiplier_display, model.display_name) for model in self.api.models()
        ]
        self._screen.line(table(("model", "tier", "price", "name"), rows))

    def quota(self, _: str) -> None:
        """Prints what is used and left."""
        rows = [
            (
                tier.tier,
                period.period,
                f"{period.used_credits_micro / 1_000_000:.4f}",
                f"{period.limit_credits_micro / 1_000_000:.4f}",
                f"{period.remaining_percentage} %",
                period.next_reset.isoformat().replace("+00:00", "Z"),
            )
            for tier in self.api.quota().tiers
            for period in tier.periods
        ]
        self._screen.line(table(("tier", "period", "used", "limit", "left", "starts anew"), rows))

    def help(self, _: str) -> None:
        """Lists what can be said."""
        rows = [(usage, text) for _, usage, text in _COMMANDS.values()]
        self._screen.line(table(("say", "to"), [*rows, ("//TEXT", "send a message that begins with /")]))
        self._screen.line("Ctrl-C cancels an answer; once more, it leaves the answer alone.")

    def _latest(self) -> str | None:
        newest = None if self.chat_id is None else next(self.api.messages(self.chat_id, newest_first=True), None)
        if newest is None:
            self._screen.note("Nothing was said yet.")
        return None if newest is None else newest.request_id

    def _answered(self, chat_id: str, answer: Answer) -> bool:
        screen, clock = self._screen, _Clock() if self._timing else None
        with Canceller(self.api, chat_id, screen) as canceller, answer:
            try:
                for event in answer:
                    if clock is not None:
                        clock.saw()
                    if isinstance(event, StreamStartedEvent):
                        canceller.began(event.request_id)
                    self._show(event)
                    if isinstance(event, DoneEvent):
                        return clock is None or clock.streamed(screen)
            except KeyboardInterrupt:
                screen.note("Left; the answer goes on without you, /open shows it.")
            finally:
                screen.end_line()
        return False

    def _show(self, event: Event) -> None:
        if isinstance(event, DeltaEvent):
            self._screen.text(event.content)
            return
        _note(self._screen, event)
        if isinstance(event, ErrorEvent) and self._words is not None:
            for words in self._words.new():
                self._screen.note(f"[the provider's words, for this terminal only: {words}]")


class _Clock:
    """How long an answer takes, in seconds since it was asked for."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._first: float | None = None
        self._last = 0.0

    def saw(self) -> None:
        """Notes that an event has come."""
        self._last = time.monotonic() - self._asked
        self._first = self._last if self._first is None else self._first

    def streamed(self, screen: Screen) -> bool:
        """Says when the first event and the end came; False when that was at once, though an answer takes its time."""
        first = self._first or 0.0
        screen.note(f"[first event after {first:.2f} s, end after {self._last:.2f} s]")
        if self._last - first > self._last * IN_ONE_PIECE:
            return True
        screen.note("It came in one piece: something on its way collects it, or it was too short to tell.")
        return False


def _note(screen: Screen, event: Event) -> None:
    """Prints what an event carries besides text."""
    match event:
        case ToolEvent():
            screen.note(f"[{event.name}: {event.phase}]")
        case CitationsEvent():
            for number, item in enumerate(event.items, 1):
                screen.note(f"[{number}] {item.title} {item.url or ''}".rstrip())
        case ErrorEvent():
            screen.end_line()
            screen.note("Cancelled." if event.code == "cancelled" else f"{event.message} [{event.code}]")
        case DoneEvent():
            screen.end_line()
            _note_end(screen, event)


def _note_end(screen: Screen, end: DoneEvent) -> None:
    """Prints the facts of a good end: model, tokens, and whether the answer is complete."""
    usage, signal = end.usage, end.completion_signal
    tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out" if usage else "tokens unknown"
    screen.note(f"[{end.effective_model}: {tokens}]")
    if signal.kind != "complete":
        screen.note(f"[{signal.kind}{f': {signal.reason}' if signal.reason else ''}]")
    if end.quota_decision == "downgrade":
        screen.note(f"[instead of {end.selected_model}: {end.downgrade_reason}]")
    for left in end.quota_warnings or ():
        if left.warning:
            screen.note(f"[{left.tier}, {left.period}: {left.remaining_percentage} % left]")


_COMMANDS: dict[str, tuple[Callable[[Talk, str], object], str, str]] = {
    "/attach": (Talk.attach, "/attach FILE", "give the chat a file: the next message is sent with it"),
    "/retry": (Talk.retry, "/retry [TEXT]", "have the last message answered again, or TEXT instead of it"),
    "/edit": (Talk.edit, "/edit TEXT", "have TEXT answered instead of the last message"),
    "/delete": (Talk.delete, "/delete", "delete the last message and its answer"),
    "/cancel": (Talk.cancel, "/cancel", "cancel what runs in this chat, wherever it was begun"),
    "/history": (Talk.history, "/history", "see the last messages of this chat"),
    "/chats": (Talk.chats, "/chats", "list the chats"),
    "/open": (Talk.open, "/open ID", "go on with a chat"),
    "/new": (Talk.new, "/new [TITLE]", "begin a chat"),
    "/models": (Talk.models, "/models", "list the models"),
    "/quota": (Talk.quota, "/quota", "see what is used and left"),
    "/help": (Talk.help, "/help", "see this"),
    "/quit": (lambda _talk, _argument: None, "/quit", "end; so does Ctrl-D"),
}
