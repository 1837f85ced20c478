"""A task that ends before it is over is noticed, told and ends its group; or it is started again alone."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import poller
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.runtime.watched_tasks import AGAIN_S, TaskFault, WatchedTasks
from tests.runtime.fakes import Seen
from tests.virtual import run_virtual

SOURCES = Path(poller.__file__).parent


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _raise(error: BaseException) -> None:
    await asyncio.sleep(1)
    raise error


async def _return() -> None:
    await asyncio.sleep(1)


async def _cancel_myself() -> None:
    await asyncio.sleep(1)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _raise_cancelled() -> None:
    await asyncio.sleep(1)
    raise asyncio.CancelledError


def _not_over() -> bool:
    return False


ENDS: list[tuple[Callable[[], Coroutine[Any, Any, None]], TaskEnd]] = [
    (lambda: _raise(RuntimeError("broken")), TaskEnd.RAISED),
    (lambda: _raise(SystemExit(0)), TaskEnd.RAISED),
    (lambda: _raise(KeyboardInterrupt()), TaskEnd.RAISED),
    (_cancel_myself, TaskEnd.CANCELLED),
    (_raise_cancelled, TaskEnd.CANCELLED),
    (_return, TaskEnd.RETURNED),
]


@pytest.mark.parametrize(("work", "end"), ENDS)
def test_a_task_that_ends_before_it_is_over_ends_its_group_at_once(
    work: Callable[[], Coroutine[Any, Any, None]], end: TaskEnd
) -> None:
    seen, cancelled = Seen(), []

    async def beside() -> None:
        try:
            await _for_ever()
        except asyncio.CancelledError:
            cancelled.append(asyncio.get_running_loop().time())
            raise

    async def main() -> float:
        async def grouped() -> None:
            async with WatchedTasks(seen) as group:
                group.start(TaskKind.LANE, beside(), over=_not_over)
                group.start(TaskKind.READER, work(), of="shard-1", over=_not_over)

        with pytest.raises(ExceptionGroup):
            await grouped()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 1.0
    assert cancelled == [1.0]
    (told,) = seen.of(TaskEnded)
    assert (told.task, told.end, told.name) == (TaskKind.READER, end, "reader shard-1")


@pytest.mark.parametrize(("work", "end"), ENDS)
def test_a_fault_interrupts_the_body_of_the_group(
    work: Callable[[], Coroutine[Any, Any, None]], end: TaskEnd
) -> None:
    async def main() -> float:
        async def grouped() -> None:
            async with WatchedTasks(Seen()) as group:
                group.start(TaskKind.READER, work(), over=_not_over)
                await _for_ever()

        with pytest.raises(ExceptionGroup):
            await grouped()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 1.0


def test_a_task_that_is_cancelled_before_its_first_step_is_noticed_too() -> None:
    seen = Seen()

    async def main() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.READER, _for_ever(), over=_not_over).cancel()

    with pytest.raises(ExceptionGroup) as raised:
        run_virtual(main())
    assert isinstance(raised.value.exceptions[0], TaskFault)
    assert [told.end for told in seen.of(TaskEnded)] == [TaskEnd.CANCELLED]


def test_a_task_that_is_over_may_return_and_be_cancelled() -> None:
    seen = Seen()

    async def main() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.READER, _return(), over=lambda: True)
            group.start(TaskKind.LANE, _for_ever(), over=lambda: True).cancel()

    run_virtual(main())
    assert seen.events == []


async def _answer() -> bool:
    return False


@pytest.mark.parametrize(("work", "end"), ENDS)
def test_a_task_without_a_condition_is_over_when_it_returns_something(
    work: Callable[[], Coroutine[Any, Any, None]], end: TaskEnd
) -> None:
    seen = Seen()

    async def main() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.TAKE, _answer())
            await asyncio.sleep(2)
            assert seen.events == []
            group.start(TaskKind.TAKE, work())

    with pytest.raises(ExceptionGroup):
        run_virtual(main())
    assert [told.end for told in seen.of(TaskEnded)] == [end]


def test_a_group_that_is_cancelled_reports_nothing() -> None:
    seen = Seen()

    async def grouped() -> None:
        async with WatchedTasks(seen) as outer:
            outer.start(TaskKind.SHARD, inner(), over=_not_over)

    async def inner() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.READER, _for_ever(), over=_not_over)
            group.kept(TaskKind.HEARTBEAT, _for_ever)

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            task = scope.create_task(grouped())
            await asyncio.sleep(1)
            task.cancel()
        assert task.cancelled()

    run_virtual(main())
    assert seen.events == []


def test_an_error_is_reported_once_however_many_groups_it_goes_through() -> None:
    seen = Seen()

    async def shard() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.LANE, _raise(ValueError("no")), over=_not_over)

    async def main() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.SHARD, shard(), over=_not_over)

    with pytest.raises(ExceptionGroup):
        run_virtual(main())
    assert [(told.task, told.reason) for told in seen.of(TaskEnded)] == [(TaskKind.LANE, "ValueError: no")]


def test_a_task_that_falls_in_the_same_turn_as_a_time_limit_of_the_body_is_noticed() -> None:
    seen = Seen()

    async def main() -> None:
        async with WatchedTasks(seen) as group:
            group.start(TaskKind.READER, _cancel_myself(), over=_not_over)
            for _ in range(4):
                try:
                    async with asyncio.timeout(0.5):
                        await _for_ever()
                except TimeoutError:
                    continue
            raise AssertionError("nobody noticed")

    with pytest.raises(ExceptionGroup) as raised:
        run_virtual(main())
    assert raised.group_contains(TaskFault)
    assert not raised.group_contains(AssertionError)


@pytest.mark.parametrize(("work", "end"), ENDS)
def test_a_kept_task_is_started_again_and_disturbs_nobody(
    work: Callable[[], Coroutine[Any, Any, None]], end: TaskEnd
) -> None:
    seen, begun = Seen(), []

    async def kept() -> None:
        begun.append(asyncio.get_running_loop().time())
        await (work() if len(begun) < 3 else _for_ever())

    async def main() -> float:
        async with WatchedTasks(seen) as group:
            task = group.kept(TaskKind.HEARTBEAT, kept)
            await asyncio.sleep(10)
            task.cancel()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 10.0
    assert begun == [0.0, 1.0 + AGAIN_S, 2 * (1.0 + AGAIN_S)]
    assert [told.end for told in seen.of(TaskEnded)] == [end, end]


def test_a_kept_task_that_is_cancelled_while_it_waits_to_begin_again_begins_again() -> None:
    begun = []

    async def kept() -> None:
        begun.append(asyncio.get_running_loop().time())
        await _for_ever()

    async def main() -> None:
        async with WatchedTasks(Seen()) as group:
            task = group.kept(TaskKind.HEARTBEAT, kept)
            for moment in (1.0, 1.25):
                await asyncio.sleep(moment - asyncio.get_running_loop().time())
                for each in asyncio.all_tasks() - {asyncio.current_task()}:
                    each.cancel()
            await asyncio.sleep(2)
            task.cancel()

    run_virtual(main())
    assert begun == [0.0, 1.25 + AGAIN_S]


def test_a_fatal_error_of_a_kept_task_ends_the_group() -> None:
    seen = Seen()

    async def main() -> None:
        async with WatchedTasks(seen) as group:
            group.kept(TaskKind.CONTROL, lambda: _raise(OSError("no port")), fatal=(OSError,))
            group.kept(TaskKind.HEARTBEAT, _for_ever)

    with pytest.raises(ExceptionGroup) as raised:
        run_virtual(main())
    assert raised.group_contains(OSError)
    assert [told.end for told in seen.of(TaskEnded)] == [TaskEnd.RAISED]


WATCHED_BY_THEMSELVES = {
    "runtime/watched_tasks.py",
    "runtime/foreign_calls.py",
    "runtime/functions/call_deliveries.py",
    "runtime/operations/long/redriving.py",
    "commands/check_live.py",
    "commands/dry_run/command.py",
    "commands/supervise/own_process.py",
    "commands/supervise/supervisor.py",
}
"""Modules that start tasks and look after them: a command or a supervisor waits for its own and fails when one ends by itself; a destination of calls
whose task has ended is opened again by the next call."""


def test_every_task_of_the_engine_is_watched() -> None:
    unwatched = [
        f"{path.relative_to(SOURCES)}:{number}"
        for folder in ("runtime", "commands")
        for path in sorted((SOURCES / folder).glob("**/*.py"))
        if str(path.relative_to(SOURCES)) not in WATCHED_BY_THEMSELVES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(word in line for word in ("create_task", "asyncio.TaskGroup", "ensure_future", ".gather("))
    ]
    assert unwatched == []
