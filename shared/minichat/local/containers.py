"""The local stack as containers of `sam local` see it: where this machine is, and the settings of their functions."""

import json
import re
import socket
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import to_json

from minichat.local.engine import EngineMissing
from minichat.local.process import Child
from minichat.local.tables import load_template
from minichat.settings import PREFIX, Settings

FILE = "sam-local.json"
"""In the state folder, in the format of `sam local --env-vars`."""
IN_A_MACHINE_OF_THEIR_OWN = "host.docker.internal"
"""What this machine is called where containers run in a virtual one: Docker Desktop, Finch, Colima."""
AUDIT_SINK = "/tmp/audit"  # noqa: S108  of a container, which sees no folder of this machine
_BRIDGE = """
import docker, json
print(json.dumps(docker.from_env().networks.get("bridge").attrs["IPAM"]["Config"][0]))
"""
_HERE = re.compile(r"(?<=//)(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0):(\d+)")
_COMPARED = {f"{PREFIX}AUTH", f"{PREFIX}AUTH__ISSUER", f"{PREFIX}CORS__ALLOWED_ORIGINS"}
"""Settings whose addresses nobody calls: they must stay as tokens and browsers say them."""


def address(root: Path) -> str:
    """How containers reach this machine: the gateway of Docker's bridge, or the name that virtual machines have for it.

    Raises EngineMissing when there is no SAM CLI, or it would find no Docker.
    """
    python = root / ".tools" / "sam" / "bin" / "python"
    if not python.exists():
        raise EngineMissing("The SAM CLI is not installed: run `make tools`.")
    # Its own client: whatever it finds is what the functions will run on.
    run = subprocess.run([python, "-c", _BRIDGE], capture_output=True, text=True, check=False)  # noqa: S603  ours
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineMissing(f"Containers need Docker, which does not answer (is DOCKER_HOST right?): {reason}")
    bridge = json.loads(run.stdout)
    # Engines before 23 do not name it.
    gateway: str = bridge.get("Gateway") or str(ip_network(bridge["Subnet"])[1])
    return gateway if _is_of_this_machine(gateway) else IN_A_MACHINE_OF_THEIR_OWN


def _is_of_this_machine(host: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def variables(root: Path, settings: Settings, jwks_url: str) -> dict[str, str]:
    """The value that the local stack gives to each variable of `template.yaml`, which is all that SAM hands over."""
    template = load_template(root / "template.yaml")
    groups = [template["Globals"]["Function"], *(r.get("Properties", {}) for r in template["Resources"].values())]
    names = {name for group in groups for name in group.get("Environment", {}).get("Variables", {})}
    names = {name for name in names if name.startswith(PREFIX)}
    local = {f"{PREFIX}AUTH__JWKS": jwks_url, f"{PREFIX}AUDIT__SINK": AUDIT_SINK}
    return {name: local.get(name) or _text(name, settings, names) for name in sorted(names)}


def _text(name: str, settings: Settings, names: set[str]) -> str:
    """A setting as its variable says it, nothing where it is absent; of a group, what has no variable of its own."""
    value: Any = settings
    for key in name.removeprefix(PREFIX).lower().split("__"):
        value = getattr(value, key)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        own = {key for key in type(value).model_fields if f"{name}__{key.upper()}" in names}
        return value.model_dump_json(exclude=own, exclude_defaults=True)
    if isinstance(value, bool | dict | tuple):
        return to_json(value, exclude_none=True).decode()
    return "" if value is None else str(value)


def seen_from(host: str, variables: dict[str, str]) -> tuple[dict[str, str], list[int]]:
    """The variables with the addresses that are good in a container, and the ports that these lead to."""
    ports: set[int] = set()

    def there(address: re.Match[str]) -> str:
        ports.add(int(address[1]))
        return f"{host}:{address[1]}"

    seen = {name: text if name in _COMPARED else _HERE.sub(there, text) for name, text in variables.items()}
    return seen, sorted(ports)


def doors(host: str, ports: list[int], logs: Path) -> Child | None:
    """What lets containers in to these ports of the loopback interface; nothing where their machine leads there."""
    if not _is_of_this_machine(host):
        return None
    command = [sys.executable, "-m", "minichat.local.doors", "--at", host, *map(str, ports)]
    return Child("the doors", command, logs)


def written(state: Path, variables: dict[str, str]) -> Path:
    """Writes the variables, the same for every function, for the user alone: secrets are among them."""
    file = state / FILE
    file.touch(mode=0o600)
    file.write_text(json.dumps({"Parameters": variables}, indent=2), encoding="utf-8")
    return file


def api(root: Path, state: Path, port: int) -> Child:
    """`sam local start-api` with what was built and written: the API's functions in containers, behind this port.

    Raises EngineMissing when nothing was built, ChildFailed when it does not start.
    """
    built = root / ".aws-sam" / "build" / "sam-local.yaml"
    if not built.exists():
        raise EngineMissing("There are no built functions: run `make build`, or `make sam-local` for everything.")
    # It looks for its settings beside the template.
    found: list[str | Path] = ["--template-file", built, "--config-file", root / "samconfig.toml"]
    command = [root / ".tools" / "sam" / "bin" / "sam", "local", "start-api", *found, "--env-vars", state / FILE]
    sam = Child("the API of sam", [*command, "--port", str(port)], state / "logs")
    sam.wait_until_it_answers(f"http://127.0.0.1:{port}/")
    return sam
