"""Owns the requests that a runtime sends for nearly each invocation: it asks for the next one, and answers it.

A web library takes several times as long for them as all else that an invocation costs. So they are answered here as long as they have the
usual form: the head comes whole and has nothing but the usual headers, each once, with our own address as Host. With the first
request of another form the library takes the connection over, that request included, and keeps it. So the library
decides about all that is odd: other paths, headers of browsers, bodies in chunks, answers that are late or too long, requests that
cannot be read, and a second request before the first one is answered.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from adapters.invokers.function_processes.process_session import Offer, ProcessSession
from adapters.invokers.outcomes import ANSWER_BYTES_MAX
from poller.domain.invocations import Succeeded

HEAD_BYTES_MAX = 4096
"""The longest usual head. Those of known runtimes have some 200 bytes."""
_LENGTH_DIGITS_MAX = 8
_USUAL = frozenset({"accept", "connection", "content-length", "content-type", "host", "user-agent"})
_NEXT = "GET /2018-06-01/runtime/invocation/next HTTP/1.1"
_ANSWER = "POST /2018-06-01/runtime/invocation/"
_ANSWER_END = "/response HTTP/1.1"
_ACCEPTED = (
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 16\r\n\r\n"
    b'{"status": "OK"}'
)


@dataclass(frozen=True, slots=True)
class UsualHead:
    """The head of a usual request: of an answer to `request_id`, or of a request for the next invocation if that is None.

    The request has `head_bytes` and then `body_bytes`.
    """

    request_id: str | None
    head_bytes: int
    body_bytes: int


def usual_head(received: bytes | bytearray, address: str) -> UsualHead | None:
    """Reads the head of a request to `address`; returns None if it is not whole or not of the usual form."""
    end = received.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        return None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name not in _USUAL or name in headers:
            return None
        headers[name] = value.strip(" \t")
    length = headers.get("content-length", "0")
    if (
        headers.get("host") != address
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX)
    ):
        return None
    size = int(length)
    if first == _NEXT:
        return UsualHead(None, end + 4, size) if size == 0 else None
    request_id = first.removeprefix(_ANSWER).removesuffix(_ANSWER_END)
    plain = request_id.isascii() and request_id.replace("-", "").isalnum()
    whole = f"{_ANSWER}{request_id}{_ANSWER_END}" == first
    return UsualHead(request_id, end + 4, size) if plain and whole and size <= ANSWER_BYTES_MAX else None


class RuntimeConnection(asyncio.Protocol):
    """One connection of an admitted process, until the library takes it over. `session` gives the present process's."""

    def __init__(
        self,
        session: Callable[[], ProcessSession],
        address: str,
        *,
        library: Callable[[], asyncio.Protocol],
        open_ones: set["RuntimeConnection"],
    ) -> None:
        self._session = session
        self._address = address
        self._library = library
        self._open_ones = open_ones
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._head: UsualHead | None = None
        self._waits: ProcessSession | None = None
        """Whose next invocation the process waits for. Its request is then what was received."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transports do not derive from asyncio's
        self._open_ones.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The process gets no invocation here any more."""
        self._leave()

    def close(self) -> None:
        """Closes the connection."""
        transport = self._transport
        self._leave()
        if transport is not None:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Answers the requests that are whole."""
        self._received += data
        if self._waits is not None:
            self._pass_on()
        while self._received and self._transport is not None and self._waits is None:
            head = self._head = self._head or usual_head(self._received, self._address)
            if head is not None and len(self._received) < head.head_bytes + head.body_bytes:
                return
            self._head = None
            if head is None or not self._answered(head):
                self._pass_on()

    def _answered(self, head: UsualHead) -> bool:
        """Answers a request, or has it wait. Returns False if the library should answer."""
        session = self._session()
        if head.request_id is None:
            if session.taken is not None or len(self._received) > head.head_bytes:
                return False
            session.is_ready()
            self._waits = session
            session.wake(self._give)
            self._give()
            return True
        if session.taken != head.request_id:
            return False
        behind = head.head_bytes + head.body_bytes
        session.settle(head.request_id, Succeeded(bytes(self._received[head.head_bytes : behind])))
        del self._received[:behind]
        self._write(_ACCEPTED)
        return True

    def _give(self) -> None:
        """Gives the process the invocation that is offered, if there is one."""
        session = self._waits
        assert session is not None
        if session.offered is None:
            return
        message = _message(session.offered)
        if message is None:
            self._pass_on()
            return
        session.collect()
        self._stop_waiting()
        self._received.clear()
        self._write(message)

    def _pass_on(self) -> None:
        """Lets the library take the connection over, with the requests that were not answered."""
        transport, received = self._transport, bytes(self._received)
        assert transport is not None
        self._leave()
        library = self._library()
        transport.set_protocol(library)
        library.connection_made(transport)
        library.data_received(received)

    def _leave(self) -> None:
        self._stop_waiting()
        self._open_ones.discard(self)
        self._received.clear()
        self._transport = None

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.let(self._give)
            self._waits = None

    def _write(self, message: bytes) -> None:
        # The process may have closed the connection while its answer was taken.
        if self._transport is not None:
            self._transport.write(message)


def _message(offer: Offer) -> bytes | None:
    """The answer with an invocation; None if a value cannot be written as it is, which the library decides about."""
    headers, event = offer.headers, offer.invocation.payload
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        return None
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 200 OK\r\n{lines}Content-Type: application/json\r\nContent-Length: {len(event)}\r\n\r\n"
    return head.encode() + event
