"""Owns the answers to refused requests on Lambda's paths: statuses, headers and body shapes (aws-behaviour#error-bodies)."""

import uuid
from enum import StrEnum
from http import HTTPStatus

from aiohttp import web

from adapters.control.responses import BODY_BYTES_MAX, MESSAGES, answer, refusal
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.untrusted.texts import lines_of

PREFIXES = ("/2014-11-13/", "/2015-03-31/", "/2017-03-31/", "/2019-09-25/", "/2021-11-15/")
"""The paths of Lambda's API begin with these."""
TEXT_CHARS_MAX = 8192
"""The longest text of an error, which may repeat what the client sent."""


class RejectionType(StrEnum):
    """AWS's exceptions for requests that reach no operation: wrong signatures, routes and request bodies."""

    NO_TOKEN = "MissingAuthenticationTokenException"
    INCOMPLETE = "IncompleteSignatureException"
    SIGNATURE = "InvalidSignatureException"
    UNKNOWN_KEY = "UnrecognizedClientException"
    DENIED = "AccessDeniedException"
    SERIALIZATION = "SerializationException"
    MEDIA_TYPE = "UnsupportedMediaTypeException"
    TOO_LARGE = "RequestTooLargeException"
    OPERATION = "UnknownOperationException"
    CONTENT = "InvalidRequestContentException"
    ABSENT = "NotImplementedException"
    UNAVAILABLE = "ServiceUnavailableException"


class RequestRejected(Exception):
    """A request that reaches no operation. `text` never contains a secret, a signature or a token."""

    def __init__(self, kind: RejectionType, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class Shape(StrEnum):
    """Body shapes, written as the value of `Type` (which may be absent), a space, and the member that has the text."""

    USER = "User message"
    USER_CAPITAL = "User Message"
    SERVICE = "Service Message"
    BARE = " message"
    BARE_CAPITAL = " Message"


_FORMS: dict[str, tuple[HTTPStatus, Shape]] = {
    ApiErrorType.PARAMETER: (HTTPStatus.BAD_REQUEST, Shape.USER),
    ApiErrorType.VALIDATION: (HTTPStatus.BAD_REQUEST, Shape.BARE),
    ApiErrorType.CONFLICT: (HTTPStatus.CONFLICT, Shape.USER),
    ApiErrorType.MISSING: (HTTPStatus.NOT_FOUND, Shape.USER_CAPITAL),
    ApiErrorType.IN_USE: (HTTPStatus.BAD_REQUEST, Shape.USER_CAPITAL),
    ApiErrorType.THROTTLED: (HTTPStatus.TOO_MANY_REQUESTS, Shape.USER),
    ApiErrorType.NOT_READY: (HTTPStatus.BAD_GATEWAY, Shape.USER_CAPITAL),
    ApiErrorType.PRECONDITION: (HTTPStatus.PRECONDITION_FAILED, Shape.USER),
    ApiErrorType.SERVICE: (HTTPStatus.INTERNAL_SERVER_ERROR, Shape.SERVICE),
    RejectionType.NO_TOKEN: (HTTPStatus.FORBIDDEN, Shape.BARE),
    RejectionType.INCOMPLETE: (HTTPStatus.FORBIDDEN, Shape.BARE),
    RejectionType.SIGNATURE: (HTTPStatus.FORBIDDEN, Shape.BARE),
    RejectionType.UNKNOWN_KEY: (HTTPStatus.FORBIDDEN, Shape.BARE),
    RejectionType.DENIED: (HTTPStatus.FORBIDDEN, Shape.BARE_CAPITAL),
    RejectionType.SERIALIZATION: (HTTPStatus.BAD_REQUEST, Shape.BARE),
    RejectionType.CONTENT: (HTTPStatus.BAD_REQUEST, Shape.USER),
    RejectionType.MEDIA_TYPE: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, Shape.USER),
    RejectionType.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Shape.USER),
    RejectionType.OPERATION: (HTTPStatus.METHOD_NOT_ALLOWED, Shape.BARE),
    RejectionType.ABSENT: (HTTPStatus.NOT_IMPLEMENTED, Shape.BARE),
    RejectionType.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, Shape.SERVICE),
}

UNKNOWN_ROUTE = (
    "Unable to determine service/operation name to be authorized "
    "(This daemon has no such operation; docs/use/api.md and docs/use/invoke.md have those that there are.)"
)
"""AWS's text alone would make people look for a missing permission."""
IN_THE_FILE = (
    "; functions and their versions are made and changed in the configuration file (docs/use/versions.md)"
)
_LIBRARY_ERRORS: dict[HTTPStatus, tuple[ApiErrorType | RejectionType, str]] = {
    HTTPStatus.NOT_FOUND: (RejectionType.DENIED, UNKNOWN_ROUTE),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        RejectionType.OPERATION,
        "This path does not know the method; the header Allow lists what it knows",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        RejectionType.TOO_LARGE,
        f"Request must be smaller than {BODY_BYTES_MAX} bytes",
    ),
    HTTPStatus.EXPECTATION_FAILED: (RejectionType.SERIALIZATION, MESSAGES[HTTPStatus.EXPECTATION_FAILED]),
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: (
        RejectionType.SERIALIZATION,
        MESSAGES[HTTPStatus.HTTP_VERSION_NOT_SUPPORTED],
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        ApiErrorType.THROTTLED,
        "Rate exceeded; wait for the seconds that the header Retry-After names",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        RejectionType.UNAVAILABLE,
        "The answer took too long; look at what is there now, and try again",
    ),
}
"""What AWS answers for the statuses with which the web library refuses a request."""


def status_of(name: ApiErrorType | RejectionType) -> HTTPStatus:
    """Returns the HTTP status of an exception."""
    return _FORMS[name][0]


def body_of(name: ApiErrorType | RejectionType, text: str) -> dict[str, str]:
    """Returns the body of an exception, with its members in AWS's order."""
    kind, _, member = _FORMS[name][1].value.partition(" ")
    return ({"Type": kind} if kind else {}) | {member: text}


def fault(error: ApiError | RequestRejected) -> web.Response:
    """Returns the answer to a refused request on Lambda's paths."""
    name = error.fault if isinstance(error, ApiError) else error.kind
    return identified(_fault(name, error.text))


def refused(path: str, status: int) -> web.Response:
    """Returns the answer to a request that the web library, a limit or a bug ended, in the form of the path's API."""
    if not path.startswith(PREFIXES):
        return refusal(status)
    unexpected = (ApiErrorType.SERVICE, "A fault of this server; its log has the cause")
    name, text = _LIBRARY_ERRORS.get(HTTPStatus(status), unexpected)
    in_the_file = name is RejectionType.OPERATION and "/functions" in path
    response = _fault(name, text + IN_THE_FILE if in_the_file else text)
    if name in {ApiErrorType.SERVICE, RejectionType.SERIALIZATION}:
        response.set_status(status)
    return identified(response)


def identified(response: web.Response) -> web.Response:
    """Adds a request id to an answer that has none, as AWS does to every answer."""
    response.headers.setdefault("x-amzn-requestid", str(uuid.uuid4()))
    return response


def _fault(name: ApiErrorType | RejectionType, text: str) -> web.Response:
    shown = lines_of(text, chars_max=TEXT_CHARS_MAX)
    response = answer(body_of(name, shown), status=status_of(name))
    response.headers["x-amzn-errortype"] = name.value
    return response
