"""Owns how the answers of a client that are event streams are read: as long as they go on, and message by message.

Such an answer goes on for minutes, and its reader takes event by event. So its body as a whole has no limit, and each message has
one; how long an event may take is its reader's business. The library puts each piece of a body behind all that has come of a message,
so that its work grows with the square of the pieces, and parses all messages at once that have come. So it gets whole messages here,
and no more than one in a pass of the loop.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from botocore.eventstream import EventStreamBuffer

from adapters.bounded_answers import BODY_BYTES_MAX, BoundedSession, is_event_stream

MESSAGE_BYTES_MAX = BODY_BYTES_MAX
"""Of one message. An event has 10 MiB of data at most, which are 14 MiB as base64."""
_PRELUDE_BYTES = 12
_FRAME_BYTES = 16
"""The lengths, their checksum, and that of the whole message."""


class StreamingSession(BoundedSession):
    """The HTTP session of clients whose answers are event streams."""

    streams = True

    async def send(self, request: Any) -> Any:
        """As the library does. The body of an event stream comes in whole messages."""
        answer: Any = await super().send(request)
        if is_event_stream(answer.status_code, answer.headers):
            answer.raw.content = WholeMessages(answer.raw.content)
        return answer


class WholeMessages:
    """The body of an event stream, whose chunks are its messages. Otherwise it is as the library's own."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        """The messages. Raises ValueError for lengths that no message has, and what the library raises. A last one that was cut is left out."""
        came = bytearray()
        while piece := await self._body.readany():
            came += piece
            at = 0
            while (end := _end(came, at)) is not None and end <= len(came):
                yield bytes(came[at:end]), True
                await asyncio.sleep(0)
                at = end
            del came[:at]


def _end(came: bytearray, at: int) -> int | None:
    """Where the message ends that begins here; None while its lengths have not come."""
    prelude = came[at : at + _PRELUDE_BYTES]
    if len(prelude) < _PRELUDE_BYTES:
        return None
    # The library checks the checksum of the lengths, before anything waits for what they say.
    lengths = EventStreamBuffer()
    lengths.add_data(bytes(prelude))
    next(lengths, None)
    total, headers = (int.from_bytes(prelude[each : each + 4]) for each in (0, 4))
    if not headers + _FRAME_BYTES <= total <= MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {total} bytes with {headers} of headers")
    return at + total
