"""Has a deployment with other parameters publish other versions, in a template that was built (`make deploy`).

Callers reach a function by an alias of a version, and a version keeps the variables it was published with. SAM
publishes a new one when the text of the function's properties changes; the values of parameters are no part of that
text, so they would reach no caller. A fingerprint of them in each description makes them one. Run by the SAM CLI's own
Python:
`.tools/sam/bin/python infra/new_versions.py .aws-sam/build/template.yaml . ENVIRONMENT`.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any


def note_parameters(template: dict[str, Any], given: Any) -> None:
    """Changes the descriptions of functions with versions; `given` is `parameter_overrides` of samconfig.toml."""
    fingerprint = sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:12]
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if "AutoPublishAlias" in properties:
            properties["Description"] += f" (parameters {fingerprint})"


if __name__ == "__main__":
    # Only the SAM CLI's environment has them.
    from samcli.lib.config.samconfig import SamConfig
    from samcli.yamlhelper import yaml_dump, yaml_parse

    path, folder, environment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    parsed = yaml_parse(path.read_text(encoding="utf-8"))
    note_parameters(parsed, SamConfig(folder).get_all(["deploy"], "parameters", environment).get("parameter_overrides"))
    path.write_text(yaml_dump(parsed), encoding="utf-8")
