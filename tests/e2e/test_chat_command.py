"""`minichat chat`, as a person at a terminal and a script in a pipe use it, over connections that break."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from minichat.local.process import free_port
from tests.conftest import another_server
from tests.support.http.client import Stack, User
from tests.support.http.given_files import PDF

CHAT = [sys.executable, "-m", "minichat.cli.main", "chat"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SECONDS = 60
WORDS = " ".join(f"word{n}" for n in range(1, 13))


def _listen_to_control_c() -> None:
    """Makes the terminal send it, and heeds it: a test run in the background has inherited that it is ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program at a terminal of its own, for the time of a `with`."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.raw = ""
        self._read_to = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character

    def __enter__(self) -> "Terminal":
        self._master, slave = pty.openpty()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 500, 0, 0))  # no line is broken
        self.process = subprocess.Popen(
            [*CHAT, *self._arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_listen_to_control_c,  # noqa: PLW1509  no threads yet
        )
        os.close(slave)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press_control_c(self) -> None:
        """Presses it when the program waits: one that comes just before that is only seen with the next key."""
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            pass
        self.type("\x03")

    def say(self, line: str) -> None:
        """Says a line when it is asked for."""
        self.expect("> ")
        self.type(f"{line}\n")
        self.expect("\n")  # the echo is not the answer

    def expect(self, text: str) -> str:
        """Waits until a text that is new is on the screen; what came before it."""
        deadline = time.monotonic() + SECONDS
        while (at := self.raw.find(text, self._read_to)) < 0:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            data = b""
            with suppress(OSError):  # how Linux says that the other side is gone
                data = os.read(self._master, 65536) if ready else b""
            assert data, f"{text!r} did not come after {self.raw[self._read_to :]!r}"
            self.raw += self._decoder.decode(data)
        before, self._read_to = self.raw[self._read_to : at], at + len(text)
        return ESCAPES.sub("", before)

    def answer(self) -> str:
        """The text of an answer that ends well."""
        return self.expect("tokens in").rpartition("\n")[0].strip()

    def end(self) -> int:
        """Ends the program as a person does; its exit code."""
        self.say("/quit")
        return self.process.wait(SECONDS)


class Relay:
    """The way to a server, which can be cut, led to another server, or lose an answer."""

    def __init__(self, base_url: str) -> None:
        self.lead_to(base_url)
        self.loses: bytes | None = None
        self._live: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}{self._path}"

    def lead_to(self, base_url: str) -> None:
        """New connections go to this server."""
        parts = urlsplit(base_url)
        self._server, self._path = (parts.hostname, parts.port), parts.path

    def cut(self) -> None:
        """Breaks every connection that is open."""
        for one in self._live:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._server)
                except OSError:
                    near.close()
                    continue
                self._live += [near, far]
                lost = threading.Event()
                threading.Thread(target=self._pump, args=(near, far, self._look_for_loss, lost), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, self._lose, lost), daemon=True).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        passes: Callable[[bytes, threading.Event], bool],
        lost: threading.Event,
    ) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and passes(data, lost):
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _look_for_loss(self, data: bytes, lost: threading.Event) -> bool:
        if self.loses is not None and self.loses in data:
            self.loses = None
            lost.set()
        return True

    def _lose(self, _: bytes, lost: threading.Event) -> bool:
        return not lost.is_set()


