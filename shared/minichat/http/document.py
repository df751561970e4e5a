"""The OpenAPI document: generated from the routes, with every refusal and every stream event described."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from minichat import __version__
from minichat.http import examples, stream_schemas
from minichat.http.acting import action_of_route
from minichat.http.answer_views import never_null
from minichat.http.problems import documented
from minichat.http.response_models import MessageView
from minichat.http.sse import MEDIA_TYPE
from minichat.http.stream_schemas import REF

_BEARER: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "RS256 or ES256."}
}


def _none_null(schema: dict[str, Any]) -> None:
    """A member that a problem does not have is left out."""
    for member in schema["properties"].values():
        if "anyOf" in member:
            never_null(member)


class ProblemField(BaseModel):
    """One input that does not validate, and why."""

    field: str
    message: str
    code: str


class Problem(BaseModel):
    """A problem document (RFC 9457). `code` is the stable machine word; `title` carries the same word."""

    model_config = ConfigDict(json_schema_extra=_none_null)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    trace_id: str = Field(description="Finds the request in the logs.")
    errors: list[ProblemField] | None = Field(default=None, description="Which inputs are wrong, and why.")
    action: str | None = Field(default=None, description="With `forbidden`: what may not be done.")
    turn_state: str | None = Field(default=None, description="With `request_id_conflict`: that turn's state.")
    stream_url: str | None = Field(
        default=None, description="Where the stream of the turn that is in the way can be joined."
    )
    quota_scope: str | None = Field(default=None, description="With `quota_exceeded`: which limit is used up.")
    quota_tier: str | None = Field(
        default=None, description="With the scope `tokens`: whose limit it is, `premium` or `total`."
    )
    quota_period: str | None = Field(
        default=None, description="`daily` or `monthly`; absent for a limit that has no period, such as a chat's."
    )
    next_reset: datetime | None = Field(
        default=None, description="When the limit begins anew; absent where waiting for it does not help."
    )
    scope: str | None = Field(default=None, description="With `rate_limited`: which limit is reached.")
    whose: str | None = Field(default=None, description="With `rate_limited`: whose it is, `user` or `tenant`.")
    limit: int | None = Field(default=None, description="With `rate_limited`: the number that is allowed.")
    retry_after_seconds: int | None = None


_SELECT: dict[str, Any] = {
    "style": "form",
    "explode": False,
    "schema": {
        "type": "array",
        "items": {"type": "string", "enum": list(MessageView.model_fields)},
        "minItems": 1,
        "uniqueItems": True,
        "title": "$Select",
    },
}
"""Members, separated by commas."""

_TURN, _ATTACHMENT, _MESSAGE = "/turns/{request_id}", "/attachments/{attachment_id}", "/messages/{message_id}/reaction"
_LINKS: dict[tuple[str, str, str], tuple[dict[str, str], tuple[str, ...]]] = {
    ("post", "/messages:stream", "200"): ({"request_id": "$request.body#/request_id"}, (_TURN,)),
    ("get", "/messages", "200"): (
        {"request_id": "$response.body#/items/0/request_id", "message_id": "$response.body#/items/1/id"},
        (_TURN, _MESSAGE),
    ),
    ("post", "/attachments", "201"): ({"attachment_id": "$response.body#/id"}, (_ATTACHMENT,)),
    ("post", "/attachments/uploads", "201"): ({"attachment_id": "$response.body#/id"}, (_ATTACHMENT,)),
}
"""The operations that follow an operation of a chat, and where they find the id: in its response or request."""


@dataclass(frozen=True, slots=True)
class About:
    """What a document says of its API as a whole, and shows of each operation."""

    title: str
    summary: str
    description: str
    tags: Mapping[str, str]
    examples: Mapping[str, Any]
    """Of each schema that a request or an answer has, by its name; of one without a name, by its operation's."""
    parameters: Mapping[str, Any]
    """A value of each parameter, by its name alone or by its operation's and its own."""


