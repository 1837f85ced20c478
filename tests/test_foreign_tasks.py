"""Tasks that a user's code starts on the daemon's loop."""

import asyncio
import inspect

from poller.foreign_tasks import foreign_context, make_task


def test_a_foreign_task_that_is_cancelled_before_it_begins_leaves_no_coroutine_behind() -> None:
    async def left() -> None:
        await asyncio.sleep(1)

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(make_task)
        coroutine, context = left(), foreign_context("function")
        task = context.run(loop.create_task, coroutine)
        context.run(task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        # The callbacks of a task that has ended come one turn later.
        await asyncio.sleep(0)
        return inspect.getcoroutinestate(coroutine)

    assert asyncio.run(main()) == inspect.CORO_CLOSED
