"""Files given to a chat over HTTP, in both ways."""

import io
import time
import zipfile
from typing import Any

import httpx2
from PIL import Image

from tests.support.http.client import User

MB = 1024 * 1024
PDF = b"%PDF-1.7\nThe moon is 384,400 km away."
ENDS_SECONDS = 60


def a_picture(width: int = 300, height: int = 200, kind: str = "PNG") -> bytes:
    """An image of one colour."""
    written = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(written, kind)
    return written.getvalue()


def a_document(content: bytes = b"<w/>") -> bytes:
    """An Office document, as far as anybody here looks at it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", content)
    return written.getvalue()


def uploaded(
    user: User, chat_id: str, content: bytes = PDF, name: str = "moon.pdf", kind: str = "application/pdf", **said: str
) -> httpx2.Response:
    """The answer to a file in the request, which has these headers."""
    return user.http.post(f"/chats/{chat_id}/attachments", files={"file": (name, content, kind)}, headers=said)


def announced(user: User, chat_id: str, **said: Any) -> httpx2.Response:
    """The answer to a file that is to come by a form."""
    body = {"filename": "moon.pdf", "content_type": "application/pdf", "size_bytes": len(PDF), **said}
    return user.http.post(f"/chats/{chat_id}/attachments/uploads", json=body)


def posted(form: dict[str, Any], content: bytes, **changed: str) -> int:
    """The status that a form is answered with, some of its fields changed."""
    fields = {**form["fields"], **changed}
    answer = httpx2.post(form["url"], data=fields, files={"file": ("x", content)}, trust_env=False)
    return answer.status_code


def got(user: User, chat_id: str, attachment_id: str) -> dict[str, Any]:
    """An attachment as it is now, whether it was summarized yet or not."""
    answer = user.http.get(f"/chats/{chat_id}/attachments/{attachment_id}")
    assert answer.status_code == 200, answer.text
    return unsummarized(answer.json())


def unsummarized(attachment: dict[str, Any]) -> dict[str, Any]:
    """An attachment without what comes some time after it is ready."""
    return {name: value for name, value in attachment.items() if name not in ("doc_summary", "summary_updated_at")}


def ended(user: User, chat_id: str, attachment: dict[str, Any]) -> dict[str, Any]:
    """The attachment once it is ready or failed."""
    until = time.monotonic() + ENDS_SECONDS
    while (now := got(user, chat_id, attachment["id"]))["status"] not in ("ready", "failed"):
        assert time.monotonic() < until, now
        time.sleep(0.05)
    return now


def refused(answer: httpx2.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """The problem document of a refusal, which is this one and names this field."""
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field]
    return problem
