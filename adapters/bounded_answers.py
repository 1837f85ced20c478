"""Owns how much of a server's answer is parsed in one turn of the loop, and how much may arrive before the answer itself.

The HTTP library parses whatever a server sends. A server may send interim answers (`100 Continue`, `103 Early Hints`) without end,
the size of a chunk with a million digits, or a body in chunks of one byte. Each of these would block the loop. So data is parsed
in pieces, for some milliseconds in one turn and the rest in later turns. If a server sends too much without an answer, its
connection is closed, and the request fails as for an answer that is not HTTP.

An event stream goes on for minutes. So its body as a whole has no limit on connections that are made for it, and each of its messages has one
where it is read.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError

from poller.domain.untrusted import numbers
from poller.loop_turns import TURN_S

INTERIM_MAX = 20
"""Interim answers before the answer. Usual servers send one or two."""
BARE_BYTES_MAX = 2 * 1024 * 1024
"""Bytes that a server may send without completing a head and without a byte of a body. The library itself refuses heads of more
than one megabyte."""
BODY_BYTES_MAX = 64 * 1024 * 1024
"""Of one answer. GetRecords, the longest that is read here, has 10 MiB of data, which are 14 MiB as base64."""
BODY_S_MAX = 180.0
"""From an answer's head to the end of its body, of AWS's services; 14 MiB in this time need 80 kB/s. A head has as long from its
first bytes."""
CREDENTIALS_BYTES_MAX = 1024 * 1024
CREDENTIALS_S_MAX = 10.0
"""The same of what gives out credentials: some kilobytes, from the same machine or network."""
FINAL = 200
"""The statuses below are those of interim answers."""
HEAD_PIECE_BYTES = 16 * 1024
PIECE_BYTES = 32 * 1024
"""How much of a head and of a body is parsed before the clock is read again: some milliseconds at worst."""
PLAIN_PIECE_BYTES = 512 * 1024
"""The same for a body whose length the head says: it is only copied."""
TOO_MANY = f"more than {INTERIM_MAX} interim answers (1xx) before the answer"
TOO_LONG = "the body has more than {} bytes"
TOO_SLOW = "the body takes longer than {:g} s"
TOO_SLOW_HEAD = "a head, or what surrounds the body, takes longer than {:g} s"
TOO_MUCH = f"more than {BARE_BYTES_MAX} bytes that neither end the head nor belong to the body"
EVENT_STREAM = "application/vnd.amazon.eventstream"
_NOTHING = memoryview(b"")
# The library's own methods. `super()` takes several times as long as a name, and each answer has a dozen of these calls.
_data_received = ResponseHandler.data_received
_feed_data = ResponseHandler.feed_data
_set_response_params = ResponseHandler.set_response_params


@dataclass(slots=True)
class _Arrived:
    """What has arrived of the answer to the last request, and its limits.

    It is an object of its own with slots: the library's connection has so many attributes that Python reads each of them slowly.
    """

    body_bytes_max: int
    body_s_max: float | None
    streams: bool = False
    """Whether the body of an event stream goes on as long as it likes."""
    heads: int = 0
    """The number of heads, interim ones included."""
    head_at: float = 0.0
    """When the last head was complete, in seconds of the loop's clock."""
    bare_bytes: int = 0
    """Bytes since the last head that were not part of a body."""
    bare_since: float | None = None
    """Since when what has come neither ended a head nor belonged to the body, in seconds of the loop's clock."""
    heads_before: int = 0
    """The number of heads before the last piece."""
    body_bytes: int = 0
    newest: RawResponseMessage | None = None
    """The last head."""
    held: memoryview = _NOTHING
    """Data that must still be parsed."""
    goes_on: bool = False
    """Whether it will be parsed in the next turn of the loop."""
    silent_since: float | None = None
    """When data came last, in seconds of the loop's clock, while the limit on a server's silence holds."""
    silence_timer: asyncio.TimerHandle | None = None

    def piece(self, size: int, body_bytes: int, now: float) -> str:
        """Counts a piece of `size` bytes that was parsed; the body has `body_bytes` now. Returns which limit is exceeded."""
        moved, self.body_bytes = body_bytes != self.body_bytes, body_bytes
        self.bare_bytes = 0 if moved else self.bare_bytes + size
        if moved or self.heads != self.heads_before:
            self.heads_before, self.bare_since = self.heads, None
        elif self.bare_since is None:
            self.bare_since = now
        if self.heads > INTERIM_MAX + 1:
            return TOO_MANY
        if self.bare_bytes > BARE_BYTES_MAX:
            return TOO_MUCH
        if body_bytes > self.body_bytes_max and not self.streamed:
            return TOO_LONG.format(self.body_bytes_max)
        return ""

    @property
    def streamed(self) -> bool:
        """Whether the body is an event stream that may go on."""
        head = self.newest
        return self.streams and head is not None and is_event_stream(head.code, head.headers)

    def late(self, now: float, *, in_body: bool) -> str:
        """Returns the limit of time that a body or a head has exceeded. A server that sends nothing more is noticed by the limit on its silence."""
        if self.body_s_max is None:
            return ""
        if in_body and now - self.head_at > self.body_s_max and not self.streamed:
            return TOO_SLOW.format(self.body_s_max)
        if self.bare_since is not None and now - self.bare_since > self.body_s_max:
            return TOO_SLOW_HEAD.format(self.body_s_max)
        return ""


