"""Puts functions onto managed instances, in a template that was built (`make build COMPUTE=managed-instances`).

SAM takes no condition in `CapacityProviderConfig`, so no parameter can choose it alone. What is chosen stands in the
template nevertheless: in the metadata of each such function, from where it becomes properties here. Provisioned
concurrency goes, because SAM takes no function with both. Run by the SAM CLI's own Python:
`.tools/sam/bin/python infra/on_instances.py .aws-sam/build/template.yaml`.
"""

import sys
from pathlib import Path
from typing import Any


def put_on_instances(template: dict[str, Any]) -> None:
    """Changes the template, and the rule by which it can only be deployed as it was built."""
    for resource in template["Resources"].values():
        if place := resource.get("Metadata", {}).pop("OnInstances", None):
            del resource["Properties"]["ProvisionedConcurrencyConfig"]
            resource["Properties"].update(place)
    (assertion,) = template["Rules"]["BuiltForIt"]["Assertions"]
    assertion["Assert"]["Fn::Equals"][1] = "managed-instances"


if __name__ == "__main__":
    # Only the SAM CLI's environment has it.
    from samcli.yamlhelper import yaml_dump, yaml_parse

    path = Path(sys.argv[1])
    parsed = yaml_parse(path.read_text(encoding="utf-8"))
    put_on_instances(parsed)
    path.write_text(yaml_dump(parsed), encoding="utf-8")
