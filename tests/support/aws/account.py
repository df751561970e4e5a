"""An AWS account for `minichat deploy check`: the engine's, but for what no engine on this machine answers.

The engine keeps secrets, buckets and stacks. What is told here instead, and so is what the tests say and not what AWS
would: the quotas of API Gateway, Lambda's account settings, API Gateway's role for logs, the type registry of a region,
the states of a stack that an engine passes through too fast to be seen, and those of a certificate before it is issued.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

SERVICES = ("CLOUDFORMATION", "LAMBDA", "SERVICE_QUOTAS", "API_GATEWAY", "ACM")
_TYPE = """<DescribeTypeResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeTypeResult>
<Type>RESOURCE</Type><TypeName>AWS::ApiGateway::Method</TypeName><Schema>{}</Schema></DescribeTypeResult>
<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></DescribeTypeResponse>"""


@dataclass(slots=True)
class Account:
    """What the account and its region are like; `refuses` are calls that its caller is not allowed to make."""

    concurrency: int = 1000
    timeout_milliseconds: float = 29_000
    streams: bool = True
    log_role: str | None = None
    status: str | None = None
    certificate: str = "ISSUED"
    refuses: set[str] = field(default_factory=set)


@contextmanager
def serving(account: Account, engine: str) -> Iterator[dict[str, str]]:
    """Serves the account beside the engine; gives the variables by which clients of AWS find both."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_lambda = self.path.startswith("/2016-08-19/account-settings")
            said = {"AccountLimit": {"UnreservedConcurrentExecutions": account.concurrency}}
            self._say("GetAccountSettings" if is_lambda else "GetAccount", said if is_lambda else _gateway(account))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if "ServiceQuotas" in self.headers.get("X-Amz-Target", ""):
                self._say("GetServiceQuota", {"Quota": {"Value": account.timeout_milliseconds}})
                return
            if parse_qs(body.decode()).get("Action") == ["DescribeType"]:
                schema = json.dumps({"properties": {"ResponseTransferMode": {}} if account.streams else {}})
                self._answer(200, _TYPE.format(schema.replace('"', "&quot;")).encode(), "text/xml")
                return
            told, code = _asked(self._same(body))
            self._answer(code, _as_it_is_now(told, account).encode(), "text/xml")

        def _same(self, body: bytes) -> Request:
            names = ("Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Target")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            return Request(engine, data=body, headers=headers)

        def _say(self, call: str, said: dict[str, Any]) -> None:
            if call in account.refuses:
                self._answer(403, json.dumps({"__type": "AccessDeniedException", "message": "no"}).encode())
            else:
                self._answer(200, json.dumps(said).encode())

        def _answer(self, code: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        yield {"AWS_ENDPOINT_URL": engine, **{f"AWS_ENDPOINT_URL_{name}": here for name in SERVICES}}
        server.shutdown()


def _asked(request: Request) -> tuple[str, int]:
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.read().decode(), answer.status
    except HTTPError as error:
        return error.read().decode(), error.code


def _as_it_is_now(told: str, account: Account) -> str:
    """What the engine tells of a stack or a certificate, in the state that the account says."""
    if account.status is not None:
        told = re.sub(r"<StackStatus>\w+<", f"<StackStatus>{account.status}<", told)
    return told.replace('"ISSUED"', f'"{account.certificate}"')


def _gateway(account: Account) -> dict[str, Any]:
    return {} if account.log_role is None else {"cloudwatchRoleArn": account.log_role}
