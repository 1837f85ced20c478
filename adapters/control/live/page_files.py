"""Owns the files of the page at `/`: they are read once, at the start, and served from memory.

They hold no data, so that nobody needs a credential for them. No path of a request reaches the file system: a name that was not there at the
start is unknown.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parents[1] / "page"
START = "index.html"
PREFIX = "/page/"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
"""Files with other endings are not served."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    # A browser asks each time whether its copy is still the daemon's.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
ETAG_CHARS = 32


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page. `path` is where it is served."""

    path: str
    content_type: str
    body: bytes
    etag: str


def page_files(folder: Path = FOLDER) -> list[PageFile]:
    """Reads the files of the page: the start at `/`, and the others of known types, also those in folders, below PREFIX."""
    return list(_read(folder))


def _read(folder: Path) -> Iterator[PageFile]:
    for file in sorted(folder.rglob("*")):
        name, content_type = file.relative_to(folder).as_posix(), TYPES.get(file.suffix)
        if content_type is None or (file.suffix == ".html" and name != START):
            continue
        body = file.read_bytes()
        etag = hashlib.sha256(body).hexdigest()[:ETAG_CHARS]
        yield PageFile("/" if name == START else PREFIX + name, content_type, body, etag)


def version(files: list[PageFile]) -> str:
    """Returns a text that differs when any of the files does; empty if there are none."""
    if not files:
        return ""
    every = "".join(f"{file.path} {file.etag}\n" for file in files)
    return hashlib.sha256(every.encode()).hexdigest()[:ETAG_CHARS]


def routes(files: list[PageFile]) -> list[web.RouteDef]:
    """Returns the routes of the files; each answers GET and HEAD."""
    return [web.get(file.path, _answering(file)) for file in files]


def _answering(file: PageFile) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        unchanged = any(each.value in {file.etag, "*"} for each in known)
        response = (
            web.Response(status=HTTPStatus.NOT_MODIFIED)
            if unchanged
            else web.Response(body=file.body, headers={"Content-Type": file.content_type})
        )
        response.etag = file.etag
        response.headers.update(HEADERS)
        return response

    return answer
