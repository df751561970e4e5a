"""Puts faults into the rules and the edge, one at a time, and sees whether a test fails: `make mutants`."""

import argparse
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.judge import Verdict, judge
from tests.mutants.make import Mutant, sample
from tests.mutants.reach import reach
from tests.mutants.survivors import ALLOWED

ROOT = Path(__file__).parents[2]
OF = ("shared/minichat/domain", "shared/minichat/http")
EXAMPLES = tuple(ROOT / "shared/minichat/http" / name for name in ("about.py", "admin/about.py", "admin/bodies.py"))
"""What the OpenAPI documents show: nobody decides anything by their numbers. They are left alone."""
INTEGRATION = (
    *("edge", "reads", "refusals", "reactions", "quota", "replay", "endings", "day_counts"),
    *("lists", "attachment_lists", "attached", "thread_summary", "ingest", "resume", "bill_of_orphans"),
    *("api_keys", "decisions", "exports"),
)
E2E = (
    *("chats", "bad_input", "turns", "reactions", "browsers", "openapi", "attachments", "cancel", "citations"),
    *("large_bodies", "admin", "openai_clients"),
)
TESTS = (
    ("tests/unit",),
    tuple(f"tests/integration/test_{name}.py" for name in INTEGRATION),
    tuple(f"tests/e2e/test_{name}.py" for name in E2E),
)
"""What may judge: groups that run in processes of their own, since those of a group share one store."""
WANTED = 0.95
"""The part of the mutants that load which tests have to kill."""


LOADED_BEFORE = ("boto3", "botocore.session", "pynamodb.models", "fastapi", "httpx2", "jwt", "mangum")
"""What is not ours and what every test needs: loaded once, and there for each mutant's process."""


def main() -> int:
    """0 when enough of the mutants are killed, each survivor has its reason, and no reason is out of date."""
    options = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    options.add_argument("--size", type=int, default=120, help="how many mutants")
    options.add_argument("--seed", type=int, default=1, help="which ones")
    options.add_argument("--only", default="", help="of modules whose path has this in it")
    options.add_argument("--seconds", type=float, default=8, help="of tests for each, in each group")
    options.add_argument("--workers", type=int, default=os.cpu_count(), help="side by side")
    chosen = options.parse_args()
    paths = [path for folder in OF for path in (ROOT / folder).rglob("*.py") if chosen.only in str(path)]
    paths = [path for path in paths if path not in EXAMPLES]
    mutants = sample(paths, ROOT, chosen.size, chosen.seed)
    with TemporaryDirectory(prefix="minichat-mutants-") as folder, _stack(folder) as engine:
        # The gate's examples, and one engine, provider and worker for everybody.
        os.environ |= {"CI": "1", "TEST_STACK": folder, "TEST_ENGINE": engine}
        return _tell(_judged(mutants, chosen.workers, chosen.seconds))


@contextmanager
def _stack(folder: str) -> Iterator[str]:
    """A running local stack: its engine. Started from outside, since nothing of ours may be loaded here."""
    command = [sys.executable, "-m", "minichat.cli.main", "dev", "--port", "0", "--state", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("Ctrl-C" in line for line in process.stdout)
            yield json.loads((Path(folder) / "dev.json").read_text("utf-8"))["engine_url"]
        finally:  # or a test that fails while the mutants are prepared would be waited for, with the stack, for ever
            process.terminate()


def _judged(mutants: list[Mutant], workers: int, seconds: float) -> list[tuple[Mutant, Verdict]]:
    began = time.monotonic()
    reached = reach(ROOT, OF, TESTS)
    print(f"who reaches what: {time.monotonic() - began:.0f} s", flush=True)
    for name in LOADED_BEFORE:
        importlib.import_module(name)
    work = [(mutant, ROOT, [one.tests(mutant.path, mutant.number, seconds) for one in reached]) for mutant in mutants]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        verdicts = pool.starmap(judge, work, chunksize=1)
    print(f"{len(mutants)} mutants: {time.monotonic() - began:.0f} s", flush=True)
    return list(zip(mutants, verdicts, strict=True))


def _tell(judged: list[tuple[Mutant, Verdict]]) -> int:
    modules: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for mutant, verdict in judged:
        modules[mutant.path][verdict] += 1
    print(f"{'module':<44}  killed  survived  does not load")
    for path, counts in [*sorted(modules.items()), ("all", sum(modules.values(), Counter()))]:
        told = (f"{counts[verdict]:>{len(verdict)}}" for verdict in ("killed", "survived", "does not load"))
        print(f"{path:<44}  {'  '.join(told)}")
    survivors = [mutant for mutant, verdict in judged if verdict == "survived"]
    for mutant in survivors:
        print(f"\n{mutant.path}:{mutant.number}\n- {mutant.before}\n+ {mutant.after}")
        print(f"  {ALLOWED.get(mutant.key, 'nobody says why it may live')}")
    killed = sum(verdict == "killed" for _, verdict in judged)
    share = killed / max(killed + len(survivors), 1)
    untrue = [mutant.key for mutant, verdict in judged if verdict == "killed" and mutant.key in ALLOWED]
    print(f"\n{share:.1%} of those that load are killed", *(f"\nis killed, and said to live: {one}" for one in untrue))
    return int(share < WANTED or any(mutant.key not in ALLOWED for mutant in survivors) or bool(untrue))


if __name__ == "__main__":
    sys.exit(main())
