"""Writes the built template as `sam local` needs it, beside the one that is deployed (`make build`).

SAM mounts a path's routes in an order that differs with every start, and the last one wins: where one function has any
method and another has POST, a request would reach either. There, "any" becomes the methods that are left. And what the
artifacts were built with becomes the parameters' default, so that no command has to repeat it.

Run by the SAM CLI's own Python:
`.tools/sam/bin/python infra/for_sam_local.py .aws-sam/build PythonRuntime=python3.13 Architecture=arm64`.
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def say_which(template: dict[str, Any]) -> None:
    """Changes the template so that each path and method is one function's."""
    functions = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Serverless::Function"]
    events = [events for function in functions if (events := function.get("Events"))]
    taken = defaultdict(set)
    for each in events:
        for event in each.values():
            if event["Type"] == "Api":
                taken[event["Properties"]["Path"]].add(event["Properties"]["Method"])
    for each in events:
        for name, event in list(each.items()):
            if event["Type"] != "Api" or event["Properties"]["Method"] != "ANY":
                continue
            others = taken[event["Properties"]["Path"]] - {"ANY"}
            if others:
                del each[name]
                for method in (method for method in METHODS if method not in others):
                    each[name + method.title()] = event | {"Properties": event["Properties"] | {"Method": method}}


if __name__ == "__main__":
    # Only the SAM CLI's environment has it.
    from samcli.yamlhelper import yaml_dump, yaml_parse

    folder = Path(sys.argv[1])
    parsed = yaml_parse((folder / "template.yaml").read_text(encoding="utf-8"))
    say_which(parsed)
    for given in sys.argv[2:]:
        parameter, _, value = given.partition("=")
        parsed["Parameters"][parameter]["Default"] = value
    (folder / "sam-local.yaml").write_text(yaml_dump(parsed), encoding="utf-8")
