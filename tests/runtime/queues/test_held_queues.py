"""A queue whose messages cannot be tried because the function's breaker is open, in a whole daemon: what a retry says."""

import asyncio
from collections.abc import Callable

import pytest

from poller.domain.invocations import FunctionError, Succeeded
from poller.domain.operations import Action, OperationState, PartResult
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, BreakerPolicy
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.queues.queue_fakes import Handler, Service, fifo, plan, standard
from tests.runtime.queues.test_operations import asked

BREAKER = BreakerPolicy(failures=0.5, window_s=60.0, open_s=3600.0)
FUNCTIONS = {"reader": FunctionPlan(name="reader", invoker="fake", breaker=BREAKER)}


@pytest.mark.parametrize("make", [standard, fifo])
def test_a_retry_says_that_the_breaker_is_open_and_how_to_close_it(make: Callable[..., Service]) -> None:
    queue, broken = make(visibility_s=600), True
    handler = Handler(answer=lambda _: FunctionError("ValueError", "gone") if broken else Succeeded(b""))
    found = plan(queue, batch=BatchPolicy(records_max=1))
    site = Site(sources={found.source_arn: queue}, functions={"reader": handler})
    for number in range(1, 9):
        queue.send(number, group=f"g{number}" if make is fifo else None)

    async def retry(daemon: Daemon) -> str:
        assert daemon._open_parts is not None
        [operable] = daemon._open_parts.running.operables().values()
        result = await operable.carry_out("worker-1", asked(Action.RETRY))
        assert isinstance(result, PartResult)
        assert result.state is OperationState.DONE
        return result.result

    async def script(daemon: Daemon) -> None:
        nonlocal broken

        def breaker() -> str:
            return "".join(each.breaker.state for each in daemon.status().functions if each.breaker)

        await until(lambda: breaker() == "open")
        await asyncio.sleep(1.0)
        calls = len(handler.calls)
        first, again = await retry(daemon), await retry(daemon)
        assert first.startswith(
            f"{calls} messages are visible again; calls wait for the circuit breaker, open"
        )
        assert again.startswith("nothing that failed waits here; calls wait for the circuit breaker, open")
        assert first.endswith("Z: poller breaker close reader")
        await asyncio.sleep(10.0)
        assert len(handler.calls) == calls, "a retry does not pass an open breaker"
        broken = False
        await daemon.control.functions.close_breaker("reader", by="ops", reason="")
        await until(lambda: not queue.left, within_s=20.0)
        assert await retry(daemon) == "nothing that failed waits here"

    play(lambda: site.daemon(daemon_plan(found, functions=FUNCTIONS)), script)
