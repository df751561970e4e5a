"""Providers' keys: read from where the settings say, cached, and read again after a provider refused one."""

import asyncio
import threading
import time
from dataclasses import dataclass

from minichat.provider_entries import Secret
from minichat.settings import secret_from_environment

_SOURCES = {
    "env": "environment variable",
    "secretsmanager": "Secrets Manager secret",
    "ssm": "Parameter Store parameter",
}


OLD_SECONDS = 300
"""After which a key is read again, beside the calls that use it: a rotation needs no refusal to be noticed."""


def described(secret: Secret) -> str:
    """Where the key is, in words; never the key."""
    return f"{_SOURCES[secret.source]} {secret.name}"


def read(secret: Secret) -> str | None:
    """The key, or None when there is none or it cannot be read. May take seconds."""
    stored = secret_from_environment(secret.name) if secret.source == "env" else _from_aws(secret)
    # A key stored with `echo` ends in a newline, which no header can carry.
    return (stored or "").strip() or None


class ProviderKeys:
    """The keys of this process, by location; any number of threads may share them."""

    def __init__(self) -> None:
        self._known: dict[Secret, str] = {}
        self._read_at: dict[Secret, float] = {}

    def known(self, secret: Secret) -> str | None:
        """The key, if it was read before. An old one still counts, and is read again in the background."""
        key = self._known.get(secret)
        if key is not None and secret.source != "env" and self._is_old(secret):
            self._read_at[secret] = time.monotonic()  # one reader, and no hurry after a failure
            threading.Thread(target=self._read_again, args=(secret, key), name="key-reader", daemon=True).start()
        return key

    def get(self, secret: Secret) -> str | None:
        """The key, read once; None when it cannot be read: the next call tries again. May take seconds."""
        if (key := self.known(secret)) is None and (key := read(secret)) is not None:
            self._read_at[secret] = time.monotonic()
            self._known[secret] = key
        return key

    def refused(self, secret: Secret, key: str) -> None:
        """Forgets a key that a provider refused: it may have been rotated. A key read since then stays."""
        if self._known.get(secret) == key:
            self._known.pop(secret, None)

    def _is_old(self, secret: Secret) -> bool:
        return time.monotonic() - self._read_at.get(secret, 0) >= OLD_SECONDS

    def _read_again(self, secret: Secret, key: str) -> None:
        # One that cannot be read now stays: the provider refuses it if it counts no more.
        if (found := read(secret)) is not None and self._known.get(secret) == key:
            self._known[secret] = found


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """The key of one call."""

    keys: ProviderKeys
    secret: Secret

    async def current(self) -> str | None:
        """The key; None when there is none, or it cannot be read."""
        return self.keys.known(self.secret) or await asyncio.to_thread(self.keys.get, self.secret)

    async def instead_of(self, refused: str) -> str | None:
        """The current key after the provider refused this one; None if there is no other."""
        self.keys.refused(self.secret, refused)
        found = await self.current()
        return found if found != refused else None


def _from_aws(secret: Secret) -> str | None:
    # Only deployments that keep keys in AWS pay for the import.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
    # A session of its own: the default one must not make clients in two threads at once.
    session = boto3.session.Session()
    key: str | None
    try:
        if secret.source == "ssm":
            found = session.client("ssm", config=config).get_parameter(Name=secret.name, WithDecryption=True)
            key = found["Parameter"].get("Value")
        else:
            key = (
                session.client("secretsmanager", config=config)
                .get_secret_value(SecretId=secret.name)
                .get("SecretString")
            )
    except (BotoCoreError, ClientError):
        return None
    return key
