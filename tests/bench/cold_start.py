"""Cold starts of the built functions under Lambda's runtime interface emulator, beside bare handlers started alike.

Init is what the emulator reports: from the start of the process until it asks for its first event. The first invocation
follows it. The bare handlers are a FastAPI app with one route and a DynamoDB client of boto3, behind the same adapters.
"""

import re
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.aws.emulator import Built, built
from tests.support.http.gateway import proxy_event

ROUNDS = 11
SETTINGS = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "MINICHAT_CURSOR_SECRET": "secret",
    "MINICHAT_AUTH__JWKS": "jwks.json",
    "MINICHAT_STORE__ENDPOINT": "http://127.0.0.1:9",
}
_APP = """
import boto3
from fastapi import FastAPI
client = boto3.client("dynamodb")
app = FastAPI()
@app.get("/mini-chat/v1/health")
async def health():
    return {"status": "ok"}
"""
BARE = {
    "ApiFunction": _APP + "from mangum import Mangum\nhandler = Mangum(app, lifespan='off')\n",
    "StreamFunction": _APP,
}
"""What each function is compared with; functions that are not behind the gateway are told alone."""


def main() -> None:
    """Prints sizes of the artifacts, and init and first invocation of each function with its ratio to the bare one."""
    with tempfile.TemporaryDirectory() as folder:
        made = built(Path(folder) / "built")
        print("\nArtifacts (megabytes, unpacked)")
        for name in [*made.functions, "DependenciesLayer", "ImagesLayer", "CedarLayer", "StreamRuntimeLayer"]:
            size = sum(file.stat().st_size for file in (made.folder / name).rglob("*") if file.is_file())
            print(f"{name:28}{size / 1e6:8.2f}")
        print(f"\nCold starts under the runtime interface emulator (median of {ROUNDS}, milliseconds)")
        print(f"{'':28}{'init':>8}{'first':>8}{'ratio init':>12}{'ratio both':>12}")
        for name in made.functions:
            folders = [name, made.with_code(name, f"Bare{name}", BARE[name])] if name in BARE else [name]
            # In turns, so that whatever else the machine does meets both.
            rounds = [[_start(made, name, folder) for folder in folders] for _ in range(ROUNDS)]
            ours, *bare = [_median(starts) for starts in zip(*rounds, strict=True)]
            ratios = ""
            for init, first in bare:
                print(f"{'bare, as ' + name:28}{init:8.0f}{first:8.0f}")
                ratios = f"{ours[0] / init:12.2f}{sum(ours) / (init + first):12.2f}"
            print(f"{name:28}{ours[0]:8.0f}{ours[1]:8.0f}{ratios}")


def _start(made: Built, name: str, folder: str) -> tuple[float, float]:
    """Milliseconds of init and of the first invocation."""
    log = made.folder / "emulator.log"
    with made.emulator(name, SETTINGS, folder=folder, log=log) as emulator:
        began = time.perf_counter()
        answer = emulator.invoke(proxy_event("GET", "/health"))
        whole = (time.perf_counter() - began) * 1000
    assert b"errorType" not in answer or name not in BARE, answer
    found = re.search(r"INIT REPORT\(durationMs: ([\d.]+)\)", log.read_text())
    assert found is not None, log.read_text()
    return float(found[1]), whole - float(found[1])


def _median(starts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    inits, firsts = zip(*starts, strict=True)
    return statistics.median(inits), statistics.median(firsts)


if __name__ == "__main__":
    main()
