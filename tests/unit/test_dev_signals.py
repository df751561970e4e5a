"""A signal ends `minichat dev` wherever it comes: no step of its loop can be caught holding what its handler needs."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from minichat.cli import dev
from minichat.local import stack


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Runs the command over a stack that is there at once and stays."""

    class Running:
        state = tmp_path
        base_url = "http://127.0.0.1:1"

        def check(self) -> None:
            """Nothing has ended."""

    monkeypatch.setattr(stack, "start", lambda _: Running())
    monkeypatch.setattr(dev, "_announce", lambda *_, **__: None)
    monkeypatch.setattr(dev, "_refuse_unusable_port", lambda *_: None)
    monkeypatch.setattr(dev, "stop_all", lambda: None)  # this process's children are other tests' engines
    parser = argparse.ArgumentParser()
    dev.add_to(parser.add_subparsers())
    options = parser.parse_args(["dev", "--state", str(tmp_path)])
    return lambda: dev.run(options)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts back what the command has put aside."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class At:
    """Raises SIGTERM at one step, counted from the moment that the stack was announced."""

    def __init__(self, step: int) -> None:
        self._left = step
        self._announced = False

    def announce(self, _: object, **__: object) -> None:
        self._announced = True

    def __call__(self, frame: FrameType, event: str, _: object) -> "At":
        if self._announced and event in {"line", "return"} and frame.f_code.co_filename != __file__:
            self._left -= 1
            if self._left < 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGTERM)
        return self


@pytest.mark.parametrize("step", range(60))
def test_a_signal_at_any_step_of_the_loop_ends_it(
    run: Callable[[], int], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    at = At(step)
    monkeypatch.setattr(dev, "_announce", at.announce)
    sys.settrace(at)
    try:
        assert run() == 0
    finally:
        sys.settrace(None)
