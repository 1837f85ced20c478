"""Work that keeps the loop busy runs one piece in a pass of the loop."""

import asyncio
from collections.abc import Generator
from unittest.mock import patch

from poller.loop_turns import TURN_S, LoopTurns
from tests.virtual import run_virtual


def test_a_turn_that_nobody_else_wants_comes_without_waiting() -> None:
    async def main() -> None:
        passes = 0

        def count() -> None:
            nonlocal passes
            passes += 1

        asyncio.get_running_loop().call_soon(count)
        await LoopTurns().turn()
        assert passes == 0

    run_virtual(main())


def test_turns_come_in_order_and_one_in_a_pass_of_the_loop() -> None:
    async def main() -> None:
        turns, passes = LoopTurns(), [0]
        had: list[tuple[str, int]] = []

        def count() -> None:
            passes[0] += 1
            if len(had) < 5:
                asyncio.get_running_loop().call_soon(count)

        async def work(name: str) -> None:
            await turns.turn()
            had.append((name, passes[0]))

        async with asyncio.TaskGroup() as group:
            count()
            for name in "abcde":
                group.create_task(work(name), name=name)
        assert [name for name, _ in had] == list("abcde")
        assert len({number for _, number in had}) == 5, "two in one pass"

    run_virtual(main())


def test_who_was_cancelled_while_waiting_holds_nobody_up() -> None:
    async def main() -> None:
        turns = LoopTurns()
        had: list[str] = []

        async def work(name: str) -> None:
            await turns.turn()
            had.append(name)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(name), name=name) for name in "abc"]
            await turns.turn()
            await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[1].cancel()
        assert had == ["c"]
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await turns.turn()

    run_virtual(main())


def test_slices_that_used_their_time_go_on_in_another_pass_of_the_loop() -> None:
    """A long first slice and the next one together would be too long a step."""

    run, steps, spent, seen = asyncio.Handle._run, [0], [0.0], list[int]()

    def counted(handle: asyncio.Handle) -> None:
        steps[0] += 1
        run(handle)

    def work() -> Generator[None, None, str]:
        for _ in range(4):
            seen.append(steps[0])
            spent[0] += 2 * TURN_S
            yield
        return "done"

    async def main() -> None:
        with patch("poller.loop_turns.time.perf_counter", lambda: spent[0]):
            assert await LoopTurns().slices(work()) == "done"

    with patch.object(asyncio.Handle, "_run", counted):
        run_virtual(main())
    assert len(set(seen)) == 4, "two slices in one step"
