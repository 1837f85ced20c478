"""Handlers that do what no handler should; what they do is in the event. Each kind exists as a function and as a coroutine."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from poller.foreign_tasks import ForeignExit


class NoText(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


class Nameless(type):
    """Classes of it have no name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit("no name")


class NamelessError(Exception, metaclass=Nameless):
    """Its class has no name."""


class Raising:
    """Everything about it raises."""

    @property  # type: ignore[misc]  # that is what is wrong with it
    def __class__(self) -> Any:
        raise SystemExit("no class")

    def __eq__(self, other: object) -> bool:
        raise KeyboardInterrupt

    def __hash__(self) -> int:
        raise KeyboardInterrupt

    def __bool__(self) -> bool:
        raise KeyboardInterrupt

    def __repr__(self) -> str:
        raise SystemExit


class Lying:
    """Says that it is a dict."""

    @property  # type: ignore[misc]  # that is what is wrong with it
    def __class__(self) -> Any:
        return dict


class Items(dict[str, Any]):
    """Cannot be gone through."""

    def items(self) -> Any:
        raise SystemExit("no items")


class Text(str):
    """A text that breaks whoever cuts it."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> str:
        raise SystemExit("no part")

    def __len__(self) -> int:
        raise SystemExit("no length")


class Junk:
    """Awaiting it gives something that is no future."""

    def __await__(self) -> Iterator[Any]:
        yield 7


class NotIterable:
    """Awaiting it gives nothing to go through."""

    def __await__(self) -> Any:
        return 7


class Ended:
    """Awaiting it ends before it began."""

    def __await__(self) -> Any:
        raise StopIteration("odd")


def deep(levels: int) -> Any:
    """Lists in lists."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def ring() -> list[Any]:
    """A list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


def throw(error: BaseException) -> Any:
    """Raises it."""
    raise error


ENDINGS: dict[str, Callable[[], Any]] = {
    "answers": lambda: {"ok": True},
    "nothing": lambda: None,
    "raises": lambda: throw(ValueError("boom")),
    "exits": lambda: sys.exit(3),
    "interrupts": lambda: throw(KeyboardInterrupt()),
    "generator exit": lambda: throw(GeneratorExit()),
    "stop iteration": lambda: throw(StopIteration(1)),
    "raises cancelled": lambda: throw(asyncio.CancelledError()),
    "raises a time-out": lambda: throw(TimeoutError("of its own")),
    "raises a group": lambda: throw(BaseExceptionGroup("all", [SystemExit(1), ValueError("x")])),
    "raises without text": lambda: throw(NoText()),
    "raises without name": lambda: throw(NamelessError("bang")),
    "raises half a character": lambda: throw(ValueError("\ud800")),
    "raises an odd text": lambda: throw(ValueError(Text("odd"))),
    "raises a long text": lambda: throw(ValueError("x" * 10_000_000)),
    "recurses": lambda: ENDINGS["recurses"](),
    "raising": Raising,
    "lying": Lying,
    "no items": lambda: Items(a=1),
    "odd keys": lambda: {(1, 2): 3},
    "not a number": lambda: {"batchItemFailures": [], "x": float("nan")},
    "ring": ring,
    "deep": lambda: deep(100_000),
    "half a character": lambda: {"x": "\ud800"},
    "huge number": lambda: 10**5000,
    "generator": lambda: (each for each in [1]),
    "bytes": lambda: b"x",
    "set in list": lambda: [{1}],
    "junk": Junk,
    "not iterable": NotIterable,
    "ended": Ended,
}
"""What a handler may end with."""


def cancel_self() -> None:
    """Cancels the running task."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def cancel_all() -> None:
    """Cancels every task of the loop."""
    for task in asyncio.all_tasks():
        task.cancel()


def cancel_soon() -> None:
    """A watchdog of a handler's own: it goes off later."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.0, task.cancel)


def start_exiting() -> None:
    """Leaves a task behind that wants to end the program."""

    async def leave() -> None:
        sys.exit(4)

    # Made when its turn comes: a loop may end before.
    asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(leave()))


async def swallow() -> None:
    """Waits, and goes on when that is cancelled."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def late() -> None:
    """Waits longer than it may, and goes on when that is cancelled."""
    try:
        await asyncio.sleep(3)
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def refuse() -> None:
    """Refuses to be cancelled for five seconds."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 5
    while loop.time() < ends:
        try:
            await asyncio.sleep(ends - loop.time())
        except asyncio.CancelledError:
            continue


async def in_group() -> None:
    """Works in a group of tasks, one of which fails."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(1))
        tasks.create_task(asyncio.sleep(0))
        cancel_self()


async def within() -> None:
    """A time limit of its own ends while it is being cancelled."""
    try:
        async with asyncio.timeout(0):
            cancel_self()
            await asyncio.sleep(1)
    except TimeoutError:
        return


def _plain(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def step() -> None:
        act()

    return step


STEPS: dict[str, Callable[[], Awaitable[None]]] = {
    "waits": lambda: asyncio.sleep(0),
    "waits a moment": lambda: asyncio.sleep(0.01),
    "cancels itself": _plain(cancel_self),
    "cancels itself soon": _plain(cancel_soon),
    "cancels all": _plain(cancel_all),
    "leaves an exit": _plain(start_exiting),
    "swallows": swallow,
    "is late": late,
    "refuses": refuse,
    "is in a group": in_group,
    "is within": within,
}
"""What an asynchronous handler may do before it ends."""


def unseen(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A loop's exception handler that fails on what nobody has seen, but for the exit that a handler left behind."""
    if not isinstance(context.get("exception"), ForeignExit):
        raise AssertionError(context)


def ends(event: Any, _context: Any) -> Any:
    """Ends as the event says."""
    if "Records" in event:
        return None
    return ENDINGS[event["end"]]()


async def acts(event: Any, _context: Any) -> Any:
    """Does what the event says, then ends as it says."""
    for step in event.get("steps", ()):
        await STEPS[step]()
    return ENDINGS[event["end"]]()


def hands_on(event: Any, context: Any) -> Any:
    """A plain function whose answer has still to be awaited."""
    return acts(event, context)
