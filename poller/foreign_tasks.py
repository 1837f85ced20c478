"""Owns the line between the daemon's own tasks and a user's code that runs on the same loop.

Without protection, a handler could find and cancel every task of the loop. An exception such as SystemExit in a task that the
handler started would end the loop. Code that runs in a foreign context can do neither, and nor can the tasks that it starts.
"""

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from poller.forked_copies import ends_copies, ends_copies_that_await

FUNCTION_THREADS = "function-"
"""How the names of threads begin that run functions. They are daemon threads, because nothing can end them."""

# A context variable, because asyncio copies the context into the tasks, timers and callbacks that foreign code makes.
_OWNER: ContextVar[str] = ContextVar("owner", default="")


class ForeignExit(Exception):
    """Foreign code tried to end the program, for example by SystemExit."""


def foreign_context(name: str) -> Context:
    """A context in which to run foreign code, that of `name`, which must not be empty."""
    context = copy_context()
    context.run(_OWNER.set, name)
    return context


def owner() -> str:
    """Returns whose code runs at present: the name of its foreign context, or nothing for the daemon itself."""
    return _OWNER.get()


def foreign() -> bool:
    """Whether the present code runs in a foreign context."""
    return bool(_OWNER.get())


class DaemonTask[T](asyncio.Task[T]):
    """A task that foreign code cannot cancel."""

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        """As `asyncio.Task.cancel`. In a foreign context it does nothing and returns False."""
        return False if _OWNER.get() else super().cancel(msg)


def make_task[T](
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """The task factory of a loop that runs foreign code beside the daemon's."""
    if not _OWNER.get():
        return DaemonTask(coro, loop=loop, **options)
    task: asyncio.Task[T] = asyncio.Task(contained(coro), loop=loop, **options)
    # A task that is cancelled before its first step never runs its coroutine. Python would warn that it was never awaited.
    task.add_done_callback(lambda _: coro.close())
    return task


@ends_copies_that_await
async def contained[T](coro: Any) -> T:
    """The result of a foreign coroutine. Raises ForeignExit in place of an exception that would end the loop."""
    try:
        with ends_copies():
            found: T = await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise ForeignExit(f"{type(error).__name__}: {error}") from error
    return found
