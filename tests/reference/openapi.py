"""The OpenAPI documents, as files: `docs/openapi.json` and `docs/openapi-admin.json`."""

import json
import warnings
from typing import Any

from pydantic.warnings import UnsupportedFieldAttributeWarning

from minichat.http import document
from minichat.http.admin.routes import openapi as admin
from minichat.settings import Settings

FOLDER = "docs"
_SERVERS = [
    {"url": "http://127.0.0.1:8080", "description": "The local stack (`make run`)"},
    {
        "url": "https://{api}.execute-api.{region}.amazonaws.com/{stage}",
        "description": "A deployment of your own",
        "variables": {
            "api": {"default": "a1b2c3d4e5", "description": "The id of its REST API"},
            "region": {"default": "us-east-1"},
            "stage": {"default": "dev", "enum": ["dev", "staging", "prod"]},
        },
    },
]
"""Where the API may be; the document that a deployment serves names its own address instead."""


def documents() -> dict[str, str]:
    """Each document by the name of its file."""
    prefix = Settings().url_prefix
    with warnings.catch_warnings():  # the one that the app mutes, too
        warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
        described = {"openapi.json": document.document(prefix), "openapi-admin.json": admin.document(prefix)}
    return {name: _text(one) for name, one in described.items()}


def _text(described: dict[str, Any]) -> str:
    return json.dumps(described | {"servers": _SERVERS}, indent=2, ensure_ascii=False) + "\n"
