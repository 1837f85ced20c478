"""Owns the line between the daemon's own tasks and a user's code that runs on the same loop.

A handler can find every task of the loop, and cancel it; and what it raises in a task that it started itself, such as SystemExit,
ends the loop. Code that runs in a foreign context, and all that it starts, cannot do either.
"""

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

# The one thing that follows foreign code into its tasks, timers and callbacks.
_FOREIGN: ContextVar[bool] = ContextVar("foreign", default=False)


class ForeignExit(Exception):
    """Foreign code wanted to end the program from a task of its own."""


def foreign_context() -> Context:
    """A context in which to run foreign code."""
    context = copy_context()
    context.run(_FOREIGN.set, True)
    return context


def foreign() -> bool:
    """Whether foreign code runs now."""
    return _FOREIGN.get()


class DaemonTask[T](asyncio.Task[T]):
    """A task that foreign code cannot cancel."""

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        """As asyncio's; False in a foreign context."""
        return False if _FOREIGN.get() else super().cancel(msg)


def make_task[T](
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """The task factory of a loop that runs foreign code beside the daemon's."""
    if not _FOREIGN.get():
        return DaemonTask(coro, loop=loop, **options)
    task: asyncio.Task[T] = asyncio.Task(contained(coro), loop=loop, **options)
    # One that is cancelled before it begins never comes to the coroutine, which would warn when it is dropped.
    task.add_done_callback(lambda _: coro.close())
    return task


async def contained[T](coro: Any) -> T:
    """What a foreign coroutine gives; raises ForeignExit instead of what would end the loop."""
    try:
        found: T = await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise ForeignExit(f"{type(error).__name__}: {error}") from error
    return found
