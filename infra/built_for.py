"""Lets a built template say what it was built for: the given parameters become its defaults (`make build`).

So `sam local` and `sam deploy` take the runtime and the architecture of the artifacts beside it, unless they are told
others. Run by the SAM CLI's own Python:
`.tools/sam/bin/python infra/built_for.py .aws-sam/build/template.yaml PythonRuntime=python3.13 Architecture=arm64`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Only the SAM CLI's environment has it.
    from samcli.yamlhelper import yaml_dump, yaml_parse

    path = Path(sys.argv[1])
    template = yaml_parse(path.read_text(encoding="utf-8"))
    for given in sys.argv[2:]:
        name, _, value = given.partition("=")
        template["Parameters"][name]["Default"] = value
    path.write_text(yaml_dump(template), encoding="utf-8")
