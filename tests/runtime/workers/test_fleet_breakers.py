"""Owns facts of breakers in the view of all workers, in whole daemons on virtual time."""

import asyncio
from dataclasses import replace

from adapters.stores.memory import MemoryStore
from poller.domain.invocations import FunctionError
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, BreakerPolicy, RetryPolicy
from poller.domain.records import ShardId
from tests.runtime.daemons import Site, daemon_plan, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.virtual import run_virtual

BREAKER = BreakerPolicy(failures=0.5, window_s=60.0, open_s=300.0)
FUNCTIONS = {"reader": FunctionPlan(name="reader", invoker="fake", breaker=BREAKER)}
BROKEN = FunctionError("ValueError", "the database is gone")


def test_each_worker_shows_which_breaker_is_open_at_which_worker() -> None:
    stream = FakeStream(held={ShardId("shard-0"): [], ShardId("shard-1"): []})
    for number in range(1, 40):
        stream.put(*records(number, key=f"key-{number}"), shard=ShardId("shard-0"))
    site = Site(sources={STREAM_ARN: stream}, functions={"reader": FakeFunction(lambda _: BROKEN)})
    given = mapping(batch=BatchPolicy(records_max=1), retry=RetryPolicy())
    given = replace(given, stream=replace(given.stream, lanes=10))
    store = MemoryStore()
    ann, bob = (
        site.daemon(daemon_plan(given, worker=name, functions=FUNCTIONS), store=store)
        for name in ("ann", "bob")
    )

    async def script() -> None:
        def states() -> set[str]:
            return {each.breaker.state for d in (ann, bob) for each in d.status().functions if each.breaker}

        await until(lambda: "open" in states(), within_s=300.0)
        await asyncio.sleep(10.0)
        views = [await each.fleet() for each in (ann, bob)]
        shown = [
            {
                at.worker: (at.breaker.state, round(at.breaker.since), at.breaker.reason)
                for at in each.breakers
            }
            for view in views
            for each in view.functions
        ]
        assert shown[0] == shown[1], "who is asked does not matter"
        assert sorted(shown[0]) == ["ann", "bob"]
        assert sorted(state for state, _, _ in shown[0].values()) == ["closed", "open"]
        assert any("ValueError: the database is gone" in reason for _, _, reason in shown[0].values())

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            for each in (ann, bob):
                scope.create_task(each.run(), name="daemon")
            await script()
            for each in (ann, bob):
                each.stop()

    run_virtual(main())
