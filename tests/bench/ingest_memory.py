"""Memory that the ingest function takes at most for the largest files there may be, beside what it is given.

Each file is taken in by a process of its own, as by a fresh instance: from a bucket of the engine, to the scripted
provider. The image is small as a file and has 100 megapixels once it is decoded.
"""

import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from minichat.domain.attachment import AttachmentStatus
from minichat.local import buckets, queues
from minichat.local.engine import Engine
from minichat.local.tables import load_template, project_root
from minichat.services import attachments, chats
from minichat.services.policy_in_force import Rules
from minichat.settings import current
from minichat.storage import keys
from minichat.storage.attachments import read
from tests.conftest import fresh_tables
from tests.support.domain.builders import a_call, a_model, a_policy
from tests.support.providers.files import a_scripted_provider

MIB = 1024 * 1024
FILES = {
    "a document of 25 MiB": ("report.pdf", "application/pdf"),
    "an image of 100 megapixels": ("image.png", "image/png"),
}
_TAKE_IN = """
import json, re, sys
from pathlib import Path
from functions.attachment_ingest.handler import handler
from minichat.local.lambda_events import Context
def peak():
    # Not getrusage, which also counts what the process was before it became this program.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
started = peak()
answer = handler(json.load(sys.stdin), Context("AttachmentIngestFunction", timeout=120))
assert answer == {"batchItemFailures": []}, answer
print(json.dumps([started, peak()]), file=sys.stderr)
"""


def main() -> None:
    """Prints a line for each."""
    given = load_template(project_root() / "template.yaml")["Resources"]["AttachmentIngestFunction"]["Properties"]
    print(f"\nMemory of the ingest function (MiB; it is given {given['MemorySize']})")
    print(f"{'':28}{'at start':>10}{'at most':>10}{'of it':>8}")
    with tempfile.TemporaryDirectory() as name, a_scripted_provider(Path(name)) as provider:
        engine = Engine(project_root(), "ministack", Path(name))
        try:
            os.environ |= _environment(engine.endpoint, provider)
            current.cache_clear()
            for label, (filename, content_type) in FILES.items():
                started, most = _take_in(filename, content_type)
                print(f"{label:28}{started:10.0f}{most:10.0f}{most / given['MemorySize']:8.0%}")
        finally:
            if engine.child is not None:
                engine.child.stop()


def _environment(endpoint: str, provider: str) -> dict[str, str]:
    """The settings of a deployment at this engine, with all that it needs made."""
    store = fresh_tables(endpoint)
    urls = queues.create(project_root(), endpoint, store.region)
    return {
        "MINICHAT_STORE__ENDPOINT": endpoint,
        "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
        "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
        "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider, "allow_insecure": True}}),
        "MINICHAT_METRICS_NAMESPACE": "",
        **queues.variables(project_root(), endpoint, urls),
        **buckets.create(project_root(), endpoint, store.region, urls),
    }


def _take_in(filename: str, content_type: str) -> tuple[float, float]:
    """MiB of the process once it is ready, and at most."""
    content = _document() if filename.endswith(".pdf") else _image()
    rules = Rules(current(), a_policy(a_model(general_config={"tool_support": {"file_search": True}})))
    chat = chats.create(a_call(), chats.NewChat(), rules)
    new = attachments.NewFile(filename, content_type, len(content))
    made = attachments.add(a_call(), chat, new, content, rules)
    key = keys.upload(made.tenant_id, made.chat_id, made.attachment_id)
    event: dict[str, Any] = {"Records": [_message(json.dumps({"Records": [{"s3": {"object": {"key": key}}}]}))]}
    run = subprocess.run(
        [sys.executable, "-c", _TAKE_IN],
        input=json.dumps(event),
        capture_output=True,
        text=True,
        check=False,
        cwd=project_root(),
    )
    assert run.returncode == 0, run.stderr
    taken = read(made.tenant_id, made.chat_id, made.attachment_id)
    assert taken is not None
    assert taken.status is AttachmentStatus.READY, taken
    started, most = json.loads(run.stderr.splitlines()[-1])
    return started / 1024, most / 1024


def _message(body: str) -> dict[str, Any]:
    return {"messageId": "1", "body": body, "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {}}


def _document() -> bytes:
    head = b"%PDF-1.7\n"
    return head + random.Random(7).randbytes(25 * MIB - len(head))


def _image() -> bytes:
    made = io.BytesIO()
    Image.new("RGBA", (10_000, 10_000), (200, 30, 30, 128)).save(made, "PNG")
    return made.getvalue()


if __name__ == "__main__":
    main()
