"""`minichat chat`: a conversation with any deployment, from a terminal or a script."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from minichat.cli import answer, files, target
from minichat.cli.answer import Question
from minichat.cli.api import Api, ApiRefused, SseEvent, Unreachable
from minichat.cli.canceller import Canceller
from minichat.cli.files import Unusable
from minichat.cli.output import table
from minichat.cli.screen import Screen
from minichat.local import stack
from minichat.local.provider_words import ProviderWords
from minichat.settings import SettingsError

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
    with closing(Api(url, token)) as api:
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
                api.call("GET", "models")  # fails early when nobody answers or the token is bad
            return _conversation(talk, screen, token)
        except (ApiRefused, Unreachable, Unusable) as error:
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
    if isinstance(error, ApiRefused) and error.status == 401:
        advice = "Give one with --token-file or --token" if token is None else "It may have expired: give another"
        return f"{error} {advice}."
    return str(error)


def _conversation(talk: "Talk", screen: Screen, token: str | None) -> int:
    """Reads and answers until the end of input; without a terminal, 1 when something could not be answered."""
    if screen.interactive:
        # Imported for its side effect: lines can be edited and recalled.
        with suppress(ImportError):
            import readline  # noqa: F401, PLC0415
        screen.note(f"Mini Chat at {talk.api.url}. /help lists what can be said, /quit ends.")
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
        except (ApiRefused, Unreachable, Unusable) as error:
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

    def __init__(self, api: Api, screen: Screen, options: argparse.Namespace) -> None:
        self.api = api
        self.chat_id: str | None = None
        self._screen = screen
        self._model: str | None = options.model
        self._web_search: bool = options.web_search
        self._timing: bool = options.timing
        self._attached: list[str] = []
        here = options.url is None and (options.local or options.state is not None)
        self._words = ProviderWords(stack.folder(options.state)) if here else None

    def say(self, content: str) -> bool:
        """Sends a message and prints the answer; False when there was none."""
        chat_id = self.chat_id or self.new("")
        body: dict[str, Any] = {"content": content, "attachment_ids": self._attached}
        if self._web_search:
            body["web_search"] = {"enabled": True}
        answered = self._answered(chat_id, answer.sent(self.api, chat_id, str(uuid4()), body))
        self._attached = []
        return answered

    def attach(self, path: str) -> bool:
        """Gives the chat a file, and waits until it is ready; the next message is sent with it."""
        if not path:
            self._screen.note("Say which file: /attach FILE.")
            return False
        attachment = files.give(self.api, self.chat_id or self.new(""), Path(path))
        self._attached.append(attachment["id"])
        self._screen.note(f"{attachment['filename']} goes with the next message.")
        return True

    def retry(self, content: str) -> bool:
        """Has the latest message answered again; with content, another message in its place."""
        latest = self._latest()
        if self.chat_id is None or latest is None:
            return False
        return self._answered(self.chat_id, answer.instead(self.api, self.chat_id, latest, content or None))

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
        self.api.call("DELETE", "chats", self.chat_id, "turns", latest)
        self._screen.note("The last message and its answer are deleted.")
        return True

    def cancel(self, _: str) -> bool:
        """Cancels the answer that runs in this chat, wherever it began."""
        chat = {} if self.chat_id is None else self.api.call("GET", "chats", self.chat_id)
        running = chat.get("running_request_id")
        if running is None:
            self._screen.note("Nothing runs in this chat.")
            return False
        self.api.call("POST", "chats", chat["id"], "turns", running, "cancel")
        self._screen.note("It will end within two seconds.")
        return True

    def new(self, title: str) -> str:
        """Makes a chat, goes on in it, and returns its id."""
        wanted = {"title": title or None, "model": self._model}
        chat = self.api.call("POST", "chats", body={name: value for name, value in wanted.items() if value})
        self.chat_id, self._attached = str(chat["id"]), []
        if title:
            self._screen.note(f"chat {self.chat_id}, {chat['model']}")
        return self.chat_id

    def open(self, chat_id: str, *, join: bool = True) -> bool:
        """Goes on with a chat, and joins the answer that runs in it."""
        chat = self.api.call("GET", "chats", chat_id)
        self.chat_id, self._attached = str(chat["id"]), []
        self._screen.note(f"{chat.get('title') or 'A chat without a title'}: {chat['message_count']} messages")
        running = chat.get("running_request_id")
        return self._answered(self.chat_id, running) if running and join else True

    def chats(self, _: str) -> None:
        """Lists the chats, the most recently active first."""
        page = self.api.call("GET", "chats", limit=LISTED)
        rows = [
            (
                f"{chat['id']}{' *' if chat['id'] == self.chat_id else ''}",
                chat["message_count"],
                chat["model"],
                chat.get("title") or "",
            )
            for chat in page["items"]
        ]
        self._screen.line(table(("chat", "messages", "model", "title"), rows))
        if page["page_info"]["next_cursor"]:
            self._screen.note(f"These are the latest {LISTED}.")

    def history(self, _: str) -> None:
        """Prints the latest messages."""
        if self.chat_id is None:
            self._screen.note("Nothing was said yet.")
            return
        newest = {"limit": LISTED, "$orderby": "created_at desc"}
        page = self.api.call("GET", "chats", self.chat_id, "messages", **newest)
        if page["page_info"]["next_cursor"]:
            self._screen.note(f"The latest {LISTED} messages:")
        for message in reversed(page["items"]):
            self._screen.line(f"{message['role']}: {message['content']}")

    def models(self, _: str) -> None:
        """Lists the models that a new chat may have."""
        rows = [
            (model["model_id"], model["tier"], model["multiplier_display"], model["display_name"])
            for model in self.api.call("GET", "models")["items"]
        ]
        self._screen.line(table(("model", "tier", "price", "name"), rows))

    def quota(self, _: str) -> None:
        """Prints what is used and left."""
        rows = [
            (
                tier["tier"],
                period["period"],
                f"{period['used_credits_micro'] / 1_000_000:.4f}",
                f"{period['limit_credits_micro'] / 1_000_000:.4f}",
                f"{period['remaining_percentage']} %",
                period["next_reset"],
            )
            for tier in self.api.call("GET", "quota", "status")["tiers"]
            for period in tier["periods"]
        ]
        self._screen.line(table(("tier", "period", "used", "limit", "left", "starts anew"), rows))

    def help(self, _: str) -> None:
        """Lists what can be said."""
        rows = [(usage, text) for _, usage, text in _COMMANDS.values()]
        self._screen.line(table(("say", "to"), [*rows, ("//TEXT", "send a message that begins with /")]))
        self._screen.line("Ctrl-C cancels an answer; once more, it leaves the answer alone.")

    def _latest(self) -> str | None:
        latest = None if self.chat_id is None else answer.latest_turn(self.api, self.chat_id)
        if latest is None:
            self._screen.note("Nothing was said yet.")
        return latest

    def _answered(self, chat_id: str, question: Question | str) -> bool:
        screen, clock = self._screen, _Clock() if self._timing else None
        with (
            Canceller(self.api, chat_id, screen) as canceller,
            closing(
                answer.events(self.api, chat_id, question, lambda why: screen.note(f"{why} Trying again."))
            ) as told,
        ):
            try:
                for event in told:
                    if clock is not None:
                        clock.saw()
                    if event.name == "stream_started":
                        canceller.began(str(event.data["request_id"]))
                    elif event.name == "delta":
                        screen.text(event.data["content"])
                    else:
                        _note(screen, event)
                    if event.name == "error" and self._words is not None:
                        for words in self._words.new():
                            screen.note(f"[the provider's words, for this terminal only: {words}]")
                    if event.name == "done":
                        return clock is None or clock.streamed(screen)
            except KeyboardInterrupt:
                screen.note("Left; the answer goes on without you, /open shows it.")
            finally:
                screen.end_line()
        return False


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


def _note(screen: Screen, event: SseEvent) -> None:
    """Prints what an event carries besides text."""
    data = event.data
    if event.name in {"done", "error"}:
        screen.end_line()
    if event.name == "tool":
        screen.note(f"[{data['name']}: {data['phase']}]")
    elif event.name == "citations":
        for number, item in enumerate(data["items"], 1):
            screen.note(f"[{number}] {item['title']} {item.get('url') or ''}".rstrip())
    elif event.name == "error":
        screen.note("Cancelled." if data["code"] == "cancelled" else f"{data['message']} [{data['code']}]")
    elif event.name == "done":
        _note_end(screen, data)


def _note_end(screen: Screen, data: dict[str, Any]) -> None:
    """Prints the facts of a good end: model, tokens, and whether the answer is complete."""
    usage, signal = data["usage"], data["completion_signal"]
    tokens = f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out" if usage else "tokens unknown"
    screen.note(f"[{data['effective_model']}: {tokens}]")
    if signal["kind"] != "complete":
        screen.note(f"[{': '.join(signal.values())}]")
    if data["quota_decision"] == "downgrade":
        screen.note(f"[instead of {data['selected_model']}: {data.get('downgrade_reason')}]")
    for left in data.get("quota_warnings") or ():
        if left["warning"]:
            screen.note(f"[{left['tier']}, {left['period']}: {left['remaining_percentage']} % left]")


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
