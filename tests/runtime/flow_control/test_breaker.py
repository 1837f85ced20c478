"""Owns facts of functions with a circuit breaker, in whole daemons on virtual time."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.domain.mapping_api import ApiError
from poller.domain.plan import FunctionPlan, MappingPlan
from poller.domain.policies import BatchPolicy, BreakerPolicy, RetryPolicy
from poller.domain.records import MappingId, ShardId, WorkerId
from poller.domain.status import BreakerStatus
from poller.domain.telemetry.daemon_events import BreakerChanged
from poller.domain.telemetry.labels import BreakerState
from poller.domain.telemetry.mapping_events import InvocationStarted
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, Handler, Service, plan, seconds, standard

BREAKER = BreakerPolicy(failures=0.5, window_s=60.0, open_s=30.0)
FUNCTIONS = {"reader": FunctionPlan(name="reader", invoker="fake", breaker=BREAKER)}
BROKEN = FunctionError("ValueError", "the database is gone")


def broken_until(moment: float) -> Outcome:
    return BROKEN if seconds() < moment else Succeeded(b"")


def breaker_of(daemon: Daemon) -> BreakerStatus:
    (function,) = daemon.status().functions
    assert function.breaker is not None
    return function.breaker


def state_of(daemon: Daemon) -> str:
    return breaker_of(daemon).state if daemon.status().functions else ""


def many_lanes(count: int) -> tuple[Site, FakeFunction]:
    """A stream of one record in each of ten lanes; the function is broken for 100 s."""
    site, reader = Site(), FakeFunction(lambda _: broken_until(100.0))
    stream = FakeStream()
    for number in range(1, count + 1):
        stream.put(*records(number, key=f"key-{number}"))
    site.sources[STREAM_ARN], site.functions["reader"] = stream, reader
    return site, reader


def ten_lanes(**changes: object) -> MappingPlan:
    found = mapping(batch=BatchPolicy(records_max=1), **changes)
    return replace(found, stream=replace(found.stream, lanes=10))


def test_a_stream_is_held_while_the_breaker_is_open_then_one_batch_tries_and_then_all_go_on() -> None:
    site, reader = many_lanes(40)
    given = daemon_plan(ten_lanes(retry=RetryPolicy(retries_max=3)), functions=FUNCTIONS)

    async def script(daemon: Daemon) -> None:
        await until(lambda: state_of(daemon) == "open")
        first = len(reader.calls)
        await asyncio.sleep(29.0)
        assert len(reader.calls) == first, "nothing is called while it is open"
        await until(lambda: len(reader.calls) > first)
        await asyncio.sleep(25.0)
        assert len(reader.calls) == first + 1, "exactly one batch tries"
        assert breaker_of(daemon).reason == "the try failed: ValueError: the database is gone"
        await until(lambda: sum(len(set(call)) for call in reader.calls) >= 40, within_s=200.0)
        await until(lambda: breaker_of(daemon).state == "closed", within_s=200.0)
        await asyncio.sleep(30.0)
        done = {
            number
            for call, at in zip(reader.calls, reader.times, strict=True)
            if at >= 100
            for number in call
        }
        assert done == set(range(1, 41)), "no retry was used up while it was open, so nothing was discarded"

    play(lambda: site.daemon(given), script)
    turns = [(each.state, each.next_try_s) for each in site.seen.of(BreakerChanged)]
    assert turns[:4] == [
        (BreakerState.CLOSED, None),
        (BreakerState.OPEN, 30.0),
        (BreakerState.HALF_OPEN, None),
        (BreakerState.OPEN, 30.0),
    ]
    assert turns[-2:] == [(BreakerState.CLOSED, None)] * 2, "it has closed, and the function with it"


def queue_site() -> tuple[Site, Handler, Service]:
    site, handler = Site(), Handler(takes_s=0.01, answer=lambda _: broken_until(100.0))
    queue = site.sources[STANDARD] = standard()
    site.functions["reader"] = handler
    return site, handler, queue


def test_a_queue_receives_nothing_while_the_breaker_is_open() -> None:
    site, handler, queue = queue_site()
    queue.send(*range(1, 51))
    given = daemon_plan(plan(queue, batch=BatchPolicy(records_max=1)), functions=FUNCTIONS)

    async def script(daemon: Daemon) -> None:
        await until(lambda: state_of(daemon) == "open")
        await asyncio.sleep(1.0)
        calls = len(handler.calls)
        receives = len(queue.receives)
        status = breaker_of(daemon)
        assert status.next_try is not None
        await asyncio.sleep(27.0)
        assert (len(handler.calls), len(queue.receives)) == (calls, receives)
        await asyncio.sleep(3.0)
        assert len(handler.calls) == calls + 1
        await until(lambda: not queue.left, within_s=300.0)

    play(lambda: site.daemon(given), script)
    assert max(queue.received.values()) <= 5, "few receives are used up"


def test_a_try_that_finds_the_queue_empty_stays_half_open_and_the_next_message_decides() -> None:
    site, _, _ = queue_site()
    queue = site.sources[STANDARD] = standard(redrive=1)
    queue.send(*range(1, 6))
    given = daemon_plan(plan(queue, batch=BatchPolicy(records_max=1)), functions=FUNCTIONS)

    async def script(daemon: Daemon) -> None:
        await until(lambda: state_of(daemon) == "open")
        await asyncio.sleep(150.0)
        assert breaker_of(daemon).state == "half_open"
        queue.send(99)
        await until(lambda: breaker_of(daemon).state == "closed")

    play(lambda: site.daemon(given), script)
    opened = [each for each in site.seen.of(BreakerChanged) if each.state is BreakerState.OPEN]
    assert len(opened) == 1


def test_a_batch_that_was_received_before_the_breaker_opened_waits_and_is_not_given_back() -> None:
    """Its messages are kept from others, so their receive count does not grow."""
    site, _, queue = queue_site()
    found = plan(queue, batch=BatchPolicy(records_max=10, window_s=20.0))
    lone = mapping(
        batch=BatchPolicy(records_max=1), mapping=MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b13")
    )
    lone = replace(lone, function="reader")
    reader = Both()
    site.functions["reader"] = reader
    stream = FakeStream()
    site.sources[STREAM_ARN] = stream

    async def script(daemon: Daemon) -> None:
        queue.send(1)
        await asyncio.sleep(1.0)
        stream.put(*records(7))
        await until(lambda: state_of(daemon) == "open")
        opened_at = seconds()
        await until(lambda: reader.queue_calls > 0, within_s=200.0)
        assert seconds() >= opened_at + 29.9
        await asyncio.sleep(5.0)
        assert queue.received == {1: 1}
        assert queue.left == []

    play(lambda: site.daemon(daemon_plan(found, lone, functions=FUNCTIONS)), script)


class Both(FakeFunction):
    """An invoker for a stream and a queue: it fails for the stream's batches and takes those of the queue."""

    def __init__(self) -> None:
        super().__init__()
        self.queue_calls = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        if b"aws:sqs" in invocation.payload:
            self.queue_calls += 1
            return Succeeded(b"")
        return broken_until(100.0)


