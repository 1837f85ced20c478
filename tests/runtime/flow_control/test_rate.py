"""Owns facts of functions with a rate, in whole daemons on virtual time."""

import asyncio
from dataclasses import replace

from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, RatePolicy
from poller.domain.records import MappingId, ShardId, WorkerId
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import FIFO, STANDARD, Handler, Service, fifo, plan, seconds, standard

ONE = BatchPolicy(records_max=1)
OTHER_ARN = STREAM_ARN.replace("readings", "orders")


def function(rate: RatePolicy) -> dict[str, FunctionPlan]:
    return {"reader": FunctionPlan(name="reader", invoker="fake", rate=rate)}


def most_within(times: list[float], window_s: float) -> int:
    """The most calls that began within any time of this length."""
    return max(sum(1 for each in times if first <= each < first + window_s) for first in times)


def stream_of(count: int, *, key: str | None = None) -> FakeStream:
    stream = FakeStream()
    for number in range(1, count + 1):
        stream.put(*records(number, key=key or f"key-{number}"))
    return stream


def test_calls_of_a_stream_keep_to_the_rate() -> None:
    site, reader = Site(), FakeFunction()
    site.sources[STREAM_ARN], site.functions["reader"] = stream_of(20), reader
    given = daemon_plan(mapping(batch=ONE), functions=function(RatePolicy(2.0)))

    async def script(_: Daemon) -> None:
        await until(lambda: len(reader.calls) == 20)

    play(lambda: site.daemon(given), script)
    gaps = [late - early for early, late in zip(reader.times, reader.times[1:], strict=False)]
    assert min(gaps) > 0.499
    assert max(gaps) < 0.6


def test_records_keep_to_the_rate_and_a_large_batch_is_paid_for_after_it() -> None:
    site, reader = Site(), FakeFunction()
    site.sources[STREAM_ARN], site.functions["reader"] = stream_of(60, key="k"), reader
    given = daemon_plan(
        mapping(batch=BatchPolicy(records_max=20)), functions=function(RatePolicy(records_per_s=10.0))
    )

    async def script(_: Daemon) -> None:
        await until(lambda: len(reader.calls) == 3)

    play(lambda: site.daemon(given), script)
    gaps = [late - early for early, late in zip(reader.times, reader.times[1:], strict=False)]
    assert [len(call) for call in reader.calls] == [20, 20, 20]
    assert [round(gap, 1) for gap in gaps] == [2.0, 2.0]


def test_two_workers_together_keep_to_the_rate_and_one_takes_over_when_the_other_leaves() -> None:
    site, reader = Site(), FakeFunction()
    stream = FakeStream(held={ShardId("s1"): [], ShardId("s2"): []})
    for shard in ("s1", "s2"):
        stream.put(*records(*range(1, 201)), shard=ShardId(shard))
    site.sources[STREAM_ARN], site.functions["reader"] = stream, reader
    given = daemon_plan(mapping(batch=ONE), functions=function(RatePolicy(4.0)))
    other = site.daemon
    shares: list[list[float]] = []
    daemons: list[Daemon] = []

    def second() -> Daemon:
        daemons.append(other(replace(given, worker=WorkerId("worker-2"))))
        return daemons[0]

    def share(daemon: Daemon) -> float:
        rates = [each.rate for each in daemon.status().functions]
        return rates[0].share if rates and rates[0] is not None else 0.0

    async def script(first: Daemon) -> None:
        await asyncio.sleep(20.0)
        shares.append([share(first), share(daemons[0])])
        daemons[0].stop()
        await asyncio.sleep(20.0)
        shares.append([share(first), 0.0])

    play(lambda: site.daemon(given), script, second)
    assert shares == [[0.5, 0.5], [1.0, 0.0]]
    assert most_within(reader.times, 10.0) <= 4 * 10 + 4
    late = [each for each in reader.times if 10.0 <= each < 20.0]
    assert len(late) >= 35, "two workers use the whole rate"


