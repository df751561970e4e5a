"""A key that was rotated is noticed without a deployment, and without a call that waits for it."""

import threading

import pytest

from minichat.provider_entries import Secret
from minichat.providers import credentials
from tests.support.patience import PATIENCE

SECRET = Secret(source="ssm", name="/mini-chat/providers/openai")


def test_an_old_key_is_read_again_beside_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, reading, read = "old", threading.Event(), threading.Event()

    def slow(secret: Secret) -> str:
        if threading.current_thread() is not threading.main_thread():
            assert reading.wait(PATIENCE)
            read.set()
        return stored

    monkeypatch.setattr(credentials, "read", slow)
    keys = credentials.ProviderKeys()
    assert keys.get(SECRET) == "old"
    stored = "new"
    assert keys.known(SECRET) == "old"
    monkeypatch.setattr(credentials, "OLD_SECONDS", 0)
    assert keys.known(SECRET) == "old"  # the call does not wait
    monkeypatch.setattr(credentials, "OLD_SECONDS", 300)
    reader = next(one for one in threading.enumerate() if one.name.startswith("key-"))
    reading.set()
    reader.join(PATIENCE)
    assert read.is_set()
    assert keys.known(SECRET) == "new"


def test_a_key_that_cannot_be_read_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "read", lambda secret: "old")
    keys = credentials.ProviderKeys()
    keys.get(SECRET)
    monkeypatch.setattr(credentials, "read", lambda secret: None)
    keys._read_again(SECRET, "old")
    assert keys.known(SECRET) == "old"
