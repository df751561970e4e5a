"""A client of the built functions: requests as API Gateway passes them on, answers as it would read them."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.aws.emulator import Built, Emulator
from tests.support.http.gateway import PREFIX, proxy_event, resource_of, wire

END_OF_PRELUDE = b"\0" * 8


@dataclass(frozen=True)
class Reply:
    """What a function answered: a response, or the kind of its error."""

    status: int | None
    headers: dict[str, str]
    body: bytes
    error: str = ""

    @property
    def json(self) -> Any:
        """The body, when it is JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The names of the events of a stream."""
        return re.findall(r"^event: (\w+)$", self.body.decode(), re.MULTILINE)

    def __str__(self) -> str:
        if self.status is None:
            return self.error
        problem = "problem" in self.headers.get("content-type", "")
        return f"{self.status} {self.json['code']}" if problem else str(self.status)


@dataclass
class EmulatedGateway:
    """The functions behind the API, each in an emulator; `calls` has every method and route that was called."""

    behind: dict[tuple[str, str], str]
    """The function behind each resource and method, as the template says."""
    emulators: dict[str, Emulator]
    token: str
    calls: set[tuple[str, str]] = field(default_factory=set)

    def call(
        self,
        method: str,
        route: str,
        of: Mapping[str, str] = MappingProxyType({}),
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer to a request to a route of these parameters."""
        self.calls.add((method, route))
        path = route.format_map(of)
        resources = {resource for resource, _ in self.behind}
        event = proxy_event(method, path, self.token, body, query=query, headers=headers, resources=resources)
        resource, _ = resource_of(resources, PREFIX + path)
        function = self.behind.get((resource, method)) or self.behind[resource, "ANY"]
        return self.invoke(function, wire(event))

    def invoke(self, function: str, event: bytes) -> Reply:
        """The answer to any event."""
        return _reply(self.emulators[function].invoke(event))


def functions_behind(artifacts: Built) -> dict[tuple[str, str], str]:
    """The function behind each resource and method, as the template says."""
    return {
        (event["Properties"]["Path"], event["Properties"]["Method"]): function
        for function, properties in artifacts.functions.items()
        for event in properties.get("Events", {}).values()
        if event["Type"] == "Api"
    }


@contextmanager
def emulated_gateway(artifacts: Built, settings: dict[str, str], logs: Path) -> Iterator[EmulatedGateway]:
    """Both functions with these settings, for the time of a `with`; the caller is whom TOKEN is of."""
    behind = functions_behind(artifacts)
    with ExitStack() as stack:
        emulators = {
            function: stack.enter_context(artifacts.emulator(function, settings, log=logs / f"{function}.log"))
            for function in set(behind.values())
        }
        yield EmulatedGateway(behind, emulators, settings["TOKEN"])


def _reply(answer: bytes) -> Reply:
    prelude, streamed, body = answer.partition(END_OF_PRELUDE)
    if streamed:
        head = json.loads(prelude)
        return Reply(head["statusCode"], head["headers"], body)
    document = json.loads(answer)
    if "statusCode" not in document:
        return Reply(None, {}, answer, document["errorType"])
    assert not document["isBase64Encoded"], "the gateway passes base64 on as it is"
    return Reply(document["statusCode"], document["headers"], document["body"].encode())
