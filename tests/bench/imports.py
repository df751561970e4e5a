"""What a cold start pays for imports: each function's handler module beside a bare handler of the same framework."""

import os
import re
import statistics
import subprocess
import sys

ROUNDS = 11
BARE = "import fastapi, boto3; app = fastapi.FastAPI(); boto3.client('dynamodb', region_name='us-east-1')"
FUNCTIONS = {
    "functions.api": "import functions.api.handler",
    "functions.stream": "import functions.stream.handler",
}
OWN = "minichat"
PARTS = ("fastapi", "starlette", "pydantic", "pynamodb", "botocore", "jwt", "httpx2", "mangum", "aws_lambda_powertools")


def main() -> None:
    """Prints milliseconds per handler module, its ratio to the bare handler, and what it is made of."""
    environment = {**os.environ, "MINICHAT_CURSOR_SECRET": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    bare = _milliseconds(BARE, environment)
    print(f"\nImport of each function's handler module (median of {ROUNDS} fresh processes, milliseconds)")
    print(f"{'bare FastAPI + boto3 client':32}{bare:8.0f}")
    for name, statement in FUNCTIONS.items():
        spent = _milliseconds(statement, environment)
        print(f"{name:32}{spent:8.0f}   ratio {spent / bare:.2f}")
        made_of = _made_of(statement, environment)
        print("   of it: " + ", ".join(f"{part} {own:.0f}" for part, own in made_of))


def _milliseconds(statement: str, environment: dict[str, str]) -> float:
    script = f"import time\nt = time.perf_counter()\n{statement}\nprint('TOOK', time.perf_counter() - t)"
    found = []
    for _ in range(ROUNDS):
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        found.append(float(run.stdout.rsplit("TOOK", 1)[1]) * 1000)
    return statistics.median(found)


def _made_of(statement: str, environment: dict[str, str]) -> list[tuple[str, float]]:
    """Milliseconds of each part's own modules, the largest first, from one run under -X importtime."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    spent = dict.fromkeys((*PARTS, OWN, "other"), 0.0)
    for own, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", run.stderr):
        top = module.split(".")[0]
        spent[top if top in spent else "other"] += int(own) / 1000
    return sorted(((part, own) for part, own in spent.items() if own >= 1), key=lambda entry: -entry[1])


if __name__ == "__main__":
    main()
