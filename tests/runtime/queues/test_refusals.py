"""What the function refuses holds its own place only, and a function that refuses everything draws nothing out of the queue."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.invocations import Outcome, Succeeded, Throttled, Unreachable
from poller.domain.plan import Tuning
from poller.domain.policies import BatchPolicy, QueuePolicy, ScalingPolicy
from poller.domain.records import MappingId
from poller.rules.queues import refusals
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    fifo,
    function_of,
    parts,
    plan,
    play,
    seconds,
    standard,
)
from tests.virtual import EPOCH_BASE, run_virtual

ONE = BatchPolicy(1)
SECOND_S = 1.0
LONG = Tuning(grace_s=600.0)


def refusing(*numbers: int, refusal: Outcome) -> Callable[[list[int]], Outcome]:
    """Refuses every event that holds one of these."""
    bad = set(numbers)
    return lambda got: refusal if bad & set(got) else Succeeded(b"")


REFUSALS = [Throttled("429"), Throttled("429", 600.0), Unreachable("503"), Unreachable("503", 30.0)]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("most", [None, 2])
def test_one_message_that_is_always_refused_holds_up_no_other(refusal: Outcome, most: int | None) -> None:
    service, handler = standard(120), Handler(takes_s=0.1, answer=refusing(0, refusal=refusal))
    service.send(*range(31))
    mapping = plan(service, batch=ONE, scaling=ScalingPolicy(concurrency_max=most))
    play(parts(service, function_of(handler), mapping), 10.0)
    assert sorted(handler.done) == list(range(1, 31))
    assert service.left == [0]
    assert set(service.received.values()) == {1}


def test_a_refused_batch_of_a_queue_without_traffic_lets_a_late_message_through() -> None:
    service, handler = standard(120), Handler(answer=refusing(0, refusal=Unreachable("503")))

    async def script(_: QueueMapping, __: Stop) -> None:
        service.send(0)
        await asyncio.sleep(300.0)
        service.send(1)
        await asyncio.sleep(1.0)
        assert handler.done == [1]

    play(parts(service, function_of(handler), plan(service, batch=ONE)), script)


def test_a_refused_group_holds_up_itself_only() -> None:
    service, handler = fifo(120), Handler(takes_s=0.1, answer=refusing(0, refusal=Throttled("429")))
    for number in range(40):
        service.send(number, group=f"g{number % 4}")
    play(parts(service, function_of(handler), plan(service, batch=ONE)), 20.0)
    assert sorted(handler.done) == [number for number in range(40) if number % 4]
    assert service.received[4] == 0, "behind the refused one"


def test_slow_calls_keep_their_pollers_beside_a_refused_batch() -> None:
    service, handler = standard(120), Handler(answer=refusing(0, refusal=Throttled("429")))
    handler.takes_s = 10.0
    service.send(*range(41))
    play(parts(service, function_of(handler), plan(service, batch=ONE), tuning=LONG), 150.0)
    assert sorted(handler.done) == list(range(1, 41))


@pytest.mark.parametrize("kind", [standard, fifo])
def test_a_function_that_refuses_everything_is_given_a_few_batches_only(
    kind: Callable[[int], Service],
) -> None:
    service, handler = kind(60), Handler(answer=lambda _: Throttled("no room"))

    async def script(_: QueueMapping, __: Stop) -> None:
        for number in range(300):
            service.send(number, group=f"g{number}" if service.queue.facts.fifo else None)
            await asyncio.sleep(SECOND_S)

    play(parts(service, function_of(handler), plan(service, batch=ONE)), script)
    received = [count for count in service.received.values() if count]
    assert len(received) <= 14, "a batch for each of five pollers, and nine probes after growing pauses"
    assert set(received) == {1}


def test_everything_runs_soon_after_an_outage_of_the_function() -> None:
    service = standard(60)
    handler = Handler(answer=lambda _: Unreachable("down") if seconds() < 300.0 else Succeeded(b""))
    service.send(*range(200))
    play(parts(service, function_of(handler), plan(service)), 320.0)
    assert sorted(handler.done) == list(range(200))
    assert set(service.received.values()) == {1}


def shared(refusal: Outcome, *, limit: int) -> tuple[Service, Service, Handler]:
    """The function refuses all of the first queue's messages, and has room for so many calls; the second queue has 30."""
    refused, other = standard(30), standard(30)
    handler = Handler(takes_s=0.1, answer=refusing(*range(5), refusal=refusal))

    async def main() -> None:
        stop, function = Stop(), function_of(handler, limit=limit)
        mappings = [
            QueueMapping(parts(each, function, plan(each, mapping=MappingId(name), batch=ONE)), stop)
            for each, name in ((refused, "refused"), (other, "other"))
        ]
        refused.send(*range(5))
        async with asyncio.TaskGroup() as scope:
            for number, mapping in enumerate(mappings):
                scope.create_task(mapping.run(), name=f"mapping {number}")
            await asyncio.sleep(1.0)
            other.send(*range(100, 130))
            await asyncio.sleep(14.0)
            stop.request(Reason.REQUESTED)

    run_virtual(main())
    return refused, other, handler


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_what_is_refused_takes_no_slot_from_another_queue_of_the_function(
    refusal: Outcome, limit: int
) -> None:
    refused, other, handler = shared(refusal, limit=limit)
    assert sorted(handler.done) == list(range(100, 130))
    assert other.left == []
    assert set(refused.received.values()) <= {0, 1}
    assert handler.in_flight_max <= limit


