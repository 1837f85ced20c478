"""Owns the error texts for a URL that could not be reached, did not answer, or answered with a failure.

Texts name host and port, never the path or the query of a URL, since these may contain secrets.
"""

import errno
import re
import ssl
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import inflected, number_of

EXCERPT_BYTES_MAX = 2000
EXCERPT_CHARS_MAX = 200
DETAIL_CHARS_MAX = 120
_UNREADABLE = 8
"""A body counts as binary if more than one of this many characters cannot be shown."""
_PORTS = {"http": 80, "https": 443}
_ENCODING = re.compile(r"content-encoding: [a-z]{1,32} \(([a-z]{1,32})\)")
"""The library's error for an answer in an encoding that it knows by name and cannot read. It has nothing but this text."""
_TAGS = re.compile(r"<(?:!--|[/!?a-zA-Z])[^<>]*>")


def excerpt(body: bytes | None) -> str:
    """Returns the beginning of an answer's body on one line, without HTML tags; empty if there is no body."""
    if not body:
        return ""
    text = body[:EXCERPT_BYTES_MAX].decode("utf-8", "ignore" if len(body) > EXCERPT_BYTES_MAX else "replace")
    unreadable = [char for char in text if not (char.isprintable() or char.isspace()) or char == "\ufffd"]
    if len(unreadable) * _UNREADABLE > len(text):
        return f"({number_of(len(body), 'byte')} that {inflected(len(body), 'is', 'are')} no text)"
    return line_of(" ".join(_TAGS.sub(" ", text).split()), chars_max=EXCERPT_CHARS_MAX)


def place_of(url: str, unix_socket: str | None = None) -> str:
    """Returns the Unix socket, if there is one, else host and port of a URL."""
    if unix_socket:
        return f"the socket {unix_socket}"
    found = urlsplit(url)
    host, port = found.hostname or "", found.port or _PORTS[found.scheme]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unshaken(error: Exception, url: str) -> str:
    """Says why a handshake of TLS failed."""
    return f"TLS with {place_of(url)} failed: {_detail(error)}"


def unreached(error: Exception, url: str, *, place: str) -> str:
    """Says why there was no connection to a place, or why the request could not be sent."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            why = f"the name {URL(url).host} has no address (DNS: {_detail(error.os_error)})"
        case aiohttp.ClientConnectorCertificateError():
            why = f"TLS with {place} failed: {_detail(error.certificate_error)}"
        case aiohttp.ClientSSLError():
            why = f"TLS with {place} failed: {_detail(error.os_error)}"
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.ECONNREFUSED:
            why = f"{place} refuses connections"
        case aiohttp.ClientConnectorError():
            why = f"{place}: {_detail(error.os_error)}"
        case UnicodeError() | aiohttp.InvalidURL():
            why = f"the host of {place} is neither an address nor a name"
        case _:
            why = f"{place}: {_detail(error)}"
    return f"the connection to the function's URL failed before the request was sent: {why}"


def refused_by_alert(alert: str, place: str) -> str:
    """Says that the server at a place refused TLS, by the name that the library gives to its alert."""
    named = line_of(alert, chars_max=DETAIL_CHARS_MAX)
    return (
        f"{place} refused the connection ({named}); see whether it trusts the certificate of client_cert_file"
    )


def unanswered(error: Exception, place: str, *, begun: bool) -> str:
    """Says how the connection ended after the request was sent; `begun`: the beginning of an answer had arrived."""
    match error:
        case aiohttp.ClientPayloadError():
            how = "the answer broke off or cannot be read"
        case aiohttp.ClientResponseError() if encoding := _ENCODING.search(error.message):
            how = f"the content encoding {encoding[1]} of the answer is not understood; the server may send gzip, deflate or none"
        case aiohttp.ClientResponseError():
            how = f"the answer is no HTTP: {_detail(error)}"
        case _ if begun:
            how = "the connection broke in the middle of the answer"
        case aiohttp.ServerDisconnectedError():
            how = "the connection was closed without an answer"
        case ConnectionError() | aiohttp.ClientOSError():
            how = f"the connection broke without an answer ({_detail(error)})"
        case _:
            how = f"there was no answer ({_detail(error)})"
    return f"after the request was sent to {place}, {how}"


def _without_pointer(text: str) -> str:
    """Removes from a parser's message the line that points with `^` at a place of the line above."""
    return "\n".join(line for line in text.splitlines() if line.strip() != "^")


def _detail(error: BaseException) -> str:
    """Returns the text of an error if it cannot contain a path, else its type."""
    match error:
        case ssl.SSLCertVerificationError():
            text = error.verify_message
        case ssl.SSLError():
            text = error.reason or type(error).__name__
        case aiohttp.ClientResponseError():
            text = _without_pointer(error.message)
        case OSError() if error.strerror and error.errno:
            text = error.strerror
        case _:
            text = type(error).__name__
    return line_of(" ".join(text.split()), chars_max=DETAIL_CHARS_MAX)
