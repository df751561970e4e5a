"""The console (`GET /console`): a page of static files that talks to the API as any page would (decision 36).

It is below the API's own paths: whatever leads to the API, a stage, a domain, a proxy, leads to it. Its files have the
names that they have in the repository, below a folder named by what they contain, so that browsers may keep them.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

import minichat
from minichat.http.public_path import public_path
from minichat.settings import Settings

PAGE = "console"
SIGN_IN = "sign_in"
"""In a request's state: how somebody signs in at a server that makes tokens itself."""
_FOLDERS = ("console", "clients/javascript/src")
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
}
_FOREVER = "public, max-age=31536000, immutable"
_COMPRESSED_FROM = 512
"""Bytes; below it, compression gains nothing."""

router = APIRouter()


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """A file as it is sent: its bytes, the same compressed, what they are, and their hash."""

    content: bytes
    compressed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "ConsoleFile":
        """These bytes."""
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content, gzip.compress(content, mtime=0), media_type, etag)

    def answer(self, request: Request, headers: dict[str, str]) -> Response:
        """The file, or 304 where the browser has it; compressed where the browser and what is between can take it."""
        headers = {**headers, "etag": self.etag, "vary": "accept-encoding"}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        # The gateway would send compressed bytes as base64: only types that it is told of are binary to it.
        takes_it = "gzip" in request.headers.get("accept-encoding", "") and "aws.event" not in request.scope
        if takes_it and len(self.content) >= _COMPRESSED_FROM:
            return Response(
                self.compressed, media_type=self.media_type, headers={**headers, "content-encoding": "gzip"}
            )
        return Response(self.content, media_type=self.media_type, headers=headers)


@dataclass(frozen=True, slots=True)
class ConsoleFiles:
    """All of them by name, the page with the others' address in it, and the name of what they are together."""

    page: ConsoleFile
    files: dict[str, ConsoleFile]
    version: str


@cache
def console_files() -> ConsoleFiles:
    """Read once in a process: a checkout has them at its root, a function's zip beside the package.

    Raises HTTPException, 404, where there are none.
    """
    package = Path(minichat.__file__).parent
    root = next(
        (root for root in (package.parent, *package.parents[1:3]) if (root / "console/index.html").exists()), None
    )
    if root is None:
        raise HTTPException(404)
    files = {
        path.relative_to(root).as_posix(): ConsoleFile.of(path.read_bytes(), _TYPES[path.suffix])
        for folder in _FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in _TYPES
    }
    page = files.pop("console/index.html").content.decode()
    version = hashlib.sha256("".join(name + file.etag for name, file in files.items()).encode()).hexdigest()[:16]
    where = f"{PAGE}/{version}"
    modules = (name for name in files if name.endswith(".js"))
    preloads = "\n    ".join(f'<link rel="modulepreload" href="{where}/{name}" />' for name in modules)
    text = page.replace("{files}", where).replace("{preloads}", preloads)
    return ConsoleFiles(ConsoleFile.of(text.encode(), _TYPES[".html"]), files, version)


async def _page(request: Request) -> Response:
    headers = _headers(_settings(request)) | {"cache-control": "no-cache"}
    return console_files().page.answer(request, headers)


async def _slashed(request: Request) -> Response:
    return RedirectResponse(public_path(request, request.url.path.rstrip("/")), 308)


async def _config(request: Request) -> Response:
    """What the page has to know before it can ask: how somebody signs in."""
    _settings(request)
    config = {"sign_in": "token", **request.scope["state"].get(SIGN_IN, {})}
    return JSONResponse(config, headers={"cache-control": "no-cache"})


async def _file(request: Request) -> Response:
    headers = _headers(_settings(request))
    found = console_files()
    file = found.files.get(request.path_params["name"])
    if file is None:
        raise HTTPException(404)
    # A page from before a deployment still gets files; they are not kept under a name that means others.
    is_current = request.path_params["version"] == found.version
    return file.answer(request, headers | {"cache-control": _FOREVER if is_current else "no-cache"})


def _settings(request: Request) -> Settings:
    """Raises HTTPException, 404, where the deployment has no console."""
    settings: Settings = request.app.state.minichat.settings
    if not settings.console:
        raise HTTPException(404)
    return settings


def _headers(settings: Settings) -> dict[str, str]:
    """Nothing but our own files runs or is loaded, nobody frames the page, and no other site hears of it."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": f"'self' {_uploads(settings)}".strip(),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }


def _uploads(settings: Settings) -> str:
    """Where large files are posted to."""
    files = settings.attachments
    if files.endpoint:
        return files.endpoint
    region = settings.store.region
    return (
        f"https://{files.bucket}.s3.amazonaws.com https://{files.bucket}.s3.{region}.amazonaws.com"
        if files.bucket
        else ""
    )


router.add_route(f"/{PAGE}", _page)
router.add_route(f"/{PAGE}/", _slashed)
router.add_route(f"/{PAGE}/config.json", _config)
router.add_route(f"/{PAGE}/{{version}}/{{name:path}}", _file)