@cache
def document(url_prefix: str) -> dict[str, Any]:
    """The document of the chat API, whichever function serves it."""
    from minichat.http.about import ABOUT  # noqa: PLC0415  it needs what is here
    from minichat.http.app import BUFFERED, STREAMING, routers  # noqa: PLC0415  the app's routes include this document

    models = stream_schemas.DATA.values()
    made = described(routers(BUFFERED | STREAMING), f"{url_prefix}/v1", ABOUT, *models)
    made["components"]["schemas"] |= stream_schemas.events()
    _link(made["paths"], f"{url_prefix}/v1/chats/{{chat_id}}")
    return made


def described(
    served: Iterable[APIRouter],
    prefix: str,
    about: About,
    *answered: type[BaseModel],
    taken: Iterable[type[BaseModel]] = (),
) -> dict[str, Any]:
    """The document of these routers, all below a prefix.

    `answered` and `taken` are models of answers and of bodies, besides those that routes name.
    """
    served = list(served)
    names = Counter(route.name for router in served for route in router.routes if isinstance(route, APIRoute))
    app = FastAPI(generate_unique_id_function=partial(_operation_id, names))
    acting: dict[tuple[str, str], str] = {}
    for router in served:
        app.include_router(router, prefix=prefix)
        acting |= actions(router, prefix)
    made = get_openapi(
        title=about.title,
        version=__version__,
        summary=about.summary,
        description=about.description,
        contact={"name": "The operator of this deployment"},
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        tags=[{"name": name, "description": description} for name, description in about.tags.items()],
        routes=app.routes,
    )
    made["components"] |= {"securitySchemes": _BEARER, "examples": {}}
    schemas = made["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _, models = models_json_schema(
        [(Problem, "validation"), *((data, "serialization") for data in answered)], ref_template=REF
    )
    schemas |= models["$defs"]
    for data in taken:
        schemas |= models_json_schema([(data, "validation")], ref_template=REF)[1]["$defs"]
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            operation["x-action"] = acting[method, path]
            _finish(operation, public=operation["x-action"] == "service:read")
            examples.show(operation, about.examples, about.parameters, made["components"]["examples"])
    return made


def _operation_id(names: Mapping[str, int], route: APIRoute) -> str:
    """What clients call an operation: `sendMessage`; of operations that a deployment, its tenants and users all have,
    `getPolicy`, `getTenantPolicy` and `getUserPolicy`."""
    verb, *words = route.name.split("_")
    if names[route.name] > 1:
        words[:0] = [whose for whose in ("user", "tenant") if f"{{{whose}_id}}" in route.path_format][:1]
    return verb + "".join(map(str.capitalize, words))


def actions(router: APIRouter, prefix: str) -> dict[tuple[str, str], str]:
    """The action of each documented operation of a router, by method and path."""
    return {
        (method.lower(), prefix + route.path_format): action
        for route in router.routes
        if isinstance(route, APIRoute) and (action := action_of_route(route)) is not None
        for method in route.methods or ()
    }


def _link(paths: dict[str, Any], chat: str) -> None:
    for (method, path, status), (found, begun) in _LINKS.items():
        links = paths[chat + path][method]["responses"][status].setdefault("links", {})
        for target, operations in paths.items():
            if not target.startswith(tuple(chat + one for one in begun)):
                continue
            ids = {name: place for name, place in found.items() if f"{{{name}}}" in target}
            for operation in operations.values():
                links[operation["operationId"]] = {
                    "operationId": operation["operationId"],
                    "parameters": {"chat_id": "$request.path.chat_id", **ids},
                }


def _finish(operation: dict[str, Any], *, public: bool) -> None:
    operation["summary"] = re.sub(
        "([A-Z])", lambda upper: f" {upper[1].lower()}", operation["operationId"]
    ).capitalize()
    operation["security"] = [] if public else [{"bearer": []}]
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _present(parameter["schema"])
        if parameter["name"] == "$select":
            parameter.update(_SELECT)
    # FastAPI documents a 422 wherever there is input; this API answers 400.
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    if public:  # only the gateway refuses, when there are too many requests
        responses["429"] = documented()[429]
    for response in responses.values():
        content = response.get("content", {})
        if MEDIA_TYPE in content:
            content[MEDIA_TYPE]["schema"] = stream_schemas.STREAM


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter when given: no header or query is null."""
    given = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return {name: value for name, value in schema.items() if name != "anyOf"} | given[0] if given else schema