@pytest.mark.parametrize("refusal", REFUSALS[1:3])
@pytest.mark.parametrize(
    ("most", "bad", "begins_s"),
    [
        (None, 1, 0.0),
        (None, 5, 1.0),
        (None, 7, 7.0),
        (None, 10, 63.0),
        (1, 1, 1.0),
        (1, 3, 7.0),
        (2, 2, 1.0),
        (3, 3, 1.0),
        (3, 6, 15.0),
    ],
)
@pytest.mark.parametrize("kind", [standard, fifo])
def test_messages_that_are_always_refused_let_those_behind_them_through(
    kind: Callable[[int], Service], refusal: Outcome, most: int | None, bad: int, begins_s: float
) -> None:
    """Thirty others, which begin at a known moment at the latest: a FIFO queue gives them out last, and runs them within 4 s."""
    service, handler = kind(120), Handler(takes_s=0.1, answer=refusing(*range(bad), refusal=refusal))
    for number in range(bad + 30):
        service.send(number, group=f"g{number}" if service.queue.facts.fifo else None)
    scaling = ScalingPolicy(concurrency_max=most)
    play(parts(service, function_of(handler), plan(service, batch=ONE, scaling=scaling)), begins_s + 6.0)
    assert sorted(handler.done) == list(range(bad, bad + 30))
    first = min(at for at, numbers in handler.timed if numbers[0] >= bad)
    if service.queue.facts.fifo:
        assert first == pytest.approx(begins_s, abs=0.7)
    assert first <= begins_s + 0.7
    assert service.left == list(range(bad))
    assert set(service.received.values()) == {1}
    assert handler.in_flight_max <= (most or 50)


def test_the_probes_of_an_outage_come_after_a_minute_at_last() -> None:
    service, handler = standard(6000), Handler(answer=lambda _: Throttled("no room", 5000.0))
    service.send(*range(100))
    play(parts(service, function_of(handler), plan(service, batch=ONE)), 1200.0)
    begun = [at for at, _, brought in service.receives if brought]
    pauses = [later - sooner for sooner, later in pairwise(begun)]
    assert pauses[4:10] == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], abs=0.2)
    assert pauses[10:] == pytest.approx([60.0] * 18, abs=0.2)


def test_no_poller_is_added_for_a_function_that_refuses_everything() -> None:
    service, handler = standard(6000), Handler(answer=lambda _: Throttled("no room", 5000.0))
    service.send(*range(100))

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(600.0)
        assert mapping.pollers is not None
        assert mapping.pollers <= 5 + 13 + 5, "those that wait, and as many others as there were"

    play(parts(service, function_of(handler), plan(service, batch=ONE)), script)


