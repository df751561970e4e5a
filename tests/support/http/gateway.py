"""API Gateway as a function sees it: which resource a request is of, and the event that its REST API makes of it."""

import base64
import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt

from minichat.local.issuer import KEY_ID, Issuer

PREFIX = "/mini-chat/v1"
ANY_PATH = f"{PREFIX}/{{proxy+}}"
TOKEN_BYTES = 1500
"""Of a token as identity providers make them: with groups, scopes, and who signed in how."""


def proxy_event(
    method: str,
    path: str,
    token: str | None = None,
    body: object = None,
    *,
    query: Mapping[str, str | list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    resources: Collection[str] = (ANY_PATH,),
) -> dict[str, Any]:
    """A REST API proxy event of a regional endpoint, with all that AWS puts into one.

    `path` is below the prefix; a body that is neither bytes nor text is sent as JSON. The resource is the one of
    `resources` that the gateway would take.
    """
    now, request_id, trace = datetime.now(UTC), str(uuid4()), uuid4().hex
    url = f"{PREFIX}{path}"
    resource, parameters = resource_of(resources, url)
    given = {
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
        **({} if token is None else {"Authorization": f"Bearer {token}"}),
        "Content-Type": "application/json",
        "Host": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
        "Origin": "https://chat.example.com",
        "Referer": "https://chat.example.com/",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0",
        "X-Amzn-Trace-Id": f"Root=1-{trace[:8]}-{trace[8:]}",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Port": "443",
        "X-Forwarded-Proto": "https",
        **(headers or {}),
    }
    text, is_base64 = _body(body, given["Content-Type"])
    repeated = {name: [value] if isinstance(value, str) else value for name, value in (query or {}).items()}
    return {
        "resource": resource,
        "path": url,
        "httpMethod": method,
        "headers": given,
        "multiValueHeaders": {name: [value] for name, value in given.items()},
        "queryStringParameters": {name: values[-1] for name, values in repeated.items()} or None,
        "multiValueQueryStringParameters": repeated or None,
        "pathParameters": parameters or None,
        "stageVariables": {"release": "live"},
        "requestContext": {
            "resourceId": "q8x2v1",
            "authorizer": {"principalId": str(uuid4()), "integrationLatency": 12},
            "resourcePath": resource,
            "httpMethod": method,
            "extendedRequestId": "TbXqQF1aFiAEJvw=",
            "requestTime": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "path": f"/dev{url}",
            "accountId": "123456789012",
            "protocol": "HTTP/1.1",
            "stage": "dev",
            "domainPrefix": "a1b2c3d4e5",
            "requestTimeEpoch": int(now.timestamp() * 1000),
            "requestId": request_id,
            "identity": _identity(given["User-Agent"]),
            "domainName": given["Host"],
            "deploymentId": "k4w9zt",
            "apiId": "a1b2c3d4e5",
        },
        "body": text,
        "isBase64Encoded": is_base64,
    }


def wire(event: Mapping[str, Any]) -> bytes:
    """The event as Lambda gets it: compact, in UTF-8."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def sized(event: dict[str, Any], size: int) -> bytes:
    """The event as Lambda gets it, with exactly so many bytes: its body, a JSON object, gets a member that fills it."""
    body = json.loads(event["body"])
    padded = event | {"body": json.dumps(body | {"padding": ""})}
    missing = size - len(wire(padded))
    assert missing >= 0, f"the event has {-missing} bytes more without its padding"
    return wire(padded | {"body": json.dumps(body | {"padding": "x" * missing})})


def a_long_token(issuer: Issuer, tenant: str, user: str) -> str:
    """A token of this issuer, as long as those of identity providers are; it lasts an hour."""
    short = issuer.token(tenant, user, now=datetime.now(UTC), lifetime=timedelta(hours=1))
    claims = jwt.decode(short, options={"verify_signature": False}) | {
        "token_use": "access",
        "scope": "openid email profile chat/read chat/write",
        "email": f"{user}@example.com",
        "cognito:groups": [],
    }
    missing = (TOKEN_BYTES - len(_signed(claims, issuer))) * 3 // 4
    claims["cognito:groups"] = [f"group-{number:02}" for number in range(missing // len('"group-00", '))]
    return _signed(claims, issuer)


def _signed(claims: dict[str, Any], issuer: Issuer) -> str:
    return jwt.encode(claims, issuer._key, algorithm="ES256", headers={"kid": KEY_ID})


def resource_of(resources: Collection[str], url: str) -> tuple[str, dict[str, str]]:
    """The resource that API Gateway takes for a URL, and its parameters; it may be none of `resources`.

    Read strictly: the most specific one, part by part, and no way back from it.
    """
    at, parameters, left = "", dict[str, str](), url.strip("/").split("/")
    while left:
        below = {path.removeprefix(f"{at}/").split("/")[0] for path in resources if path.startswith(f"{at}/")}
        variable = next((part for part in below if re.fullmatch(r"{\w+}", part)), None)
        if left[0] in below:
            at = f"{at}/{left[0]}"
        elif variable is not None:
            at = f"{at}/{variable}"
            parameters[variable[1:-1]] = left[0]
        else:
            return f"{at}/{{proxy+}}", parameters | {"proxy": "/".join(left)}
        del left[0]
    return at, parameters


def _body(body: object, content_type: str) -> tuple[str | None, bool]:
    """The body as the event has it, and whether as base64: of `BinaryMediaTypes` the template has one."""
    if body is None:
        return None, False
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    raw = content.encode() if isinstance(content, str) else content
    if content_type.startswith("multipart/form-data"):
        return base64.b64encode(raw).decode(), True
    return raw.decode(errors="replace"), False


def _identity(user_agent: str) -> dict[str, str | None]:
    absent = [
        *("cognitoIdentityPoolId", "cognitoIdentityId", "cognitoAuthenticationType", "cognitoAuthenticationProvider"),
        *("accountId", "caller", "principalOrgId", "accessKey", "userArn", "user"),
    ]
    return {**dict.fromkeys(absent), "sourceIp": "203.0.113.7", "userAgent": user_agent}
