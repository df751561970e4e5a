"""The template's event source mappings, and one invocation of the function of a mapping."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minichat.local.lambda_events import LambdaContext, Record, failures
from minichat.observability import logger

Handler = Callable[[dict[str, Any], object], Any]


@dataclass(frozen=True, slots=True)
class Mapping:
    """An event source of a function, as the template describes it."""

    function: str
    handler: str
    kind: str
    source: str
    properties: dict[str, Any]
    places: Path = Path()
    condition: str | None = None


def mapped(template: dict[str, Any], places: Path = Path()) -> list[Mapping]:
    """Every event source mapping of the template; the source is the logical name of the nested stack's output.

    `places` is the folder that remembers how far streams have been read.
    """
    return [
        Mapping(
            name,
            resource["Properties"]["Handler"],
            event["Type"],
            event["Properties"].get("Stream") or event["Properties"]["Queue"],
            event["Properties"] | {"Timeout": resource["Properties"]["Timeout"]},
            places,
            resource.get("Condition"),
        )
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] in {"DynamoDB", "SQS"}
    ]


def invoke(mapping: Mapping, handler: Handler, records: Sequence[Record], known: Sequence[str]) -> list[str] | None:
    """Which records failed, of those named in `known`; None when all of them did.

    An answer that comes after the function's timeout does not count: Lambda would have ended it before.
    """
    context = LambdaContext(mapping.function, mapping.properties["Timeout"])
    try:
        answer = handler({"Records": list(records)}, context)
    except Exception:  # the edge of an invocation
        logger.exception("an invocation failed", extra={"function": mapping.function})
        return None
    if not context.get_remaining_time_in_millis():
        logger.error("an invocation took too long", extra={"function": mapping.function})
        return None
    failed = failures(answer, known)
    if failed is None:
        logger.error("an answer names what its batch does not have", extra={"function": mapping.function})
    return failed
