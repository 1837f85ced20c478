"""Owns how an adapter asks for room before it reads the body of an answer.

The engine chooses how much a call asks for by the sizes that it has seen, and can be wrong. Only the adapter learns how long an
answer is before it is in memory. A call of a source runs inside `answering`, and the adapter calls `make_room` with the length.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from poller.domain.errors import PortError


class AnswerTooLarge(PortError):
    """There is no room for the answer. The call is abandoned; ask for less. `needed` and `granted` are in bytes."""

    def __init__(self, needed: int, granted: int) -> None:
        super().__init__("no room in memory for an answer of the source (tuning.memory_mb)")
        self.needed = needed
        self.granted = granted


class AnswerRoom(Protocol):
    """The room of one call that is under way."""

    async def make(self, answer_bytes: int) -> None:
        """Waits until there is room for an answer of this length. Raises AnswerTooLarge."""
        ...

    def spare(self) -> None:
        """Gives back nearly all, since the call is not sent for long. What its answer takes is asked for by `make`."""
        ...


_CALL: ContextVar[AnswerRoom | None] = ContextVar("room of the source call", default=None)
# The calls pass through a library whose signatures are not ours, so the room cannot be an argument.


@contextmanager
def answering(room: AnswerRoom) -> Iterator[None]:
    """Inside, the answers of a source's call ask this room."""
    token = _CALL.set(room)
    try:
        yield
    finally:
        _CALL.reset(token)


def room_is_asked_for() -> bool:
    """Whether a source's call is under way whose answers need room."""
    return _CALL.get() is not None


async def make_room(answer_bytes: int) -> None:
    """Waits until there is room for an answer of this length, if a source's call is under way. Raises AnswerTooLarge."""
    room = _CALL.get()
    if room is not None:
        await room.make(answer_bytes)


def spare_room() -> None:
    """To be called before a source's call waits for long: others may have its room meanwhile."""
    room = _CALL.get()
    if room is not None:
        room.spare()
