"""SAM template to plain CloudFormation, as a deployment does it: what linters and tests look at is what AWS would make.

Run by the SAM CLI's own Python, whose pins are not ours:
`.tools/sam/bin/python tests/support/aws/translate.py template.yaml`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

PACKAGED = "s3://packaged/code"
NESTED = "https://packaged.s3.amazonaws.com/nested.yaml"


def translate(template: Path) -> dict[str, Any]:
    """The CloudFormation template that SAM makes of this one, with code and nested templates as if uploaded."""
    # Only the SAM CLI's environment has the translator.
    from samtranslator.parser.parser import Parser  # noqa: PLC0415
    from samtranslator.translator.translator import Translator  # noqa: PLC0415
    from samtranslator.yaml_helper import yaml_parse  # noqa: PLC0415

    parsed = yaml_parse(template.read_text(encoding="utf-8"))
    for resource in parsed["Resources"].values():
        properties = resource.get("Properties", {})
        for key in properties.keys() & {"CodeUri", "ContentUri"}:
            properties[key] = PACKAGED
        if resource["Type"] == "AWS::Serverless::Application":
            properties["Location"] = NESTED
    translated: dict[str, Any] = Translator({}, Parser()).translate(parsed, {})
    return translated


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    json.dump(translate(Path(sys.argv[1])), sys.stdout, indent=2)
