"""A client of the HTTP API for commands at a terminal; every failure is one readable sentence."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import httpx2

from minichat.providers.sse import EventParser

TIMEOUT = httpx2.Timeout(30, connect=5)
SILENCE_SECONDS = 90
"""A stream that is silent this long is lost: a live server sends a ping at least every minute."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class ApiRefused(Exception):
    """The server refused; the text is a sentence for people."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        self.status = status
        self.code = code
        super().__init__(sentence)


class Unreachable(Exception):
    """No answer, or one that broke off; the text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event of a stream; the number of a ping is 0."""

    name: str
    data: dict[str, Any]
    number: int


class Api:
    """One user's way to the API. May be used by several threads."""

    def __init__(self, url: str, token: str | None, transport: httpx2.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx2.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=_is_outside(url), transport=transport
        )

    def close(self) -> None:
        """Closes every connection."""
        self._http.close()

    def call(self, method: str, *path: str, body: Any = None, **params: Any) -> Any:
        """The answer's JSON; None when it has no body.

        Raises ApiRefused, Unreachable.
        """
        with self._translated():
            answer = self._http.request(method, _joined(path), params=params, **_sent(body))
            if not answer.is_success:
                raise _refused(answer)
            if answer.status_code == 204:
                return None
            try:
                return answer.json()
            except ValueError:
                raise self._not_ours() from None

    def post_form(self, url: str, fields: Mapping[str, str], file: BinaryIO) -> None:
        """Posts a file with a form from the API, to the form's URL and without the token.

        Raises ApiRefused, Unreachable.
        """
        with self._translated():
            answer = httpx2.post(url, data=fields, files={"file": file}, timeout=TIMEOUT, trust_env=_is_outside(url))
        if not answer.is_success:
            raise ApiRefused(answer.status_code, "", f"The file was not taken: {answer.status_code}.")

    @contextmanager
    def events(
        self, method: str, *path: str, body: Any = None, after: int | None = None
    ) -> Iterator[Iterator[SseEvent]]:
        """The events of a stream as they arrive, after number `after`; leaving the block closes it.

        Raises ApiRefused, Unreachable.
        """
        about = _sent(body)
        if after:
            about["headers"]["last-event-id"] = str(after)
        timeout = httpx2.Timeout(SILENCE_SECONDS, connect=5)
        with (
            self._translated(),
            self._http.stream(method, _joined(path), timeout=timeout, **about) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise _refused(answer)
            if answer.status_code != 204 and not answer.headers["content-type"].startswith("text/event-stream"):
                raise self._not_ours()
            yield _parsed(answer)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise Unreachable(f"Nobody answers at {self.url}.") from None
        except httpx2.TimeoutException:
            raise Unreachable("The server is silent.") from None
        except (httpx2.HTTPError, httpx2.InvalidURL):
            raise Unreachable("The connection broke.") from None

    def _not_ours(self) -> ApiRefused:
        return ApiRefused(502, "not_mini_chat", f"What answers at {self.url} is not Mini Chat's API: is the URL whole?")


def _is_outside(url: str) -> bool:
    """Whether to use a proxy from the environment: only for hosts other than this machine."""
    return urlsplit(url).hostname not in _LOOPBACK


def _joined(path: tuple[str, ...]) -> str:
    # A slash in a name would end its part: the operator's API takes it encoded twice. Nothing else has one.
    return "/" + "/".join(quote(part.replace("/", "%2F"), safe=":") for part in path)


def _sent(body: Any) -> dict[str, Any]:
    if body is None:
        return {"headers": {}}
    # In ASCII, so that even half a surrogate pair from a terminal reaches the server, which judges it.
    return {"content": json.dumps(body).encode(), "headers": {"content-type": "application/json"}}


def _parsed(answer: httpx2.Response) -> Iterator[SseEvent]:
    parser = EventParser()
    try:
        for chunk in answer.iter_bytes():
            for event in parser.feed(chunk):
                yield SseEvent(event.name, json.loads(event.data), int(event.id or 0))
    except ValueError:
        raise Unreachable("The stream cannot be understood.") from None


def _refused(answer: httpx2.Response) -> ApiRefused:
    try:
        problem = answer.json()
        code = str(problem["code"])
    except (ValueError, KeyError, TypeError):
        return ApiRefused(answer.status_code, "", f"The server answers {answer.status_code} {answer.reason_phrase}.")
    said = str(problem.get("detail") or problem.get("title") or "").rstrip(".")
    # The detail of a problem with fields only repeats the first field.
    fields = "; ".join(f"{error.get('field')}: {error.get('message')}" for error in problem.get("errors") or ())
    again = problem.get("retry_after_seconds")
    sentence = f"{fields.rstrip('.') or said} [{code}]."
    return ApiRefused(answer.status_code, code, sentence + (f" Try again in {again} s." if again is not None else ""))
