"""Whoever blocks the event loop is named; a loop that comes round is told nothing of."""

import asyncio
import re
import signal
import sys
import threading
import time
from types import FrameType

from poller.commands.run.loop_watch import (
    BLOCKED_S,
    NO_CODE,
    PLACES_MAX,
    TICK_S,
    LoopWatch,
    WatchedStatus,
    place_of,
)
from poller.domain.records import MappingId
from poller.domain.status import DaemonStatus
from poller.domain.telemetry.daemon_events import LoopBlocked
from tests.runtime.fakes import Seen


def look_up(depth: int) -> FrameType:
    """A frame so deep in calls of this function."""
    if depth:
        return look_up(depth - 1)
    return sys._getframe()


def select() -> FrameType:
    """A frame that looks like the loop's own wait."""
    return sys._getframe()


def test_the_place_is_the_innermost_call_first() -> None:
    innermost, *_ = place_of(look_up(0)).split(" < ")
    assert innermost.startswith("look_up (run/test_loop_watch.py:")


def test_a_thread_that_waits_in_the_loop_itself_runs_nobodys_code() -> None:
    assert place_of(select()) == NO_CODE


def test_without_a_stack_there_is_no_place() -> None:
    assert place_of(None) == ""


def test_a_deep_stack_is_cut() -> None:
    assert place_of(look_up(500)).count("<") == PLACES_MAX - 1


def _blocks() -> None:
    time.sleep(TICK_S + BLOCKED_S + 0.5)


class View:
    """A daemon that is ready."""

    def status(self) -> DaemonStatus:
        return DaemonStatus(worker="w", mappings=(), ready=True, alive=True, notes=("a note",))

    async def fleet(
        self, *, only: str = "", mapping: MappingId | None = None, ask: bool = True
    ) -> DaemonStatus:
        return self.status()

    async def refresh(self) -> None:
        return


def test_code_that_blocks_the_loop_is_named_in_event_and_status() -> None:
    seen = Seen()

    async def main() -> tuple[DaemonStatus, DaemonStatus]:
        watch = LoopWatch(seen)
        view = WatchedStatus(View(), watch.notes)
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(watch.run())
            await asyncio.sleep(2 * TICK_S)
            before = view.status()
            _blocks()
            await asyncio.sleep(2 * TICK_S)
            watching.cancel()
        return before, view.status()

    before, after = asyncio.run(main())
    named = [event for event in seen.of(LoopBlocked) if "_blocks (run/test_loop_watch.py" in event.place]
    assert len(named) == 1
    assert named[0].blocked_s >= BLOCKED_S
    assert before.notes[:1] == after.notes[:1] == ("a note",)
    assert any("_blocks" in note and "was blocked for" in note for note in after.notes)


def test_no_code_is_named_of_a_loop_that_comes_round() -> None:
    seen = Seen()

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(LoopWatch(seen).run())
            await asyncio.sleep(4 * TICK_S)
            watching.cancel()

    asyncio.run(main())
    assert all(event.place.startswith(NO_CODE) or not event.place for event in seen.of(LoopBlocked))


def test_an_alarm_of_somebody_else_ends_nothing_and_is_no_block() -> None:
    seen, before = Seen(), signal.getsignal(signal.SIGALRM)

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(LoopWatch(seen).run())
            await asyncio.sleep(TICK_S / 2)
            assert signal.getsignal(signal.SIGALRM) is not before
            signal.raise_signal(signal.SIGALRM)
            await asyncio.sleep(2 * TICK_S)
            watching.cancel()

    asyncio.run(main())
    assert signal.getsignal(signal.SIGALRM) is before
    assert all(event.place.startswith(NO_CODE) or not event.place for event in seen.of(LoopBlocked))


def test_a_thread_that_holds_the_interpreter_is_named_in_place_of_the_loop() -> None:
    seen = Seen()

    def holds() -> bool:
        # The time of this match doubles with each letter. It never lets another thread run.
        letters, began = 20, time.monotonic()
        while time.monotonic() - began < TICK_S + BLOCKED_S + 1.0:
            began, letters = time.monotonic(), letters + 1
            re.match(r"(a+)+$", "a" * letters + "b")
        return True

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(LoopWatch(seen).run())
            assert await asyncio.to_thread(holds)
            await asyncio.sleep(2 * TICK_S)
            watching.cancel()

    asyncio.run(main())
    longest = max(seen.of(LoopBlocked), key=lambda event: event.blocked_s)
    assert longest.place.startswith(NO_CODE)
    assert "a thread is at holds (run/test_loop_watch.py:" in longest.place or "< holds (" in longest.place


def test_threads_at_work_do_not_disturb_the_look() -> None:
    """A watchdog that reads stacks from a thread of its own ended the process here now and then."""
    seen, ended = Seen(), threading.Event()

    def work() -> None:
        while not ended.is_set():
            sum(sorted(range(1000), key=lambda each: -each))

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(LoopWatch(seen).run())
            await asyncio.sleep(TICK_S / 5)
            _blocks()
            await asyncio.sleep(2 * TICK_S)
            watching.cancel()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    try:
        asyncio.run(main())
    finally:
        ended.set()
        for each in threads:
            each.join()
    assert any("_blocks (run/test_loop_watch.py" in event.place for event in seen.of(LoopBlocked))