class Collector(Relay):
    """A way that hands an answer over when nothing more of it comes, as a gateway that does not stream."""

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        passes: Callable[[bytes, threading.Event], bool],
        lost: threading.Event,
    ) -> None:
        if passes == self._look_for_loss:
            super()._pump(source, sink, passes, lost)
            return
        source.settimeout(0.7)
        kept, data = b"", b"?"
        with suppress(OSError):
            while data:
                try:
                    data = source.recv(65536)
                    kept += data
                except TimeoutError:
                    sink.sendall(kept)
                    kept = b""
            sink.sendall(kept)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def piped(*arguments: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    run = subprocess.run([*CHAT, *arguments], input=said, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "Traceback" not in run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    return run


@pytest.fixture
def name() -> str:
    """A user's that no other test is."""
    return uuid4().hex


@pytest.fixture
def credentials(stack: Stack, name: str, tmp_path: Path) -> list[str]:
    """The options that make the command this user's."""
    file = tmp_path / "token"
    file.write_text(stack.token("acme", name) + "\n")
    return ["--token-file", str(file)]


@pytest.fixture
def me(stack: Stack, name: str) -> Iterator[User]:
    """The same user, over HTTP."""
    with stack.user("acme", name) as user:
        yield user


@pytest.fixture
def here(stack: Stack, credentials: list[str]) -> list[str]:
    return ["--url", stack.base_url, *credentials]


def only_chat(me: User) -> str:
    (chat,) = me.http.get("/chats").json()["items"]
    return str(chat["id"])


def contents(me: User) -> list[str]:
    return [message["content"] for message in me.messages(only_chat(me))]


def test_a_conversation_is_had_and_changed(here: list[str], me: User) -> None:
    with Terminal(*here) as terminal:
        terminal.say("[[say:The first.]]")
        assert terminal.answer() == "The first."
        terminal.say("[[say:The second.]]")
        assert terminal.answer() == "The second."
        terminal.say("/retry")
        assert terminal.answer() == "The second."
        terminal.say("/edit [[say:Another second.]]")
        assert terminal.answer() == "Another second."
        terminal.say("/retry [[say:A third one.]]")
        assert terminal.answer() == "A third one."
        assert contents(me) == ["[[say:The first.]]", "The first.", "[[say:A third one.]]", "A third one."]
        terminal.say("/history")
        assert terminal.expect("assistant: A third one.").count("assistant: ") == 1
        terminal.say("/delete")
        terminal.expect("deleted")
        terminal.say("//no command")
        assert terminal.answer().startswith("You said: /no command")
        assert contents(me)[::2] == ["[[say:The first.]]", "/no command"]
        assert terminal.end() == 0


def test_files_go_along_with_the_next_message(here: list[str], me: User, tmp_path: Path) -> None:
    (tmp_path / "moon.pdf").write_bytes(PDF)
    (tmp_path / "song.mp3").write_bytes(b"la")
    with Terminal(*here) as terminal:
        terminal.say(f"/attach {tmp_path}/moon.pdf")
        terminal.expect("moon.pdf goes with the next message.")
        terminal.say("How far is the moon?")
        terminal.expect("[1] moon.pdf")
        terminal.say("And back?")
        terminal.answer()
        terminal.say(f"/attach {tmp_path}/sun.pdf")
        terminal.expect("No such file")
        terminal.say(f"/attach {tmp_path}/song.mp3")
        terminal.expect("[unsupported_file_type]")
        assert terminal.end() == 0
    names = [[one["filename"] for one in said["attachments"]] for said in me.messages(only_chat(me))]
    assert names == [["moon.pdf"], [], [], []]
    run = subprocess.run(
        [*CHAT, *here, "-m", "How far?", "--attach", str(tmp_path / "moon.pdf")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert "[1] moon.pdf" in run.stderr


def test_everything_that_can_be_looked_at_is_shown(here: list[str], me: User) -> None:
    other = me.new_chat(title="Elsewhere")
    with Terminal(*here) as terminal:
        terminal.say("/help")
        terminal.expect("/retry")
        terminal.say("/models")
        terminal.expect("gpt-4.1-mini")
        terminal.say("/quota")
        terminal.expect("monthly")
        terminal.say("/new Of my own")
        terminal.expect("gpt-4.1")
        terminal.say("/chats")
        assert "Of my own" in terminal.expect("Elsewhere")
        terminal.say(f"/open {other}")
        terminal.expect("Elsewhere: 0 messages")
        terminal.say("/retry")
        terminal.expect("Nothing was said yet.")
        terminal.say("/what")
        terminal.expect("There is no /what")
        terminal.say(f"/open {uuid4()}")
        terminal.expect("[chat_not_found]")
        terminal.say("/open nonsense")
        terminal.expect("chat_id: Input should be a valid UUID")
        terminal.say("[[say:Still there.]]")
        assert terminal.answer() == "Still there."
        assert me.messages(other)[1]["content"] == "Still there."
        assert terminal.end() == 0


def test_control_c_cancels_the_answer_and_not_the_program(stack: Stack, here: list[str], me: User, name: str) -> None:
    with Terminal(*here) as terminal:
        terminal.expect("> ")
        terminal.type("half a message")
        terminal.expect("half a message")
        terminal.press_control_c()
        terminal.say(f"[[words:9]][[hold:{name}]]")
        terminal.expect("word1")
        terminal.press_control_c()
        terminal.expect("Cancelled.")
        terminal.say("/retry [[say:On we go.]]")
        assert terminal.answer() == "On we go."
        terminal.expect("> ")
        terminal.type("\x04")
        assert terminal.process.wait(SECONDS) == 0
    assert contents(me) == ["[[say:On we go.]]", "On we go."]


def test_a_second_control_c_leaves_an_answer_that_cannot_be_cancelled(
    stack: Stack, credentials: list[str], me: User, name: str
) -> None:
    with Relay(stack.base_url) as relay, Terminal("--url", relay.url, *credentials) as terminal:
        terminal.say(f"[[words:12]][[hold:{name}]]")
        terminal.expect("word1")
        relay.lead_to(f"http://127.0.0.1:{free_port()}/mini-chat/v1")
        terminal.press_control_c()
        terminal.expect("Not cancelled: ")
        terminal.press_control_c()
        terminal.expect("the answer goes on without you")
        relay.lead_to(stack.base_url)
        stack.release(name)
        terminal.say(f"/open {only_chat(me)}")
        _wait_until(lambda: len(contents(me)) == 2)
        terminal.say("/history")
        terminal.expect(f"assistant: {WORDS}")


def test_what_runs_is_joined_and_cancelled_from_another_terminal(
    stack: Stack, here: list[str], me: User, name: str
) -> None:
    with Terminal(*here) as one, Terminal(*here) as another:
        one.say(f"[[words:9]][[hold:{name}]]")
        one.expect("word1")
        chat_id = only_chat(me)
        another.say(f"/open {chat_id}")
        another.expect("word1")
        another.press_control_c()
        one.expect("Cancelled.")
        another.expect("Cancelled.")
        one.say(f"[[words:9]][[hold:{name}-2]]")
        one.expect("word1")
        another.say("/cancel")
        another.expect("It will end within two seconds.")
        one.expect("Cancelled.")
        another.say("/cancel")
        another.expect("Nothing runs in this chat.")


def test_a_cut_connection_is_resumed_at_another_server_and_nothing_is_printed_twice(
    stack: Stack, credentials: list[str], name: str
) -> None:
    with another_server(stack) as second, Relay(stack.base_url) as relay:
        command = [*CHAT, "--url", relay.url, *credentials, "-m", f"[[words:12]][[hold:{name}]]"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.read(len("word1 "))
            relay.lead_to(f"http://127.0.0.1:{free_port()}/mini-chat/v1")
            relay.cut()
            assert process.stderr is not None
            noted = process.stderr.readline() + process.stderr.readline()
            relay.lead_to(second.base_url)
            stack.release(name)
            rest, more = process.communicate(timeout=SECONDS)
        assert (process.returncode, first + rest) == (0, f"{WORDS}\n")
        assert "Trying again." in noted
        assert "tokens in" in more


@pytest.mark.parametrize("kind", ["message", "retry", "edit"])
def test_an_answer_whose_beginning_is_lost_is_found_and_not_asked_for_twice(
    stack: Stack, credentials: list[str], me: User, kind: str
) -> None:
    with Relay(stack.base_url) as relay, Terminal("--url", relay.url, *credentials) as terminal:
        if kind != "message":
            terminal.say("[[say:Before.]]")
            assert terminal.answer() == "Before."
        calls = stack.provider_stats()["calls"]
        relay.loses = {"message": b"messages:stream", "retry": b"/retry", "edit": b"PATCH"}[kind]
        terminal.say({"message": "[[say:Once.]]", "retry": "/retry", "edit": "/edit [[say:Once.]]"}[kind])
        terminal.expect("Trying again.")
        assert terminal.answer() == ("Before." if kind == "retry" else "Once.")
        assert stack.provider_stats()["calls"] == calls + 1
        assert len(contents(me)) == 2


def test_a_message_that_never_arrived_is_sent_again(stack: Stack, credentials: list[str], me: User) -> None:
    with Relay(stack.base_url) as relay, Terminal("--url", relay.url, *credentials) as terminal:
        terminal.say("[[say:Before.]]")
        assert terminal.answer() == "Before."
        terminal.expect("> ")
        relay.lead_to(f"http://127.0.0.1:{free_port()}/mini-chat/v1")
        relay.cut()
        terminal.type("[[say:At last.]]\n")
        terminal.expect("Trying again.")
        relay.lead_to(stack.base_url)
        assert terminal.answer().endswith("At last.")
    assert len(contents(me)) == 4


def test_when_a_server_is_killed_the_next_one_tells_how_it_ended(
    stack: Stack, credentials: list[str], me: User, name: str
) -> None:
    shortest = {"MINICHAT_ORPHAN_WATCHDOG__TIMEOUT_SECONDS": "30"}
    with (
        another_server(stack) as first,
        another_server(stack, **shortest) as second,
        Relay(first.base_url) as relay,
        Terminal("--url", relay.url, *credentials) as terminal,
    ):
        terminal.say(f"[[words:12]][[hold:{name}]]")
        terminal.expect("word1")
        relay.lead_to(second.base_url)
        os.kill(first.child.pid, signal.SIGKILL)
        terminal.expect("Trying again.")
        shown = terminal.expect("[internal_error]")
        assert "The answer could not be completed." in shown
        assert "word" not in shown
        terminal.say("/retry [[say:Better.]]")
        assert terminal.answer() == "Better."
    assert contents(me) == ["[[say:Better.]]", "Better."]


def test_without_an_end_in_sight_it_is_given_up(stack: Stack, credentials: list[str], name: str) -> None:
    with Relay(stack.base_url) as relay:
        command = [*CHAT, "--url", relay.url, *credentials, "-m", f"[[words:12]][[hold:{name}]]"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.read(len("word1 "))
            relay.lead_to(f"http://127.0.0.1:{free_port()}/mini-chat/v1")
            relay.cut()
            _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "Given up after 6 attempts." in said.splitlines()[-1]


def test_a_message_is_answered_in_a_pipe(stack: Stack, here: list[str], me: User, name: str) -> None:
    run = piped(*here, "--message", "[[say:Paris it is.]][[tool:web_search]]", "--web-search")
    assert (run.returncode, run.stdout) == (0, "Paris it is.\n")
    chat_id = only_chat(me)
    assert run.stderr.splitlines()[0] == "[web_search: start]"
    assert "[1] An example https://example.com/found" in run.stderr.splitlines()
    assert run.stderr.splitlines()[-1] == f"chat {chat_id}"
    run = piped(*here, "--chat", chat_id, "-m", "-", said="[[echo]]one\ntwo")
    assert (run.returncode, run.stdout) == (0, "one\ntwo\n")
    run = piped(*here, "-m", "[[words:3]][[failed:server_error]]")
    assert (run.returncode, run.stdout) == (1, "word1 word2 word3\n")
    assert "The provider could not complete the answer. [provider_error]" in run.stderr
    run = piped("--state", str(stack.state), said="[[say:One.]]\n\n[[say:Two.]]\n")
    assert (run.returncode, run.stdout) == (0, "One.\nTwo.\n")
    assert piped(*here, said="[[say:One.]]\n/nothing\n[[say:Two.]]\n").returncode == 1


def test_an_answer_that_comes_in_one_piece_is_told_from_one_that_is_streamed(
    stack: Stack, credentials: list[str], me: User
) -> None:
    said = ["--timing", "-m", "[[words:40]][[delay:50]]"]
    run = piped("--url", stack.base_url, *credentials, *said)
    assert (run.returncode, run.stdout.split()[-1]) == (0, "word40")
    assert re.search(r"\[first event after \d\.\d\d s, end after \d\.\d\d s\]", run.stderr)
    with Collector(stack.base_url) as relay:
        run = piped("--url", relay.url, *credentials, *said)
    assert (run.returncode, run.stdout.split()[-1]) == (1, "word40")
    assert "It came in one piece" in run.stderr


@pytest.mark.parametrize("more", [[], ["--message", "hello"]])
def test_what_is_refused_is_one_sentence_and_exit_code_one(stack: Stack, here: list[str], more: list[str]) -> None:
    url = ["--url", stack.base_url]
    for options, sentence in (
        ([*url, "--token", "nonsense"], "[unauthenticated]. It may have expired: give another."),
        (url, "[unauthenticated]. Give one with --token-file or --token."),
        ([*here, "--chat", str(uuid4())], "[chat_not_found]."),
        (["--url", f"http://127.0.0.1:{free_port()}/mini-chat/v1"], "Nobody answers at http://127.0.0.1:"),
        (["--url", stack.about["provider_url"]], "The server answers 404"),
        (["--url", f"{stack.about['provider_url']}/health"], "The server answers 404"),
    ):
        run = piped(*options, *more, said="")
        assert (run.returncode, run.stdout) == (1, "")
        assert sentence in run.stderr
        assert len(run.stderr.splitlines()) == 1
    blank = piped(*here, "-m", " ")
    assert blank.returncode == 1
    assert "content: " in blank.stderr
    garbled = piped(*url, "--token", "ä b", *more, said="")
    assert (garbled.returncode, garbled.stderr.count("\n")) == (2, 1)
    nowhere = piped(*more, said="")
    assert nowhere.returncode == 2
    assert "--url" in nowhere.stderr


def test_bytes_that_are_no_text_and_a_terminal_that_knows_no_text_are_no_errors(here: list[str]) -> None:
    poor = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments, said in (([b"-m", b"[[echo]]a\xffb"], b""), ([], b"[[echo]]a\xffb\n")):
        command = [*map(os.fsencode, [*CHAT, *here]), *arguments]
        run = subprocess.run(command, input=said, capture_output=True, env=poor, timeout=SECONDS, check=False)
        assert (run.returncode, run.stdout) == (0, b"a?b\n")


def test_an_answer_does_not_drive_the_terminal(here: list[str]) -> None:
    with Terminal(*here, "--message", "[[say:\x1b]0;mine\x07\x1b[31mred\x9b2J]]") as terminal:
        terminal.expect("red")
        terminal.expect("chat ")
        assert not re.search(r"\x1b\]|\x07|\x1b\[31m|\x9b", terminal.raw)


def _wait_until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