def test_no_more_batches_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "WAITING_MAX", 8)
    service, handler = standard(60), Handler(answer=lambda _: Throttled("no room"))
    service.send(*range(100))
    play(parts(service, function_of(handler), plan(service, batch=ONE)), 200.0)
    assert sum(count > 0 for count in service.received.values()) == 8


def test_a_batch_that_waits_takes_its_turn_between_others() -> None:
    """One slot, and a queue that is never empty: the refused batch is tried again in line."""
    service, handler = standard(120), Handler(takes_s=1.0)
    handler.answer = lambda got: Throttled("429") if 0 in got and seconds() < 20.0 else Succeeded(b"")
    service.send(0)

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(5.0)
        service.send(*range(1, 100))
        await asyncio.sleep(30.0)

    mapping = plan(service, batch=ONE, scaling=ScalingPolicy(concurrency_max=1))
    play(parts(service, function_of(handler), mapping), script)
    assert 0 in handler.done
    assert handler.in_flight_max == 1
    assert len(handler.done) >= 15


@pytest.mark.parametrize("stop_at_s", [0.0, 4.0, 12.0, 29.5])
def test_a_stop_gives_back_what_waits(stop_at_s: float) -> None:
    service, handler = standard(120), Handler(takes_s=0.1, answer=lambda _: Throttled("429", 600.0))
    service.send(*range(20))
    mapping = plan(service, batch=ONE, scaling=ScalingPolicy(concurrency_max=3))

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(stop_at_s)

    assert play(parts(service, function_of(handler), mapping), script) <= stop_at_s + 1.0
    assert service.queue.next_visible(EPOCH_BASE + 1000.0) is None or service.left == list(range(20))
    assert all(letter.visible_at <= EPOCH_BASE + stop_at_s + 1.0 for letter in service.queue.letters.values())


def test_a_queue_that_hides_nothing_is_received_from_after_pauses() -> None:
    service, handler = standard(0), Handler(takes_s=30.0)
    service.send(*range(20))
    mapping = plan(service, queue=QueuePolicy(extend_visibility=False))
    play(parts(service, function_of(handler), mapping), 60.0)
    assert 10 <= sum(brought > 0 for _, _, brought in service.receives) <= 30, (
        "five pollers, every ten seconds"
    )


@settings(max_examples=15, deadline=None)
@given(
    bad=st.sets(st.integers(0, 39), max_size=4),
    count=st.integers(1, 40),
    batch=st.sampled_from([1, 3, 10]),
    most=st.sampled_from([None, 5]),
    visibility_s=st.sampled_from([10, 60]),
    groups=st.sampled_from([0, 40]),
    down=st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 60.0)),
    takes_s=st.sampled_from([0.05, 3.0]),
    refusal=st.sampled_from(REFUSALS),
    one_group=st.booleans(),
)
def test_receive_counts_rise_for_nothing_and_only_what_is_refused_stays(
    *,
    bad: set[int],
    count: int,
    batch: int,
    most: int | None,
    visibility_s: int,
    groups: int,
    down: tuple[float, float],
    takes_s: float,
    refusal: Outcome,
    one_group: bool,
) -> None:
    """Messages that are refused for ever, and a function that refuses everything for a while."""
    service = fifo(visibility_s, redrive=1) if groups else standard(visibility_s, redrive=1)
    start, for_s = down
    single = refusing(*bad, refusal=refusal)
    handler = Handler(takes_s=takes_s)
    handler.answer = lambda got: Throttled("down") if start <= seconds() < start + for_s else single(got)
    for number in range(count):
        service.send(number, group=f"g{number % groups}" if groups else None)
    mapping = plan(
        service,
        batch=BatchPolicy(batch),
        scaling=ScalingPolicy(concurrency_max=most),
        queue=QueuePolicy(one_group_per_batch=one_group),
    )
    play(parts(service, function_of(handler), mapping, tuning=LONG), 900.0)
    assert set(service.received.values()) <= {1}
    assert service.queue.dead == []
    assert len(set(handler.done)) == len(handler.done)
    if batch == 1:
        assert sorted(handler.done) == [number for number in range(count) if number not in bad]
    elif not groups:
        assert len(service.left) <= len(bad) * batch
