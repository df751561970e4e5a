"""The variables that `sam local` would start each function with, by the SAM CLI's own resolver; no Docker is asked.

Run by the SAM CLI's own Python, whose pins are not ours:
`.tools/sam/bin/python tests/support/aws/sam_variables.py .aws-sam/build/template.yaml .minichat/sam-local.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any


def resolved(template: Path, given: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Of each function, what the template alone makes of its variables, and what it would start with."""
    # Only the SAM CLI's environment has it.
    from samcli.commands.local.lib.local_lambda import LocalLambdaRunner  # noqa: PLC0415
    from samcli.lib.providers.sam_function_provider import SamFunctionProvider  # noqa: PLC0415
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider  # noqa: PLC0415

    stacks, _ = SamLocalStackProvider.get_stacks(str(template))
    provider = SamFunctionProvider(stacks)
    folder = str(template.parent)
    runner = LocalLambdaRunner(None, provider, folder, folder, env_vars_values=given)
    return {
        function.name: {
            "template": function.environment["Variables"],
            "started": runner._make_env_vars(function).resolve(),
        }
        for function in provider.get_all()
    }


if __name__ == "__main__":
    json.dump(resolved(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))), sys.stdout)
