"""A daemon that ends before everything was finished says what it left: calls, messages, shards."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Outcome, Succeeded, Throttled
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, ScalingPolicy
from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import StopCutShort
from poller.runtime.stop_tally import CUT_OFF_TOLD_MAX, StopTally
from tests.runtime.daemons import STEADY, Site, daemon_plan
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, Handler, plan, standard
from tests.virtual import run_virtual

GRACE_S = 30.0
STREAM, QUEUE = mapping().mapping, plan(standard(600)).mapping

type Answer = Callable[[list[int]], Outcome]


def accepts(_: list[int]) -> Outcome:
    return Succeeded(b"")


def refuses(_: list[int]) -> Outcome:
    return Throttled("no room")


def ended(
    *,
    queue_s: float,
    stream_s: float,
    answer: Answer = accepts,
    again_after_s: float | None = None,
    sent_at: float = 4.5,
) -> list[StopCutShort]:
    """What a daemon says that is stopped at second 5, and cancelled `again_after_s` later: a queue with three messages and a shard.

    The function of each takes so long; the queue's may take a minute.
    """
    service, handler = standard(600), Handler(takes_s=queue_s, answer=answer)
    stream = FakeStream()
    site = Site(
        sources={STANDARD: service, STREAM_ARN: stream},
        functions={"reader": handler, "writer": FakeFunction(takes_s=stream_s)},
    )
    queue = plan(service, batch=BatchPolicy(1), scaling=ScalingPolicy(concurrency_max=3))
    functions = {
        name: FunctionPlan(name=name, invoker="fake", timeout_s=60.0) for name in ("reader", "writer")
    }
    given = daemon_plan(
        queue,
        mapping(function="writer"),
        functions=functions,
        tuning=replace(STEADY, grace_s=GRACE_S),
    )

    async def main() -> None:
        running = asyncio.ensure_future((daemon := site.daemon(given)).run())
        await asyncio.sleep(3.5)
        stream.put(*records(1, 2))
        asyncio.get_running_loop().call_at(sent_at, service.send, 1, 2, 3)
        await asyncio.sleep(1.5)
        daemon.stop()
        if again_after_s is not None:
            await asyncio.sleep(again_after_s)
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    run_virtual(main())
    return site.seen.of(StopCutShort)


def told(*, queue: int = 0, stream: int = 0, messages: int = 0) -> list[StopCutShort]:
    """So many calls of either mapping were cut off, and so many messages handed back."""
    calls = {(QUEUE, "reader"): queue, (STREAM, "writer"): stream}
    whose = [
        f"mapping {mapping}, function {function}: {number} call{'s' * (number > 1)}"
        for (mapping, function), number in sorted(calls.items(), key=lambda each: -each[1])
        if number
    ]
    return [
        StopCutShort(
            grace_s=GRACE_S,
            calls_cut_off=queue + stream,
            cut_off=tuple(whose),
            handed_back=messages,
            shards_released=1,
        )
    ]


def test_an_end_that_finishes_everything_says_nothing() -> None:
    assert ended(queue_s=20.0, stream_s=20.0) == []


@pytest.mark.parametrize(
    ("queue_s", "stream_s", "queue", "stream"),
    [(50.0, 50.0, 3, 1), (50.0, 1.0, 3, 0), (1.0, 50.0, 0, 1), (50.0, 29.0, 3, 0)],
)
def test_calls_that_are_cut_off_at_the_end_of_the_grace_time_are_reported(
    queue_s: float, stream_s: float, queue: int, stream: int
) -> None:
    assert ended(queue_s=queue_s, stream_s=stream_s) == told(queue=queue, stream=stream)


def test_calls_that_a_second_signal_cuts_off_are_reported() -> None:
    assert ended(queue_s=20.0, stream_s=20.0, again_after_s=3.0) == told(queue=3, stream=1)
    assert ended(queue_s=1.0, stream_s=20.0, again_after_s=3.0) == told(stream=1)


def test_messages_that_are_handed_back_are_reported() -> None:
    assert ended(queue_s=0.0, stream_s=1.0, answer=refuses) == told(messages=3)
    assert ended(queue_s=0.0, stream_s=50.0, answer=refuses) == told(stream=1, messages=3)


def test_messages_of_last_polls_that_there_is_no_time_for_are_reported() -> None:
    assert ended(queue_s=0.0, stream_s=1.0, sent_at=6.0) == told(messages=3)


@given(st.dictionaries(st.tuples(st.uuids(), st.sampled_from("fg")), st.integers(1, 50), max_size=60))
def test_of_many_mappings_those_with_most_calls_are_named_and_none_is_lost(found: dict[Any, int]) -> None:
    tally = StopTally()
    with tally.counting(lambda: Counter({(MappingId(str(m)), f): n for (m, f), n in found.items()})):
        pass
    event = tally.cut_short(GRACE_S)
    if not found:
        assert event is None
        return
    assert event is not None
    assert event.calls_cut_off == sum(found.values())
    named = [each for each in event.cut_off if each.startswith("mapping ")]
    assert len(named) == min(len(found), CUT_OFF_TOLD_MAX)
    counts = [int(re.findall(r"(\d+) calls?$", each)[0]) for each in event.cut_off]
    assert sum(counts) == event.calls_cut_off
    assert counts[: len(named)] == sorted(found.values(), reverse=True)[: len(named)]