class BoundedAnswers(ResponseHandler):
    """A connection of the library that parses in pieces, and closes if a server does not send its answer, or the end of it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        body_bytes_max: int,
        body_s_max: float | None,
        streams: bool = False,
    ) -> None:
        super().__init__(loop)
        self._arrived = _Arrived(body_bytes_max, body_s_max, streams)

    @property
    def should_close(self) -> bool:
        """Whether the connection cannot be used for another request."""
        return bool(self._arrived.held) or super().should_close

    def set_response_params(self, **given: Any) -> None:
        """Prepares for the answer of a new request."""
        arrived = self._arrived
        arrived.heads = arrived.heads_before = arrived.bare_bytes = arrived.body_bytes = 0
        arrived.bare_since = None
        _set_response_params(self, **given)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Accepts the head of an answer; ignores heads beyond the limit."""
        arrived = self._arrived
        arrived.heads += 1
        arrived.bare_bytes = arrived.body_bytes = 0
        arrived.head_at = self._loop.time()
        arrived.newest = data[0]
        if arrived.heads <= INTERIM_MAX + 1:
            _feed_data(self, data, size)

    def data_received(self, data: bytes) -> None:
        """Parses data that has arrived, or its beginning. Empty data: parses what the library has kept."""
        arrived = self._arrived
        small = len(data) <= HEAD_PIECE_BYTES or len(data) <= self._piece_bytes()
        if (small or self._parser is None) and not arrived.held:
            _data_received(self, data)
            if not self._complete(arrived):
                self._check(len(data))
        elif data:
            arrived.held = memoryview(bytes(arrived.held) + data if arrived.held else data)
            self._read_held()
        else:
            self._read(data)
            # Not at once: the reader of the body would always find more data, and never let the loop go on.
            self._hold()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Drops data that was not parsed yet."""
        arrived = self._arrived
        arrived.held = _NOTHING
        super().connection_lost(exc)
        if arrived.silence_timer is not None:
            arrived.silence_timer.cancel()
            arrived.silence_timer = None

    # The library sets a new timer whenever data comes. Here only the moment is noted, and one timer looks at it when it is due.
    def _reschedule_timeout(self) -> None:
        arrived, timeout_s = self._arrived, self._read_timeout
        if not timeout_s:
            arrived.silent_since = None
            return
        now = arrived.silent_since = self._loop.time()
        timer = arrived.silence_timer
        if timer is None or timer.when() > now + timeout_s:
            if timer is not None:
                timer.cancel()
            arrived.silence_timer = self._loop.call_later(timeout_s, self._silent)

    def _drop_timeout(self) -> None:
        self._arrived.silent_since = None

    def _silent(self) -> None:
        """The timer is due: the server has been silent for too long, or the timer is set again for the rest of the time."""
        arrived, timeout_s = self._arrived, self._read_timeout
        arrived.silence_timer = None
        if arrived.silent_since is None or not timeout_s:
            return
        left_s = arrived.silent_since + timeout_s - self._loop.time()
        if left_s > 0:
            arrived.silence_timer = self._loop.call_later(left_s, self._silent)
        else:
            self._on_read_timeout()

    def _read_held(self) -> None:
        arrived = self._arrived
        arrived.goes_on = False
        ends = time.perf_counter() + TURN_S
        while arrived.held and not self._reading_paused:
            size = self._piece_bytes()
            piece, arrived.held = bytes(arrived.held[:size]), arrived.held[size:]
            self._read(piece)
            if time.perf_counter() >= ends:
                break
        if arrived.held:
            self._hold()
        elif self._buffer_paused and not self._tail:
            self._resume_reading_for_buffer()

    def _piece_bytes(self) -> int:
        """Returns the size of a piece. Heads take longer to parse: one of 18 bytes takes as long as some kilobytes of a body."""
        body = self._payload
        if body is None or body.is_eof():
            return HEAD_PIECE_BYTES
        # Not beyond the body's end: a server may send any number of heads behind it.
        newest = self._arrived.newest
        plain_bytes = 0 if newest is None else _plain_bytes(newest)
        return max(PIECE_BYTES, min(plain_bytes - body.total_bytes, PLAIN_PIECE_BYTES))

    def _hold(self) -> None:
        """Pauses reading until the held data is parsed, which goes on in the next turn of the loop."""
        if not self._buffer_paused:
            self._pause_reading_for_buffer()
        if not self._reading_paused and not self._arrived.goes_on:
            self._arrived.goes_on = True
            self._loop.call_soon(self._read_held)

    def _resume_reading_for_buffer(self) -> None:
        if not self._arrived.held:
            super()._resume_reading_for_buffer()

    def _read(self, piece: bytes) -> None:
        _data_received(self, piece)
        self._check(len(piece))

    def _complete(self, arrived: _Arrived) -> bool:
        """Whether the whole answer is here, after one head. Nearly all answers arrive like this, and need no more checks.

        An interim answer is not the answer, although it has the end of a body.
        """
        body, newest = self._payload, arrived.newest
        return (
            arrived.heads == 1
            and newest is not None
            and newest.code >= FINAL
            and self._exception is None
            and body is not None
            and body.total_bytes <= arrived.body_bytes_max
            and body.is_eof()
        )

    def _check(self, size: int) -> None:
        """Checks the limits after a piece of `size` bytes was parsed, and closes the connection if one is exceeded."""
        if self._exception is not None:
            self._arrived.held = _NOTHING
            # The library reports an error only to the reader of the head. A reader of the body would wait for ever.
            self._fail_body(str(self._exception))
            return
        body = self._payload
        body_bytes = body.total_bytes if body is not None else 0
        now = self._loop.time()
        why = self._arrived.piece(size, body_bytes, now)
        if not why:
            # What a connection still has of the answer before is at its end, as the body of an interim answer is.
            why = self._arrived.late(now, in_body=bool(body_bytes) and body is not None and not body.is_eof())
        if why:
            self._cut_off(why)

    def _cut_off(self, why: str) -> None:
        self._arrived.held = _NOTHING
        if self.transport is not None:
            self.transport.close()
        self.set_exception(HttpProcessingError(code=400, message=why))
        self._fail_body(why)

    def _fail_body(self, why: str) -> None:
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(why))


def is_event_stream(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer with this head is an event stream."""
    return status == FINAL and headers.get("Content-Type", "").partition(";")[0].strip() == EVENT_STREAM


