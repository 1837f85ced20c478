"""A lane whose batch waits for the function's breaker, in a whole daemon on virtual time: its state, and what a retry says."""

import asyncio

from poller.domain.invocations import FunctionError
from poller.domain.operations import Action, OperationState, PartResult
from poller.domain.plan import FunctionPlan
from poller.domain.policies import Backoff, BatchPolicy, BreakerPolicy, RetryPolicy
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import SHARD, STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.streams.test_operations import operation

BREAKER = BreakerPolicy(failures=0.5, window_s=60.0, open_s=3600.0)
FUNCTIONS = {"reader": FunctionPlan(name="reader", invoker="fake", breaker=BREAKER)}


def test_a_retry_of_a_batch_that_waits_for_the_breaker_says_since_when_it_is_open_and_how_to_close_it() -> (
    None
):
    stream, down = FakeStream(), FakeFunction(lambda _: FunctionError("ValueError", "the database is gone"))
    stream.put(*records(1, 2, 3))
    site = Site(sources={STREAM_ARN: stream}, functions={"reader": down})
    retry = RetryPolicy(backoff=Backoff(base_s=0.5, cap_s=0.5))
    given = daemon_plan(mapping(batch=BatchPolicy(records_max=1), retry=retry), functions=FUNCTIONS)

    async def script(daemon: Daemon) -> None:
        def breaker() -> str:
            return "".join(each.breaker.state for each in daemon.status().functions if each.breaker)

        await until(lambda: breaker() == "open", within_s=300.0)
        await asyncio.sleep(10.0)
        calls = len(down.calls)
        [status] = daemon.status().mappings
        [lane] = status.shards[0].lanes
        assert lane.state == "waiting"
        assert daemon._open_parts is not None
        [operable] = daemon._open_parts.running.operables().values()
        result = await operable.carry_out(SHARD, operation(Action.RETRY))
        assert isinstance(result, PartResult)
        assert result.state is OperationState.DONE
        assert result.result.startswith("lane 0: waits for the circuit breaker, open since ")
        assert result.result.endswith("Z: poller breaker close reader")
        await asyncio.sleep(10.0)
        assert len(down.calls) == calls

    play(lambda: site.daemon(given), script)
