"""Providers' keys, read from where the settings say they are."""

from minichat.settings import Secret, secret_from_environment

_SOURCES = {"env": "environment variable", "secretsmanager": "Secrets Manager secret"}


def described(secret: Secret) -> str:
    """Where the key is, in words; never the key."""
    return f"{_SOURCES[secret.source]} {secret.name}"


def read(secret: Secret) -> str | None:
    """The key, or None when there is none or it cannot be read. May take seconds."""
    stored = secret_from_environment(secret.name) if secret.source == "env" else _from_aws(secret.name)
    # Whoever stores a key with `echo` stores a newline, too; no header can carry it.
    return (stored or "").strip() or None


def _from_aws(name: str) -> str | None:
    # Only deployments that keep the key in Secrets Manager pay for the import.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
    try:
        # A session of its own: the default one must not make clients in two threads at once.
        client = boto3.session.Session().client("secretsmanager", config=config)
        found = client.get_secret_value(SecretId=name)
    except (BotoCoreError, ClientError):
        return None
    key: str | None = found.get("SecretString")
    return key