def _plain_bytes(head: RawResponseMessage) -> int:
    """Returns the length of the body that follows this head, if it is to be copied only; otherwise 0."""
    if head.chunked or head.compression:
        return 0
    return numbers.whole(head.headers.get("Content-Length"), most=BODY_BYTES_MAX, default=0)


def bounded[C: aiohttp.BaseConnector](
    connector: C,
    *,
    body_bytes_max: int = BODY_BYTES_MAX,
    body_s_max: float | None = None,
    streams: bool = False,
) -> C:
    """Makes the new connections of `connector` bounded, and returns it. `body_s_max` None: the caller has a limit of its own.

    `streams`: bodies of event streams go on as long as they like, and their reader bounds each event.
    """
    # There is no public way to choose the class of connections.
    connector._factory = partial(  # type: ignore[assignment]  # one of its own kind
        BoundedAnswers,
        asyncio.get_running_loop(),
        body_bytes_max=body_bytes_max,
        body_s_max=body_s_max,
        streams=streams,
    )
    return connector


class BoundedSession(AIOHTTPSession):
    """The HTTP session of AWS clients, with bounded connections."""

    streams = False
    """Whether answers may be event streams."""

    async def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        connector: aiohttp.TCPConnector = await super()._create_connector(proxy_url)  # type: ignore[misc]  # not in its stubs
        return bounded(connector, body_s_max=BODY_S_MAX, streams=self.streams)


def bound_credentials(session: AIOHTTPSession) -> None:
    """Bounds a session of the library's own, which fetches credentials."""
    # It has no public name; the fetchers make their sessions themselves.
    create = session._create_connector  # type: ignore[attr-defined]

    async def made(proxy_url: str | None) -> aiohttp.TCPConnector:
        connector: aiohttp.TCPConnector = await create(proxy_url)
        return bounded(connector, body_bytes_max=CREDENTIALS_BYTES_MAX, body_s_max=CREDENTIALS_S_MAX)

    session._create_connector = made  # type: ignore[attr-defined]
