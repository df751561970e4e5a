"""`aws`, as far as docs/deploy.md uses it: options become the members of boto3's model, or the command fails.

Run by the tests of the guide in place of the AWS CLI, against the engine that `AWS_ENDPOINT_URL` names. That engine
signs Cognito's tokens with no real key, so the same claims are signed anew, with the key in the folder `SIGNS_WITH`.
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import jmespath  # type: ignore[import-untyped]
import jwt
from botocore import xform_name

from minichat.local.issuer import Issuer


def main(arguments: list[str]) -> None:
    """Runs one command, and prints what it was asked for."""
    service, operation, *rest = arguments
    options = _options(rest)
    query, text = _one(options.pop("query", [])), options.pop("output", []) == ["text"]
    if (service, operation) == ("s3", "rm"):
        _empty(rest[0], options)
        return
    client: Any = boto3.client(service)  # type: ignore[call-overload]
    if operation == "wait":
        waited, options = rest[0], _options(rest[1:])
        client.get_waiter(waited.replace("-", "_")).wait(**_members(client, "describe_stacks", options))
        return
    if (service, operation) == ("cloudformation", "deploy"):
        _deploy(client, options)
        return
    method = operation.replace("-", "_")
    answer = getattr(client, method)(**_members(client, method, options))
    if method == "admin_initiate_auth":
        claims = jwt.decode(answer["AuthenticationResult"]["IdToken"], options={"verify_signature": False})
        issuer = Issuer(Path(os.environ["SIGNS_WITH"]))
        times: Any = {"now": datetime.now(UTC), "lifetime": timedelta(hours=1)}
        answer["AuthenticationResult"]["IdToken"] = issuer.token("none", "none", **times, **claims)
    if query is not None and text:
        print(_text(jmespath.search(query, answer)))


def _options(words: list[str]) -> dict[str, list[str]]:
    """The words after each option; a plain word belongs to the one before it."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            options[name] = []
        elif name:
            options[name].append(word)
    return options


def _members(client: Any, method: str, options: dict[str, list[str]]) -> dict[str, Any]:
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    shapes = {xform_name(name, "-"): (name, shape) for name, shape in model.input_shape.members.items()}
    return {
        shapes[name][0]: _value(shapes[name][1], said) for name, said in options.items()
    }  # KeyError: no such option


def _value(shape: Any, said: list[str]) -> Any:
    if shape.type_name == "list":
        return [_pairs(one) if shape.member.type_name == "structure" else one for one in said]
    if shape.type_name == "map":
        return _pairs(said[0])
    if shape.type_name == "boolean":
        return True
    (one,) = said
    return one


def _pairs(text: str) -> dict[str, str]:
    """`Name=email,Value=ann@example.com`."""
    return dict(part.split("=", 1) for part in text.split(","))


def _deploy(client: Any, options: dict[str, list[str]]) -> None:
    assert options.keys() == {"stack-name", "template-file"}
    name, template = _one(options["stack-name"]), _one(options["template-file"])
    assert name is not None
    assert template is not None
    client.create_stack(StackName=name, TemplateBody=Path(template).read_text(encoding="utf-8"))
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def _empty(url: str, options: dict[str, list[str]]) -> None:
    assert options == {"recursive": []}
    client = boto3.client("s3")
    name = url.removeprefix("s3://")
    for one in client.list_objects_v2(Bucket=name).get("Contents", ()):
        client.delete_object(Bucket=name, Key=one["Key"])


def _one(said: list[str]) -> str | None:
    return said[0] if said else None


def _text(found: Any) -> str:
    if isinstance(found, list):
        rows = [one if isinstance(one, list) else [one] for one in found]
        return "\n".join("\t".join(map(str, row)) for row in rows)
    return str(found)


if __name__ == "__main__":
    main(sys.argv[1:])
