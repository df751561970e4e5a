"""Parts of payloads that point to something else."""

from datetime import datetime

from minichat.events.decisions import PayloadPart


class SecondaryRef(PayloadPart):
    """A copy of an attachment's file at another provider, named as in `settings.providers`."""

    storage_backend: str
    provider_file_id: str


class FrontierRef(PayloadPart):
    """A place in a chat: right after this message."""

    created_at: datetime
    message_id: str


class ApiKeyRef(PayloadPart):
    """An API key, never its secret; `account` is the service account that it acts for, within its scopes."""

    api_key_id: str
    name: str
    account: str
    scopes: list[str]
    expires_at: datetime
