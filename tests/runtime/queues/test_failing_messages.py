"""Failing messages of a queue are shown as long as they fail, and no longer: not when they went through, nor from the dead-letter queue."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, Message, Monotonic
from poller.domain.status import LaneStatus
from poller.rules.queues.failing import STALE_S, FailureLog
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    failing,
    fifo,
    function_of,
    parts,
    plan,
    play,
    standard,
)
from tests.virtual import virtual_clock

type Make = Callable[..., Service]


def send(service: Service, *numbers: int) -> None:
    """Each in a group of its own; on a standard queue that is a tenant."""
    for number in numbers:
        service.send(number, group=f"g{number}")


def failing_lanes(mapping: QueueMapping) -> list[LaneStatus]:
    return [lane for lane in mapping.lanes() if lane.last_error]


def test_a_failing_message_shows_its_receives_and_since_when_it_fails() -> None:
    service, handler = standard(10, redrive=3), Handler(answer=failing(7))
    service.send(7)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        begin = virtual_clock().now()
        await asyncio.sleep(15.0)
        (lane,) = failing_lanes(mapping)
        assert (lane.lane, lane.attempts, lane.attempts_max) == ("message-000007", 2, 3)
        assert (lane.last_error, lane.blocked_since) == ("ValueError: bad", None)
        assert lane.failing_since is not None
        assert begin <= lane.failing_since < begin + 1.0
        assert lane.next_try is not None
        assert 0 < lane.next_try - virtual_clock().now() <= 10.0

    play(parts(service, function_of(handler), plan(service)), script)


@pytest.mark.parametrize("make", [standard, fifo])
def test_a_message_in_the_dead_letter_queue_fails_no_more(make: Make) -> None:
    service, handler = make(10, redrive=2), Handler(answer=failing(7))
    send(service, 7)
    shown: list[tuple[int, int]] = []

    async def script(mapping: QueueMapping, _: Stop) -> None:
        for _turn in range(4):
            await asyncio.sleep(8.0)
            shown.append((len(failing_lanes(mapping)), len(service.queue.dead)))

    play(parts(service, function_of(handler), plan(service)), script)
    assert shown == [(1, 0), (1, 0), (0, 1), (0, 1)]


@settings(max_examples=12)
@given(
    make=st.sampled_from([standard, fifo]),
    visibility_s=st.integers(3, 40),
    redrive=st.none() | st.integers(1, 4),
    poison=st.sets(st.integers(0, 5)),
    looks=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_what_is_shown_as_failing_may_still_come_again(
    make: Make, visibility_s: int, redrive: int | None, poison: set[int], looks: list[int]
) -> None:
    service, handler = make(visibility_s, redrive=redrive), Handler(answer=failing(*poison))
    send(service, *range(6))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        for delay_s in looks:
            await asyncio.sleep(delay_s)
            shown = {each.identifier for lane in failing_lanes(mapping) for each in lane.records}
            dead = {f"message-{each.content.number:06d}" for each in service.queue.dead}
            done = {
                f"message-{each.content.number:06d}"
                for each in service.queue.letters.values()
                if each.deleted
            }
            assert not shown & (dead | done)
            if redrive is None and make is standard:
                assert shown == {f"message-{number:06d}" for number in poison}

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), script)


def message(name: str, receives: int) -> Message:
    return Message(
        name, "r", "", {"ApproximateReceiveCount": str(receives)}, {}, "", Monotonic(0.0), group="g"
    )


@pytest.mark.parametrize(
    ("receives_max", "now", "ours", "shown"),
    [
        (None, 29.0, "", ["a", "b"]),
        (3, 29.0, "", ["a", "b"]),
        (3, 30.0, "", ["a"]),
        (3, 30.0, "b", ["a", "b"]),
        (2, 30.0, "", []),
        (None, 30.0, "", ["a", "b"]),
        (None, 30.0 + STALE_S, "", []),
        (3, 30.0 + STALE_S, "b", ["b"]),
    ],
)
def test_the_last_receive_ends_a_message_when_its_visibility_runs_out(
    receives_max: int | None, now: float, ours: str, shown: list[str]
) -> None:
    troubles = FailureLog()
    troubles.failed([message("a", 2), message("b", 3)], "bad", now=Epoch(0), next_try=Epoch(30))
    found = troubles.current(Epoch(now), lambda name: name == ours, receives_max=receives_max)
    assert [each.message_id for trouble in found.values() for each in trouble.messages] == shown
