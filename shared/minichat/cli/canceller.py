"""Ctrl-C while an answer streams."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from minichat.cli.screen import Screen
from minichat_client import MiniChat, MiniChatError

_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Canceller:
    """While an answer streams, the first Ctrl-C cancels it and the second one abandons it.

    After a cancel the stream is still read: its last event says how it ended.
    """

    def __init__(self, api: MiniChat, chat_id: str, screen: Screen) -> None:
        self._api = api
        self._chat_id = chat_id
        self._screen = screen
        self._request_id: str | None = None
        self._asked = False
        self._before: _Handler = None

    def __enter__(self) -> "Canceller":
        self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def began(self, request_id: str) -> None:
        """Names the answer, which cannot be cancelled before."""
        self._request_id = request_id
        if self._asked:
            self._start()

    def _interrupted(self, _signal: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        if self._request_id is not None:
            self._start()

    def _start(self) -> None:
        # A signal handler can interrupt anything, so it must neither print nor use the connection.
        threading.Thread(target=self._cancel, daemon=True).start()

    def _cancel(self) -> None:
        assert self._request_id is not None
        try:
            self._api.cancel(self._chat_id, self._request_id)
        except MiniChatError as error:
            self._screen.note(f"Not cancelled: {error}")
