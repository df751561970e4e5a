"""Processes of a stack that are killed at random and begin again, by clocks of their own, behind a lossy engine."""

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from minichat.local.process import Child, free_port
from tests.clocks import NEEDED, WallClock
from tests.support.events.consumers import serving
from tests.support.http.client import Stack

CONSUMERS = ("OutboxRelayFunction", "AuditFunction", "UsageFunction", "ChatCleanupFunction")
SERVERS = 3


@dataclass(frozen=True)
class Trouble:
    """How bad it gets; times are seconds."""

    seed: int
    lost_percent: float
    skew: float
    lives: tuple[float, float]
    """How long a process lives, at least and at most."""
    timeout: int
    """A turn that is silent for so long counts as dead."""

    @property
    def patience(self) -> float:
        """So many seconds after its process a turn counts as dead: to seconds, the store's clock is everybody's."""
        return self.timeout + 5

    @property
    def settings(self) -> dict[str, str]:
        """What all processes have to know."""
        return {
            "MINICHAT_ORPHAN_WATCHDOG__TIMEOUT_SECONDS": str(self.timeout),
            "MINICHAT_AUTH__LEEWAY_SECONDS": str(int(2 * self.skew) + 30),
        }


@dataclass
class Victim:
    """A process that is killed now and then: how it is started, and what became of it so far."""

    start: Callable[[int, Mapping[str, str]], Child]
    is_up: Callable[[int], bool]
    clock: WallClock | None
    child: Child | None = None
    dies_at: float | None = None
    """Known once it is up: on a busy machine it would not get that far otherwise."""
    deaths: list[float] = field(default_factory=list)


class Processes:
    """Servers, relay, consumers and a watchdog, for the time of a `with`; `kill_until` is their end."""

    def __init__(self, stack: Stack, trouble: Trouble) -> None:
        self._stack = stack
        self._trouble = trouble
        self._chance = Random(f"{trouble.seed}/kills")
        self._logs = stack.state / "logs"
        self._engine = free_port()
        self.urls: list[str] = []
        self.victims = dict(self._victims())

    def __enter__(self) -> "Processes":
        with ExitStack() as starting:
            self._proxy = Child("the lossy proxy", self._proxy_command(), self._logs)
            starting.callback(self._proxy.stop)
            starting.callback(self._stop)
            self._proxy.wait_until_it_answers(f"http://127.0.0.1:{self._engine}")
            for victim in self.victims.values():
                self._begin(victim)
            self._ending = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def kill_until(self, over: threading.Event) -> None:
        """Kills each once its time has come, as `kill -9` does, and starts it again; all of them in the end."""
        while not over.wait(0.1):
            for victim in self.victims.values():
                if victim.dies_at is None:
                    if victim.is_up(len(victim.deaths)):
                        victim.dies_at = time.monotonic() + self._chance.uniform(*self._trouble.lives)
                elif time.monotonic() > victim.dies_at:
                    _kill(victim)
                    self._begin(victim)
        for victim in self.victims.values():
            _kill(victim)

    def up(self) -> list[str]:
        """The servers that answer, as far as is known."""
        return [url for url in self.urls if self.victims[url].dies_at is not None]

    def kills(self) -> dict[str, int]:
        """How often each kind was killed."""
        found: Counter[str] = Counter()
        for name, victim in self.victims.items():
            found["server" if name in self.urls else name] += len(victim.deaths)
        return dict(found)

    def losses(self) -> Counter[str]:
        """How many answers of the engine were lost, by operation and manner."""
        said = (self._logs / "proxy.log").read_text().splitlines()
        return Counter(line.removeprefix("lost ") for line in said if line.startswith("lost "))

    def died_since(self, url: str, moment: float) -> bool:
        """Whether that server was killed after a moment of the monotonic clock."""
        return any(death >= moment for death in self.victims[url].deaths)

    def _victims(self) -> list[tuple[str, Victim]]:
        found = [self._server(number) for number in range(SERVERS)]
        found += [(name, Victim(self._consumer(name), self._has_said(name), self._clock(name))) for name in CONSUMERS]
        return [*found, ("watchdog", Victim(self._watchdog, self._has_said("watchdog"), self._clock("watchdog")))]

    def _server(self, number: int) -> tuple[str, Victim]:
        port = free_port()
        url = f"http://127.0.0.1:{port}/mini-chat/v1"
        self.urls.append(url)
        keys = {
            "MINICHAT_AUTH__JWKS": str(self._stack.state / "jwks.json"),
            "MINICHAT_CURSOR_SECRET": (self._stack.state / "cursor-secret").read_text(),
            # One of them takes a client that leaves for one that wants no answer.
            "MINICHAT_STREAMING__ON_DISCONNECT": "cancel" if number == 0 else "continue",
        }

        def start(life: int, environment: Mapping[str, str]) -> Child:
            command = [sys.executable, "-m", "minichat.local.server", "--port", str(port)]
            return Child(f"server server-{number}-{life}", command, self._logs, {**environment, **keys})

        return url, Victim(start, lambda _: _listens(port), self._clock(f"server-{number}"))

    def _consumer(self, function: str) -> Callable[[int, Mapping[str, str]], Child]:
        return lambda life, environment: serving(self._stack, function, life, environment=environment)

    def _watchdog(self, life: int, environment: Mapping[str, str]) -> Child:
        command = [sys.executable, "-m", "tests.chaos.watchdog"]
        return Child(f"watchdog watchdog-{life}", command, self._logs, environment)

    def _has_said(self, name: str) -> Callable[[int], bool]:
        """Whether a life of that process has anything in its log."""

        def has_said(life: int) -> bool:
            log = self._logs / f"{name}-{life}.log"
            return log.exists() and log.stat().st_size > 0

        return has_said

    def _clock(self, name: str) -> WallClock | None:
        return None if NEEDED else WallClock(self._stack.state / "clocks" / name)

    def _begin(self, victim: Victim) -> None:
        if victim.clock is not None:
            victim.clock.set(self._chance.choice((-1, 0, 1)) * self._trouble.skew)
        lossy = f"http://127.0.0.1:{self._engine}"
        environment = {
            **self._stack.about["environment"],
            **self._trouble.settings,
            **(victim.clock.environment if victim.clock else {}),
            "MINICHAT_STORE__ENDPOINT": lossy,
            "MINICHAT_QUEUES__ENDPOINT": lossy,
        }
        victim.child = victim.start(len(victim.deaths), environment)
        victim.dies_at = None

    def _proxy_command(self) -> list[str | Path]:
        engine = urlsplit(self._stack.about["engine_url"]).port
        where = ["--port", str(self._engine), "--engine", str(engine)]
        how = ["--percent", str(self._trouble.lost_percent), "--seed", f"{self._trouble.seed}/losses"]
        return [sys.executable, "-m", "tests.chaos.lossy_proxy", *where, *how]

    def _stop(self) -> None:
        for victim in self.victims.values():
            if victim.child is not None:
                victim.child.stop()


def _kill(victim: Victim) -> None:
    assert victim.child is not None
    os.kill(victim.child.pid, signal.SIGKILL)
    victim.child.stop()  # only waits for it to be gone
    victim.deaths.append(time.monotonic())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
