"""Owns calls of foreign code (functions, destinations) in tasks of their own: what such code does to its task, it does to itself.

Foreign code may cancel its own task, swallow a cancellation that it did not ask for, raise what ends a program, or never
end. Whoever calls it here is cancelled only by those who cancel the caller, and waits for nothing longer than it says.
These tasks are not part of a TaskGroup, since a group waits for its tasks, and foreign code may refuse to end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from poller.runtime.watched_tasks import reason_of

CANCELLED_S_MAX = 2.0
"""How long a call may take to end after it was cancelled, before it is left to itself."""

type LeftBehind = Callable[[asyncio.Task[None]], None]
"""Who is told of a call that did not end when it was cancelled."""


class BrokenOff(Exception):
    """Foreign code ended its own task: it was cancelled from inside, or raised what would end a program."""


async def isolated[GivenT, T](
    call: Callable[[GivenT], Awaitable[T]], given: GivenT, *, name: str, left_behind: LeftBehind
) -> T:
    """What `call(given)` returns or raises, called in a task of its own. Raises BrokenOff in place of what is no Exception.

    When the caller is cancelled the call is cancelled too. A call that has not ended CANCELLED_S_MAX later goes on alone:
    the caller's cancellation goes through, and `left_behind` gets the task.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    # It begins at once: one turn of the loop less, and nobody can cancel it before it has begun.
    task = asyncio.Task(_answered(call, given, answer), loop=loop, name=name, eager_start=True)
    try:
        value, error = await answer
    except asyncio.CancelledError:
        await _cancelled(task, left_behind)
        raise
    if error is None:
        return value  # type: ignore[return-value]  # without an error there is a value
    if isinstance(error, Exception):
        raise error
    if isinstance(error, asyncio.CancelledError):
        raise BrokenOff("the call was cancelled from inside") from error
    raise BrokenOff(reason_of(error)) from error


async def _answered[GivenT, T](
    call: Callable[[GivenT], Awaitable[T]],
    given: GivenT,
    answer: asyncio.Future[tuple[T | None, BaseException | None]],
) -> None:
    value: T | None = None
    error: BaseException | None = None
    try:
        value = await call(given)
    except BaseException as raised:  # noqa: BLE001 - foreign code: whatever it raises is its caller's to judge
        error = raised
    if not answer.done():
        answer.set_result((value, error))


async def _cancelled(task: asyncio.Task[Any], left_behind: LeftBehind) -> None:
    """Cancels the task and waits a little for its end."""
    task.cancel()
    try:
        await asyncio.wait([task], timeout=CANCELLED_S_MAX)
    finally:
        if not task.done():
            left_behind(task)
