"""Owns answers of the API server: how much of one is read, how it is parsed, and which error it is."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from lightkube.core.exceptions import ConfigError

from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    ResourceMissing,
    RowChanged,
    ServiceThrottled,
    ServiceUnavailable,
)

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Of one page of a list. A page has PAGE_MAX resources, and etcd takes 1.5 MiB for one at most."""
LINE_BYTES_MAX = 8 * 1024 * 1024
"""Of one change: an object of etcd's limit, with the escapes of JSON."""
ERROR_BYTES_MAX = 64 * 1024
NOT_FOUND = 404
UNKNOWN = "is the definition eventsourcemappings.poller.dev installed?"

type AnswerError = Callable[[str], PortError]

_ERRORS: dict[int, AnswerError] = {
    401: AccessDenied,
    403: AccessDenied,
    404: ResourceMissing,
    409: RowChanged,
    410: CursorExpired,
    429: ServiceThrottled,
}


@contextmanager
def errors_of_the_library() -> Iterator[None]:
    """Raises errors of the HTTP library and of the credentials as those of the port."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
        raise ServiceUnavailable(
            f"the API server does not answer: {type(error).__name__}: {error}"
        ) from error
    except ConfigError as error:
        raise AccessDenied(f"no credentials for the API server: {error}") from error


async def body_of(answer: httpx2.Response, *, bytes_max: int = ANSWER_BYTES_MAX) -> bytes:
    """The whole body. Raises ServiceUnavailable if it is longer than the limit."""
    found = bytearray()
    async for piece in answer.aiter_bytes():
        found += piece
        if len(found) > bytes_max:
            raise ServiceUnavailable(f"the API server's answer has more than {bytes_max} bytes")
    return bytes(found)


async def lines_of(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The lines of a body as they arrive. Raises ServiceUnavailable for a line that is longer than the limit."""
    held = bytearray()
    async for piece in answer.aiter_bytes():
        *whole, rest = piece.split(b"\n")
        for part in whole:
            held += part
            yield bytes(held)
            held.clear()
        held += rest
        if len(held) > LINE_BYTES_MAX:
            raise ServiceUnavailable(f"a change has more than {LINE_BYTES_MAX} bytes")


def parsed(body: bytes) -> Mapping[str, Any]:
    """The object of a body. Raises ServiceUnavailable if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceUnavailable("the API server's answer is no JSON") from error
    if not isinstance(found, dict):
        raise ServiceUnavailable("the API server's answer is no JSON object")
    return found


async def check(answer: httpx2.Response) -> None:
    """Raises the error of an answer that is one."""
    if not answer.is_success:
        raise error_for(answer.status_code, _message(answer, await _status(answer)))


async def object_exists(answer: httpx2.Response, name: str) -> bool:
    """False if an answer says that the object of this name does not exist. Raises the error of any other answer that is one.

    A cluster that does not know the kind, or a proxy, says 404 in other words. That is no word about the object.
    """
    if answer.is_success:
        return True
    status = await _status(answer)
    details = status.get("details")
    named = isinstance(details, dict) and details.get("name") == name
    if answer.status_code == NOT_FOUND and status.get("reason") == "NotFound" and named:
        return False
    raise error_for(answer.status_code, _message(answer, status))


def error_for(code: int, message: str) -> PortError:
    """The error of a status code."""
    hint = f"; {UNKNOWN}" if code == NOT_FOUND else ""
    return _ERRORS.get(code, ServiceUnavailable)(f"the API server says {code}: {message}{hint}")


def watch_error(given: object) -> PortError:
    """The error that a watch sends in place of a change."""
    status = given if isinstance(given, dict) else {}
    code = status.get("code")
    return error_for(code if isinstance(code, int) else 0, str(status.get("message", "")))


async def _status(answer: httpx2.Response) -> Mapping[str, Any]:
    try:
        return parsed(await body_of(answer, bytes_max=ERROR_BYTES_MAX))
    except ServiceUnavailable:
        return {}


def _message(answer: httpx2.Response, status: Mapping[str, Any]) -> str:
    return str(status.get("message") or answer.reason_phrase)
