"""Owns the messages between the supervisor and a process: a line of JSON, and behind it the bytes that the line announces.

Both ends are ours, and nobody else has the socket. So a frame that cannot be read is a fault: it ends the connection.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

HEAD_BYTES_MAX = 256 * 1024
"""A line has the states of all processes at most."""
BODY_BYTES_MAX = 64 * 1024 * 1024
"""A longer page of metrics is not passed on."""
UNSENT_BYTES_MAX = 64 * 1024
"""A process that has not read so much gets no further questions until it has."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its members, and the bytes behind it."""

    members: Mapping[str, Any]
    body: bytes = b""

    def encoded(self) -> bytes:
        """The frame as it is sent."""
        return json.dumps({**self.members, "bytes": len(self.body)}).encode() + b"\n" + self.body


class BrokenFrame(Exception):
    """What was received is no frame."""


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """Yields frames until the other side has ended. Raises BrokenFrame. `reader` has a limit of HEAD_BYTES_MAX."""
    try:
        while line := await reader.readline():
            members = json.loads(line)
            size = members.pop("bytes")
            if not 0 <= size <= BODY_BYTES_MAX:
                raise BrokenFrame(f"{size} bytes are announced")
            yield Frame(members, await reader.readexactly(size) if size else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        # The other process died in the middle of a frame.
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenFrame(type(error).__name__) from error
