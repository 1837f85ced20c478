"""Owns the least that awslambdaric needs of Lambda's Runtime API: one server for all its processes, on loopback.

It knows no time limits, errors or processes that end. So what it costs is what awslambdaric costs by itself.
"""

import asyncio
import itertools
import re
from collections import deque
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: %d\r\nLambda-Runtime-Deadline-Ms: 4000000000000\r\n"
    b"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-west-1:111122223333:function:orders\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
_ACCEPTED = (
    b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"OK"}'
)


class BareRuntime:
    """Gives each event to the process that asks first."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._events: deque[tuple[int, bytes]] = deque()
        self._idle: deque[Connection] = deque()

    async def call(self, event: bytes) -> None:
        """Returns when a process has answered."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._events.append((number, event))
        self._give()
        await answer

    def asked(self, connection: "Connection") -> None:
        """A process wants an event."""
        self._idle.append(connection)
        self._give()

    def answered(self, number: int) -> None:
        """A process has taken its event."""
        answer = self._answers.pop(number)
        # At the end of the loop nobody waits for it any more.
        if not answer.done():
            answer.set_result(None)

    def _give(self) -> None:
        while self._idle and self._events:
            number, event = self._events.popleft()
            self._idle.popleft().write(_HEAD % (number, len(event)) + event)


class Connection(asyncio.Protocol):
    """One connection of a process."""

    def __init__(self, runtime: BareRuntime) -> None:
        self._runtime = runtime
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Takes a request when it is whole; there is one at a time."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _LENGTH.search(self._received, 0, end + 2)
        if len(self._received) < end + 4 + (int(found[1]) if found else 0):
            return
        method, path, _ = bytes(self._received[:end]).split(b" ", 2)
        self._received.clear()
        if method == b"GET":
            self._runtime.asked(self)
            return
        assert path.endswith(b"/response"), path
        self.write(_ACCEPTED)
        self._runtime.answered(int(path.split(b"/")[-2]))

    def write(self, data: bytes) -> None:
        """Sends an answer."""
        assert self._transport is not None
        self._transport.write(data)
