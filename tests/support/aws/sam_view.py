"""What `sam local` would start each function with, and which paths it gets, by the SAM CLI itself; no Docker is asked.

Run by the SAM CLI's own Python, whose pins are not ours:
`.tools/sam/bin/python tests/support/aws/sam_view.py .aws-sam/build/sam-local.yaml .minichat/sam-local.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any


def view(template: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Of each function, what the template alone makes of its variables, and what it would start with; all routes."""
    # Only the SAM CLI's environment has it.
    from samcli.commands.local.lib.local_lambda import LocalLambdaRunner  # noqa: PLC0415
    from samcli.lib.providers.api_provider import ApiProvider  # noqa: PLC0415
    from samcli.lib.providers.sam_function_provider import SamFunctionProvider  # noqa: PLC0415
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider  # noqa: PLC0415

    stacks, _ = SamLocalStackProvider.get_stacks(str(template))
    provider = SamFunctionProvider(stacks)
    folder = str(template.parent)
    runner = LocalLambdaRunner(None, provider, folder, folder, env_vars_values=given)
    functions = {
        function.name: {
            "runtime": function.runtime,
            "template": function.environment["Variables"],
            "started": runner._make_env_vars(function).resolve(),
        }
        for function in provider.get_all()
    }
    routes = [
        (route.path, method, route.function_name)
        for route in ApiProvider(stacks, cwd=folder).api.routes
        for method in route.methods
    ]
    return {"functions": functions, "routes": routes}


if __name__ == "__main__":
    json.dump(view(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))), sys.stdout)