def test_a_mapping_with_many_lanes_does_not_keep_back_another_one() -> None:
    site, reader = Site(), FakeFunction()
    site.sources[STREAM_ARN], site.functions["reader"] = stream_of(100), reader
    lone = FakeStream()
    lone.put(*records(*range(1001, 1101)))
    site.sources[OTHER_ARN] = lone
    wide = mapping(batch=ONE)
    wide = replace(wide, stream=replace(wide.stream, lanes=10))
    narrow = mapping(
        batch=ONE, mapping=MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b12"), source_arn=OTHER_ARN
    )
    given = daemon_plan(wide, narrow, functions=function(RatePolicy(4.0)))

    async def script(_: Daemon) -> None:
        await until(lambda: len(reader.calls) == 40)

    play(lambda: site.daemon(given), script)
    of_narrow = sum(1 for call in reader.calls[:40] if call[0] > 1000)
    assert 18 <= of_narrow <= 22


def queue_site() -> tuple[Site, Handler, Service]:
    site, handler = Site(), Handler(takes_s=0.01)
    queue = site.sources[STANDARD] = standard()
    site.functions["reader"] = handler
    return site, handler, queue


def test_a_queue_receives_nothing_that_would_wait_for_the_rate() -> None:
    site, handler, queue = queue_site()
    given = daemon_plan(plan(queue, batch=ONE), functions=function(RatePolicy(2.0)))
    queue.send(*range(1, 21))
    waits: list[int] = []

    async def script(_: Daemon) -> None:
        while len(handler.calls) < 20:
            received = sum(each > 0 for each in queue.received.values())
            waits.append(received - len(handler.calls))
            await asyncio.sleep(0.03)

    play(lambda: site.daemon(given), script)
    assert max(waits) <= 2, "a second of the rate at most"
    assert most_within(handler.times, 5.0) <= 2 * 5 + 3
    assert set(queue.received.values()) == {1}


def test_polls_of_an_idle_queue_use_up_nothing() -> None:
    site, handler, queue = queue_site()
    given = daemon_plan(plan(queue, batch=ONE), functions=function(RatePolicy(0.01)))

    async def script(_: Daemon) -> None:
        await asyncio.sleep(300.0)
        queue.send(1)
        await until(lambda: bool(handler.calls))
        assert seconds() < 311.0, "it waits for the pause between two polls, and not for the rate"

    play(lambda: site.daemon(given), script)


def test_events_of_one_batch_wait_for_the_rate_each() -> None:
    site, handler = Site(), Handler()
    queue = fifo()
    site.sources[FIFO], site.functions["reader"] = queue, handler
    for number, group in enumerate("abcdef", start=1):
        queue.send(number, group=group)
    found = plan(queue)
    found = replace(found, queue=replace(found.queue, one_group_per_batch=True))

    async def script(_: Daemon) -> None:
        await until(lambda: len(handler.done) == 6)

    play(lambda: site.daemon(daemon_plan(found, functions=function(RatePolicy(1.0)))), script)
    assert most_within(handler.times, 3.0) <= 3 + 2
    assert set(queue.received.values()) == {1}


def test_a_changed_rate_holds_after_a_reload() -> None:
    site, reader = Site(), FakeFunction()
    site.sources[STREAM_ARN], site.functions["reader"] = stream_of(200), reader
    given = daemon_plan(mapping(batch=ONE), functions=function(RatePolicy(1.0)))

    async def script(daemon: Daemon) -> None:
        await asyncio.sleep(10.0)
        before = len(reader.calls)
        assert before <= 11
        changes = daemon.replan(replace(given, functions=function(RatePolicy(10.0))))
        assert changes == ("functions.reader.rate.invocations_per_s: 1.0 -> 10.0",)
        await asyncio.sleep(10.0)
        assert 80 <= len(reader.calls) - before <= 102

    play(lambda: site.daemon(given), script)
