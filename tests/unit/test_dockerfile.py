"""The Dockerfile, read: what it copies and calls is there, and the README starts it."""

import json
import re
from pathlib import Path

from minichat.cli.main import parser

ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()


def _of(instruction: str) -> list[str]:
    return [line.removeprefix(instruction).strip() for line in LINES if line.startswith(f"{instruction} ")]


def test_what_it_copies_is_there_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sources = [source for line in _of("COPY") for source in line.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists() or source in ignored] == []


def test_what_it_makes_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (made,) = [line.removeprefix("make ").split() for line in _of("RUN") if line.startswith("make ")]
    assert [
        target for target in made if not re.search(rf"^(.* )?{re.escape(target)}[ :]", makefile, re.MULTILINE)
    ] == []


def test_what_it_starts_is_a_command_that_others_can_reach_at_the_exposed_port() -> None:
    program, *arguments = json.loads(_of("ENTRYPOINT")[0])
    options = parser().parse_args([*arguments, "--no-auth"])
    assert (program, options.host, [str(options.port)]) == (".venv/bin/minichat", "0.0.0.0", _of("EXPOSE"))
    assert [str(options.state)] == _of("VOLUME")


def test_the_guide_starts_it() -> None:
    said = (ROOT / "docs" / "guides" / "run.md").read_text(encoding="utf-8")
    assert "docker build -t minichat-dev ." in said
    assert f"docker run --rm -it -p {_of('EXPOSE')[0]}:{_of('EXPOSE')[0]} -v minichat:{_of('VOLUME')[0]}" in said