def test_closing_by_hand_holds_here_at_once_and_at_every_worker_within_five_seconds() -> None:
    site = Site()
    healthy = False

    def answer(_: list[int]) -> Outcome:
        return Succeeded(b"") if healthy else BROKEN

    reader = FakeFunction(answer)
    stream = FakeStream(held={ShardId("s1"): [], ShardId("s2"): []})
    site.sources[STREAM_ARN], site.functions["reader"] = stream, reader
    slow = {"reader": replace(FUNCTIONS["reader"], breaker=replace(BREAKER, open_s=3600.0))}
    given = daemon_plan(ten_lanes(), functions=slow)
    daemons: list[Daemon] = []

    def second() -> Daemon:
        daemons.append(site.daemon(replace(given, worker=WorkerId("worker-2"))))
        return daemons[0]

    async def script(first: Daemon) -> None:
        nonlocal healthy
        await asyncio.sleep(10.0)
        for shard in ("s1", "s2"):
            for number in range(1, 11):
                stream.put(*records(number, key=f"k{number}"), shard=ShardId(shard))
        both = (first, daemons[0])
        await until(lambda: all(state_of(each) == "open" for each in both))
        healthy, calls = True, len(reader.calls)
        answered = await first.control.functions.close_breaker("reader", by="ops", reason="repaired")
        assert answered.breaker is not None
        assert answered.breaker.state == "closed"
        assert answered.breaker.reason == "closed by hand by ops: repaired"
        took_s = await until(lambda: breaker_of(daemons[0]).state == "closed", within_s=5.0)
        assert took_s <= 5.0
        assert breaker_of(daemons[0]).reason == "closed by hand at another worker"
        await until(lambda: len(reader.calls) >= calls + 20)

    play(lambda: site.daemon(given), script, second)


def test_closing_names_the_functions_that_have_a_breaker() -> None:
    site, _ = many_lanes(1)
    given = daemon_plan(ten_lanes(), functions=FUNCTIONS)

    async def script(daemon: Daemon) -> None:
        await until(lambda: bool(daemon.status().functions))
        with pytest.raises(ApiError, match=r"functions that have one: reader$"):
            await daemon.control.functions.close_breaker("raeder", by="ops", reason="")

    play(lambda: site.daemon(given), script)


def test_a_daemon_stops_at_once_although_a_breaker_holds_everything() -> None:
    site, reader = many_lanes(40)
    given = daemon_plan(ten_lanes(), functions=FUNCTIONS)
    stopped: list[float] = []

    async def script(daemon: Daemon) -> None:
        await until(lambda: state_of(daemon) == "open")
        await asyncio.sleep(5.0)
        stopped.append(seconds())

    play(lambda: site.daemon(given), script)
    assert max(reader.times) < stopped[0]


@pytest.mark.parametrize("breaker", [None, BreakerPolicy(failures=1.0)], ids=["none", "another"])
def test_a_breaker_that_is_taken_out_while_it_is_open_is_gone(breaker: BreakerPolicy | None) -> None:
    site, _ = many_lanes(40)
    given = daemon_plan(ten_lanes(), functions=FUNCTIONS)
    changed = replace(given, functions={"reader": replace(FUNCTIONS["reader"], breaker=breaker)})

    async def script(daemon: Daemon) -> None:
        await until(lambda: state_of(daemon) == "open")
        daemon.replan(changed)
        await until(lambda: state_of(daemon) != "open")
        turns = [(each.state, each.gone) for each in site.seen.of(BreakerChanged)]
        new = [] if breaker is None else [(BreakerState.CLOSED, False)]
        assert turns == [
            (BreakerState.CLOSED, False),
            (BreakerState.OPEN, False),
            (BreakerState.CLOSED, True),
            *new,
        ]

    play(lambda: site.daemon(given), script)


def test_a_function_without_rate_and_breaker_says_nothing_of_either() -> None:
    site, reader = many_lanes(5)
    given = daemon_plan(ten_lanes())

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(reader.calls) >= 5)
        assert daemon.status().functions == ()

    play(lambda: site.daemon(given), script)
    assert site.seen.of(BreakerChanged) == []
    assert site.seen.of(InvocationStarted)
