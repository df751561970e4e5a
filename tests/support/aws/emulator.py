"""Built functions under AWS's own Lambda runtime interface emulator, with nothing around them but their layers.

The emulator (its binary comes with the SAM CLI) is the Runtime API as Lambda implements it. It collects a streamed
answer before it passes it on, and takes one invocation at a time; `runtime_api` shows the chunks as they come.
"""

import fcntl
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx2
import pytest

from minichat.local.process import free_port
from minichat.local.tables import load_template
from tests.clocks import MOVED
from tests.conftest import ROOT
from tests.support.patience import PATIENCE

SAM = ROOT / ".tools" / "sam"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MACHINE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
END_SECONDS = 30
# What AWS puts beside a function: the client of the Runtime API and what that needs.
RUNTIME_CLIENT = ("awslambdaric", "simplejson", "snapshot-restore-py")


@dataclass(frozen=True)
class Built:
    """What `make build` makes of the template, for this machine, and an interpreter that sees nothing else."""

    folder: Path
    template: dict[str, Any]

    @property
    def functions(self) -> dict[str, dict[str, Any]]:
        """Properties of each function, by logical id."""
        resources = self.template["Resources"].items()
        return {name: r["Properties"] for name, r in resources if r["Type"] == "AWS::Serverless::Function"}

    def command(self, function: str) -> list[str]:
        """What starts the function's process, as Lambda starts it: through its wrapper, when it has one."""
        properties = self.functions[function]
        wrapper = properties.get("Environment", {}).get("Variables", {}).get("AWS_LAMBDA_EXEC_WRAPPER")
        start = [str(self.folder / "python"), "-m", "awslambdaric", properties["Handler"]]
        return start if wrapper is None else [str(self._layer_file(Path(wrapper).name)), *start]

    def environment(self, function: str, settings: dict[str, str], folder: str | None = None) -> dict[str, str]:
        """The function's variables: these settings, and where its code (or that of `folder`) and its layers are."""
        named = [*self.functions[function].get("Layers", []), *self.template["Globals"]["Function"]["Layers"]]
        # SAM writes a reference in its long form.
        layers = [str(self.folder / layer["Ref"] / "python") for layer in named]
        task = str(self.folder / (folder or function))
        return {
            **{name: value for name, value in settings.items() if name.startswith(("MINICHAT_", "AWS_"))},
            "PATH": os.environ["PATH"],
            "LAMBDA_TASK_ROOT": task,
            "PYTHONPATH": os.pathsep.join([task, *layers, str(self.folder / "runtime")]),
            "_HANDLER": self.functions[function]["Handler"],
            # The template's runtime: its client answers in UTF-8, those before 3.12 in ASCII with escapes.
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
            "AWS_LAMBDA_FUNCTION_NAME": function,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": settings.get("AWS_LAMBDA_FUNCTION_TIMEOUT", "60"),
        }

    def emulator(
        self, function: str, settings: dict[str, str], *, folder: str | None = None, log: Path = Path(os.devnull)
    ) -> "Emulator":
        """The function (or that of `folder`), with these settings, to be started in an emulator."""
        return Emulator(self.command(function), self.environment(function, settings, folder), log=log)

    def with_code(self, function: str, name: str, source: str) -> str:
        """A folder, so named, with this source in the place of the function's handler and nothing else."""
        module = self.folder / name / "/".join(self.functions[function]["Handler"].split(".")[:-1])
        module.parent.mkdir(parents=True, exist_ok=True)
        module.with_suffix(".py").write_text(source, encoding="utf-8")
        return name

    def _layer_file(self, name: str) -> Path:
        return next(self.folder.glob(f"*Layer/{name}"))


@cache
def built(folder: Path) -> Built:
    """What `make build` makes, for this machine, in a folder; whoever comes first builds, in whichever process."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _build(folder)
            (folder / "complete").touch()
    return Built(folder, load_template(folder / "template.yaml"))


def _build(folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TARGET_PYTHON": PYTHON,
        "TARGET_ARCHITECTURE": MACHINE,
        "SAM_CLI_TELEMETRY": "0",
    }
    command = [str(SAM / "bin" / "sam"), "build", "--build-dir", str(folder), "--cache-dir", str(folder / "cache")]
    overrides = ["--parameter-overrides", f"PythonRuntime=python{PYTHON}", f"Architecture={MACHINE}"]
    run = subprocess.run([*command, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    local = [str(SAM / "bin" / "python"), str(ROOT / "infra" / "for_sam_local.py"), str(folder), *overrides[1:]]
    subprocess.run(local, check=True)
    _runtime(folder / "runtime")
    # Without site-packages: what is not in the function or its layers cannot be imported.
    interpreter = folder / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {getattr(sys, "_base_executable", sys.executable)} -S "$@"\n')
    interpreter.chmod(0o755)


class Emulator:
    """One runtime process in one emulator, for the time of a `with`; one invocation at a time.

    `host` is where its Runtime API is.
    """

    def __init__(self, command: list[str], environment: dict[str, str], *, log: Path = Path(os.devnull)) -> None:
        self._command, self._environment, self._log = command, environment, log

    def __enter__(self) -> "Emulator":
        if MOVED:
            pytest.skip("AWS's emulator counts an invocation's time by the real clock")
        port, self.host = free_port(), f"127.0.0.1:{free_port()}"
        self._url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        rie = next(SAM.glob(f"lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-{MACHINE}"))
        command = [str(rie), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
        command += ["--runtime-api-address", self.host, *self._command]
        with self._log.open("wb") as log:
            # `python -m` looks for modules where it is started, which on Lambda is the function itself.
            task = self._environment.get("LAMBDA_TASK_ROOT")
            self._process = subprocess.Popen(command, cwd=task, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False)
            except httpx2.TransportError:
                assert self._process.poll() is None, "the emulator ended"
                assert time.monotonic() < deadline, "the emulator does not answer"
            else:
                return self

    def __exit__(self, *_: object) -> None:
        # Asked to end it takes the runtime with it; killed it would leave that behind.
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def invoke(self, event: dict[str, Any] | bytes) -> bytes:
        """What the function answers, as the emulator passes it on."""
        content = event if isinstance(event, bytes) else json.dumps(event).encode()
        return httpx2.post(self._url, content=content, timeout=PATIENCE, trust_env=False).content


def _runtime(folder: Path) -> None:
    """The Runtime API client's packages alone, linked from where they are installed."""
    folder.mkdir(exist_ok=True)
    for name in RUNTIME_CLIENT:
        found = distribution(name)
        for top in {Path(str(file)).parts[0] for file in found.files or ()} - {".."}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
