"""`minichat dev` with a model server of one's own, and one state folder for one stack."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from tests.conftest import running_stack
from tests.support.providers.own_servers import WORDS, own_server

MINICHAT = [sys.executable, "-m", "minichat.cli.main"]


@pytest.mark.parametrize(("server", "model"), [("ollama", "llama3.2:1b"), ("vllm", "Qwen/Qwen2.5-0.5B-Instruct")])
def test_one_command_leads_to_a_streamed_answer(tmp_path: Path, server: Literal["ollama", "vllm"], model: str) -> None:
    flags = ("--provider-kind", "openai_chat", "--model", model)
    with own_server(server, model) as url, running_stack(tmp_path, "--provider-url", url, *flags) as stack:
        line = next(line for line in stack.said.splitlines() if line.strip().startswith("curl -N"))
        run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
        assert run.stdout.count("event: delta") == len(WORDS)
        assert f'"effective_model":"{model}"' in run.stdout
        command = [*MINICHAT, "dev", "--state", str(tmp_path), "--port", "0"]
        again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert (again.returncode, str(stack.about["base_url"]) in again.stderr) == (2, True)


def test_the_providers_words_reach_the_developer_and_no_client(tmp_path: Path) -> None:
    words = "CUDA out of memory while loading"
    arguments = ("--model", "m", "--no-auth")
    with (
        own_server("vllm", "m", fails=words) as url,
        running_stack(tmp_path, "--provider-url", url, *arguments) as stack,
    ):
        assert "Bearer" not in stack.said
        line = next(line for line in stack.said.splitlines() if line.strip().startswith("curl -N"))
        run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
        assert "event: error" in run.stdout
        assert words not in run.stdout
        assert stack.process.stdout is not None
        assert any(words in said for said in stack.process.stdout)
        local = ("--state", str(tmp_path))
        asked = _minichat("chat", "-m", "Hello", *local)
        assert (asked.returncode, words in asked.stderr) == (1, True)
        examined = _minichat("doctor", *local)
        (line,) = [line for line in examined.stdout.splitlines() if "answers of providers" in line]
        assert (line.startswith("warning"), words in line) == (True, True)
        remote = _minichat("chat", "-m", "Hello", "--url", stack.base_url)
        assert (remote.returncode, words in remote.stdout + remote.stderr) == (1, False)


def _minichat(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MINICHAT, *arguments], check=False, capture_output=True, text=True, timeout=120)
