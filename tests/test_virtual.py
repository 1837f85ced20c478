"""The virtual loop: exact times, the same order every time, and clear errors for what it cannot do."""

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.virtual import EPOCH_BASE, Deadlock, LimitPassed, VirtualLoop, in_scope, run_virtual, virtual_clock


def test_a_day_of_sleep_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run_virtual(main()) == 86_400
    assert time.monotonic() - began < 5


def test_sums_of_tenths_are_exact() -> None:
    async def main() -> list[float]:
        times = []
        for _ in range(10):
            await asyncio.sleep(0.1)
            times.append(asyncio.get_running_loop().time())
        return times

    assert run_virtual(main()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_moment_between_two_nanoseconds_is_reached() -> None:
    async def main() -> int:
        loop, turns = asyncio.get_running_loop(), 0
        moment = 1.0000000004
        while loop.time() < moment:
            await asyncio.sleep(moment - loop.time())
            turns += 1
        return turns

    assert run_virtual(main(), steps_max=100) <= 3


def test_timers_fire_by_time_and_ready_callbacks_in_order_of_call() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.call_later(2, seen.append, "late")
        loop.call_later(1, seen.append, "early")
        for name in ("a", "b", "c"):
            loop.call_soon(seen.append, name)
        await asyncio.sleep(3)
        return seen

    assert run_virtual(main()) == ["a", "b", "c", "early", "late"]


def test_a_timeout_cuts_a_wait_at_its_exact_moment() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 2.5


def test_waiting_for_nothing_is_a_deadlock_that_names_the_task_and_the_place() -> None:
    async def never_set() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(never_set(), name="reader of shard 7")

    with pytest.raises(Deadlock) as caught:
        run_virtual(main())
    notes = "".join(caught.value.__notes__)
    assert "reader of shard 7: " in notes
    assert "never_set (test_virtual.py:" in notes


def test_passing_the_time_limit_is_an_error() -> None:
    with pytest.raises(LimitPassed, match="not done after 5 s"):
        run_virtual(asyncio.sleep(6), limit_s=5)


def test_turning_without_waiting_is_an_error() -> None:
    async def main() -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)

    with pytest.raises(LimitPassed, match="too many turns"):
        run_virtual(main(), steps_max=1000)


def test_a_task_that_arms_timers_and_never_waits_is_an_error() -> None:
    async def main() -> None:
        done = asyncio.Event()
        done.set()
        for _ in range(1_000_000):
            async with asyncio.timeout(5):
                await done.wait()

    with pytest.raises(LimitPassed, match="a task spins"):
        run_virtual(main())


async def _thread() -> None:
    await asyncio.to_thread(print)


async def _socket() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        await asyncio.get_running_loop().sock_accept(listener)


async def _signal() -> None:
    asyncio.get_running_loop().add_signal_handler(10, print)


@pytest.mark.parametrize(("main", "word"), [(_thread, "threads"), (_signal, "signals"), (_socket, "sockets")])
def test_threads_signals_and_sockets_are_refused(main: Any, word: str) -> None:
    attempt: Coroutine[Any, Any, None] = main()
    with pytest.raises(RuntimeError, match=f"no {word}.* on virtual time"):
        run_virtual(attempt)


def test_a_failure_that_nobody_sees_is_raised_at_the_end() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(main())
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


def test_the_clock_shows_epoch_time_beside_the_loops() -> None:
    async def main() -> tuple[float, float]:
        await asyncio.sleep(1.5)
        clock = virtual_clock()
        return clock.monotonic(), clock.now()

    assert run_virtual(main()) == (1.5, EPOCH_BASE + 1.5)


def test_a_set_of_tasks_has_the_order_of_their_birth() -> None:
    async def main() -> list[str]:
        cancelled: list[str] = []

        async def child(name: str) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                cancelled.append(name)

        async def family() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(child(f"{number:02}"))
                await asyncio.sleep(1)
                raise ValueError

        with pytest.raises(ExceptionGroup):
            await family()
        return cancelled

    first = run_virtual(main())
    assert first == run_virtual(main())
    assert len(first) == 20


async def _ticks(seen: list[float], *, until_s: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < until_s:
        async with asyncio.timeout(50):
            await asyncio.sleep(1)
        seen.append(loop.time())


def test_a_frozen_scope_stands_still_while_others_go_on() -> None:
    async def main() -> tuple[list[float], list[float]]:
        loop, frozen, free = asyncio.get_running_loop(), list[float](), list[float]()
        assert isinstance(loop, VirtualLoop)
        async with asyncio.TaskGroup() as group:
            group.create_task(_ticks(frozen, until_s=12), context=in_scope("a"))
            group.create_task(_ticks(free, until_s=12), context=in_scope("b"))
            await asyncio.sleep(2.5)
            loop.freeze("a")
            await asyncio.sleep(7)
            loop.thaw("a")
        return frozen, free

    frozen, free = run_virtual(main())
    assert frozen == [1, 2, 9.5, 10.5, 11.5, 12.5]
    assert free == [float(second) for second in range(1, 13)]


def test_a_frozen_task_hears_of_its_cancellation_when_it_thaws() -> None:
    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(1), context=in_scope("a"))
            await asyncio.sleep(0.5)
            loop.freeze("a")
            task.cancel()
            await asyncio.sleep(5)
            before = task.done()
            loop.thaw("a")
        return before, task.cancelled()

    assert run_virtual(main()) == (False, True)


def test_after_a_freeze_a_time_limit_beats_an_answer_that_came_meanwhile() -> None:
    """As on any loop: both timers are due in one turn, and the task that waits runs after them."""

    async def answered_in_time() -> bool:
        try:
            async with asyncio.timeout(3):
                await asyncio.sleep(2)
        except TimeoutError:
            return False
        return True

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(answered_in_time(), context=in_scope("a"))
            await asyncio.sleep(1)
            loop.freeze("a")
            await asyncio.sleep(10)
            loop.thaw("a")
        return await task

    assert not run_virtual(main())
