"""Owns calls of foreign code (functions, destinations) in tasks of their own, so that the code cannot harm its caller's task.

Foreign code may cancel its own task, swallow a cancellation, raise SystemExit, or never end. The caller of such code is cancelled
only when somebody cancels the caller itself, and waits no longer than its own time limit. These tasks are not in a TaskGroup,
because a group waits for all its tasks, and foreign code may refuse to end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from poller.runtime.watched_tasks import reason_of

CANCELLED_S_MAX = 2.0
"""How long a cancelled call may take to end before it is left running in the background."""

type LeftBehind = Callable[[asyncio.Task[None]], None]
"""Is called with the task of a call that did not end when it was cancelled."""


class BrokenOff(Exception):
    """Foreign code ended its own task: it cancelled the task, or raised an error such as SystemExit."""


async def isolated[GivenT, T](
    call: Callable[[GivenT], Awaitable[T]], given: GivenT, *, name: str, left_behind: LeftBehind
) -> T:
    """Calls `call(given)` in a task of its own, and returns or raises what it does. BrokenOff replaces errors that are no Exception.

    If the caller is cancelled, the call is cancelled too. If the call has not ended CANCELLED_S_MAX later, it goes on in the
    background: the caller's cancellation takes effect, and `left_behind` gets the task.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    # An eager start saves a pass of the loop, and the task cannot be cancelled before its first step.
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
    except BaseException as raised:  # noqa: BLE001 - foreign code: the caller decides about any error
        error = raised
    if not answer.done():
        answer.set_result((value, error))


async def _cancelled(task: asyncio.Task[Any], left_behind: LeftBehind) -> None:
    """Cancels the task and waits for its end, CANCELLED_S_MAX at most."""
    task.cancel()
    try:
        await asyncio.wait([task], timeout=CANCELLED_S_MAX)
    finally:
        if not task.done():
            left_behind(task)
