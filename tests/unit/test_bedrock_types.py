"""What botocore's model of Bedrock says that can come, against what is read: all of it is, or is left out for a reason.

A new version of it that can say something new fails here, until somebody has decided what it means to us.
"""

from botocore.loaders import Loader
from botocore.model import ServiceModel, StringShape, StructureShape

from minichat.providers import bedrock_converse
from minichat.providers.refusals import OUT_OF_CREDIT, RATE_LIMITED, TIMED_OUT
from tests.support.providers.official_types import (
    ABOUT_THE_CALL,
    IDENTIFIES,
    NOT_ASKED,
    SUMMED,
    THINKING,
    Examples,
    Reasons,
    Seen,
    accounted,
    entirely,
    places,
)


def converse() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")


def stream_of_converse() -> StructureShape:
    shape = converse().operation_model("ConverseStream").output_shape
    assert shape is not None
    found = shape.members["stream"]
    assert isinstance(found, StructureShape)
    return found


def test_every_event_and_exception_of_converse_is_known() -> None:
    members = stream_of_converse().members
    exceptions = {name for name, shape in members.items() if shape.metadata.get("exception")}
    events = set(members) - exceptions
    accounted(events, set(bedrock_converse.KNOWN_EVENTS) - {"error"}, {"the answer begins": ("messageStart",)})
    thrown = {shape.name for shape in converse().operation_model("ConverseStream").error_shapes}
    said = {name.casefold() for name in exceptions | thrown}
    left_out: Reasons = {
        "provider_error: the request, or who asks": (
            *("validationexception", "accessdeniedexception", "resourcenotfoundexception"),
        ),
        "provider_error: it may pass, and is asked again by its status": (
            *("internalserverexception", "serviceunavailableexception", "modelnotreadyexception"),
            *("modelerrorexception", "modelstreamerrorexception"),
        ),
    }
    accounted(said, said & (RATE_LIMITED | TIMED_OUT | OUT_OF_CREDIT), left_out)


OF_CONVERSE: Reasons = {
    THINKING: ("contentBlockDelta.delta.reasoningContent",),
    "what a tool is asked for, and what it finds": (
        *("contentBlockDelta.delta.toolUse", "contentBlockDelta.delta.toolResult"),
        *("contentBlockStart.start.toolUse.toolUseId", "contentBlockStart.start.toolUse.type"),
        *("contentBlockStart.start.toolResult.toolUseId", "contentBlockStart.start.toolResult.status"),
    ),
    NOT_ASKED: (
        *("contentBlockStart.start.image", "contentBlockDelta.delta.image"),
        *("messageStop.additionalModelResponseFields", "metadata.trace", "metadata.performanceConfig"),
    ),
    "documents are never sent along": (
        "contentBlockDelta.delta.citation.source",
        *(
            f"contentBlockDelta.delta.citation.location.{where}"
            for where in ("documentChar", "documentPage", "documentChunk", "searchResultLocation")
        ),
    ),
    "an address has it": ("contentBlockDelta.delta.citation.location.web.domain",),
    IDENTIFIES: tuple(f"contentBlock{what}.contentBlockIndex" for what in ("Start", "Delta", "Stop")),
    SUMMED: ("metadata.usage.totalTokens", "metadata.usage.cacheDetails"),
    ABOUT_THE_CALL: ("metadata.metrics", "metadata.serviceTier"),
}


def test_every_field_of_an_event_of_converse_is_read_or_left_out() -> None:
    examples = Examples(places(OF_CONVERSE))
    members = stream_of_converse().members
    start = examples.of_shape(members["contentBlockStart"], "contentBlockStart")
    for tool in ("toolUse", "toolResult"):
        # One of them at a time, as of every union.
        one = Seen(start["start"].path, {tool: start["start"][tool]}, examples.read)
        list(bedrock_converse.BedrockAnswer().said("contentBlockStart", start | {"start": one}))
    for kind in bedrock_converse.KNOWN_EVENTS - {"contentBlockStart", "error"}:
        list(bedrock_converse.BedrockAnswer().said(kind, examples.of_shape(members[kind], kind)))
    entirely(examples, OF_CONVERSE)


def test_every_end_of_converse_is_known() -> None:
    ends, reasons = bedrock_converse.ENDS, converse().shape_for("StopReason")
    assert isinstance(reasons, StringShape)
    assert set(reasons.enum) == {*ends.good, *ends.cut, *ends.failed}
