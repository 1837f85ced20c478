"""Owns how refused requests are answered on Lambda's paths: statuses, headers and body shapes (spec 10.6)."""

import uuid
from enum import StrEnum
from http import HTTPStatus

from aiohttp import web

from adapters.control.answers import BODY_BYTES_MAX, answer, refusal
from poller.control import Fault, Refused

PREFIXES = ("/2015-03-31/", "/2017-03-31/")
"""Lambda's API lives below these."""


class Kind(StrEnum):
    """AWS's exceptions that come before an operation: those of signatures, routes and request bodies."""

    NO_TOKEN = "MissingAuthenticationTokenException"
    INCOMPLETE = "IncompleteSignatureException"
    SIGNATURE = "InvalidSignatureException"
    UNKNOWN_KEY = "UnrecognizedClientException"
    DENIED = "AccessDeniedException"
    SERIALIZATION = "SerializationException"
    MEDIA_TYPE = "UnsupportedMediaTypeException"
    TOO_LARGE = "RequestTooLargeException"
    OPERATION = "UnknownOperationException"
    ABSENT = "NotImplementedException"
    UNAVAILABLE = "ServiceUnavailableException"


class Denied(Exception):
    """A request that does not reach its operation. `text` never has a secret, a signature or a token in it."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class Shape(StrEnum):
    """Body shapes: the member that has the text, and what stands in `Type`."""

    USER = "User message"
    USER_CAPITAL = "User Message"
    SERVICE = "Service Message"
    BARE = " message"
    BARE_CAPITAL = " Message"


_FORMS: dict[str, tuple[HTTPStatus, Shape]] = {
    Fault.PARAMETER: (HTTPStatus.BAD_REQUEST, Shape.USER),
    Fault.VALIDATION: (HTTPStatus.BAD_REQUEST, Shape.BARE),
    Fault.CONFLICT: (HTTPStatus.CONFLICT, Shape.USER),
    Fault.MISSING: (HTTPStatus.NOT_FOUND, Shape.USER_CAPITAL),
    Fault.IN_USE: (HTTPStatus.BAD_REQUEST, Shape.USER_CAPITAL),
    Fault.THROTTLED: (HTTPStatus.TOO_MANY_REQUESTS, Shape.USER),
    Fault.SERVICE: (HTTPStatus.INTERNAL_SERVER_ERROR, Shape.SERVICE),
    Kind.NO_TOKEN: (HTTPStatus.FORBIDDEN, Shape.BARE),
    Kind.INCOMPLETE: (HTTPStatus.FORBIDDEN, Shape.BARE),
    Kind.SIGNATURE: (HTTPStatus.FORBIDDEN, Shape.BARE),
    Kind.UNKNOWN_KEY: (HTTPStatus.FORBIDDEN, Shape.BARE),
    Kind.DENIED: (HTTPStatus.FORBIDDEN, Shape.BARE_CAPITAL),
    Kind.SERIALIZATION: (HTTPStatus.BAD_REQUEST, Shape.BARE),
    Kind.MEDIA_TYPE: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, Shape.USER),
    Kind.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Shape.USER),
    Kind.OPERATION: (HTTPStatus.METHOD_NOT_ALLOWED, Shape.BARE),
    Kind.ABSENT: (HTTPStatus.NOT_IMPLEMENTED, Shape.BARE),
    Kind.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, Shape.SERVICE),
}

UNKNOWN_ROUTE = "Unable to determine service/operation name to be authorized"
_LIBRARY = {
    HTTPStatus.NOT_FOUND: (Kind.DENIED, UNKNOWN_ROUTE),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        Kind.OPERATION,
        "This path does not know the method; the header Allow lists what it knows",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        Kind.TOO_LARGE,
        f"Request must be smaller than {BODY_BYTES_MAX} bytes",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        Kind.UNAVAILABLE,
        "The answer took too long; look at what is there now, and try again",
    ),
}
"""What the web library refuses, in AWS's manner."""


def status_of(name: Fault | Kind) -> HTTPStatus:
    """The status of an exception."""
    return _FORMS[name][0]


def body_of(name: Fault | Kind, text: str) -> dict[str, str]:
    """The body of an exception; the order of its members is AWS's."""
    kind, _, member = _FORMS[name][1].value.partition(" ")
    return ({"Type": kind} if kind else {}) | {member: text}


def fault(error: Refused | Denied) -> web.Response:
    """The answer to a request on Lambda's paths that is refused."""
    name = error.fault if isinstance(error, Refused) else error.kind
    return identified(_fault(name, error.text))


def refused(path: str, status: int) -> web.Response:
    """The answer to a request that the web library, a limit or a bug ended, in the form of its path."""
    if not path.startswith(PREFIXES):
        return refusal(status)
    unexpected = (Fault.SERVICE, "A fault of this server; its log has the cause")
    name, text = _LIBRARY.get(HTTPStatus(status), unexpected)
    response = _fault(name, text)
    if name is Fault.SERVICE:
        response.set_status(status)
    return identified(response)


def identified(response: web.Response) -> web.Response:
    """Gives an answer the id that every answer of AWS has."""
    response.headers["x-amzn-requestid"] = str(uuid.uuid4())
    return response


def _fault(name: Fault | Kind, text: str) -> web.Response:
    response = answer(body_of(name, text), status=status_of(name))
    response.headers["x-amzn-errortype"] = name.value
    return response
