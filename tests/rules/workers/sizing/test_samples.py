"""What a worker's mappings say about its load, and what of it more workers could help with."""

import pytest

from poller.domain.records import MappingId
from poller.rules.workers.sizing.samples import (
    CALM_LAG_S,
    CALM_USE,
    LATE_S,
    FunctionUse,
    MappingLoad,
    QueueLoad,
    StreamLoad,
    sample_of,
)

ONE, TWO = MappingId("one"), MappingId("two")
FREE = FunctionUse(function="orders", in_flight=0, waiting=0, limit=None)
HELD = FunctionUse(function="orders", in_flight=0, waiting=5, limit=None, held_back=True)
LATE, FINE = LATE_S, 0.0


def room(in_flight: int, limit: int = 10, waiting: int = 0) -> FunctionUse:
    return FunctionUse(function="orders", in_flight=in_flight, waiting=waiting, limit=limit)


def stream(*lags_s: float | None, use: FunctionUse = FREE, gather_s: float = 0.0) -> StreamLoad:
    return StreamLoad(use=use, lags_s=lags_s, gather_s=gather_s)


def queue(
    *,
    pollers: int = 5,
    working: int = 5,
    ceiling: int = 10,
    hungry: bool = False,
    maximum: int | None = None,
    at_maximum: bool = False,
    held_back: bool = False,
    use: FunctionUse = FREE,
) -> QueueLoad:
    return QueueLoad(
        use=use,
        pollers=pollers,
        working=working,
        ceiling=ceiling,
        hungry=hungry,
        maximum=maximum,
        at_maximum=at_maximum,
        held_back=held_back,
    )


BUSY, CALM, NEITHER = "busy", "calm", "neither"


@pytest.mark.parametrize(
    ("loads", "found"),
    [
        pytest.param([], CALM, id="nothing runs"),
        pytest.param([stream()], CALM, id="all shards are blocked, paused or elsewhere"),
        pytest.param([stream(FINE, FINE)], CALM, id="no shard is behind"),
        pytest.param([stream(LATE, FINE)], BUSY, id="one of two shards is late"),
        pytest.param([stream(LATE - 1, FINE)], NEITHER, id="a shard is nearly late"),
        pytest.param([stream(CALM_LAG_S, FINE)], NEITHER, id="a shard is a little behind"),
        pytest.param([stream(LATE)], NEITHER, id="the only shard is late: it has a worker of its own"),
        pytest.param([stream(LATE), queue()], BUSY, id="the only shard is late, beside a queue"),
        pytest.param([stream(LATE), stream(FINE)], BUSY, id="the only shard is late, beside another stream"),
        pytest.param([stream(LATE + 299, FINE, gather_s=300)], NEITHER, id="records wait for their batch"),
        pytest.param([stream(LATE + 300, FINE, gather_s=300)], BUSY, id="late, and not by gathering"),
        pytest.param([stream(LATE, FINE, use=HELD)], NEITHER, id="the function's breaker or rate holds back"),
        pytest.param([stream(FINE, FINE, use=HELD)], CALM, id="it holds back nothing that is behind"),
        pytest.param([stream(None, FINE)], NEITHER, id="the lag of a shard is not known"),
        pytest.param([stream(FINE, FINE, use=room(4))], CALM, id="less than half of the room is in use"),
        pytest.param([stream(FINE, FINE, use=room(5))], NEITHER, id="half of the room is in use"),
        pytest.param(
            [stream(FINE, FINE, use=room(10))], NEITHER, id="all room is in use, but no shard is late"
        ),
        pytest.param([queue(pollers=10, working=4)], CALM, id="most pollers only wait"),
        pytest.param([queue(pollers=10, working=4, use=room(10))], CALM, id="waiting pollers hold the room"),
        pytest.param([queue(pollers=10, working=10)], NEITHER, id="all pollers work, and keep up"),
        pytest.param([queue(hungry=True)], NEITHER, id="a queue has more, and its pollers become more"),
        pytest.param(
            [queue(pollers=10, hungry=True)], BUSY, id="a queue has more, and no more pollers may be"
        ),
        pytest.param([queue(hungry=True, use=room(10, waiting=1))], BUSY, id="other mappings have the slots"),
        pytest.param([queue(hungry=True, use=room(10))], NEITHER, id="all slots are taken, but nobody waits"),
        pytest.param(
            [queue(pollers=10, hungry=True, use=HELD)], NEITHER, id="a queue, and the breaker is open"
        ),
        pytest.param([queue(pollers=10, hungry=True, held_back=True)], NEITHER, id="the function refuses"),
        pytest.param(
            [queue(pollers=10, hungry=True, maximum=20, at_maximum=True)],
            NEITHER,
            id="its maximum is reached",
        ),
        pytest.param([queue(pollers=10, hungry=True, maximum=20)], BUSY, id="a maximum that is not reached"),
    ],
)
def test_what_a_load_calls_for(loads: list[MappingLoad], found: str) -> None:
    sample = sample_of(dict(zip((ONE, TWO), loads, strict=False)))
    assert (sample.busy, sample.calm) == (found == BUSY, found == CALM)


def test_a_sample_says_which_mapping_is_behind_by_how_much() -> None:
    sample = sample_of({ONE: stream(100.0, 5.0), TWO: stream(70.0, 400.0, None)})
    assert (sample.lag_s, sample.late, sample.shards) == (400.0, TWO, 5)


def test_a_sample_says_which_queue_has_no_room() -> None:
    sample = sample_of({ONE: queue(), TWO: queue(pollers=10, hungry=True)})
    assert sample.full == TWO


def test_a_function_of_several_mappings_is_counted_once() -> None:
    use = room(10)
    shared: dict[MappingId, MappingLoad] = {
        ONE: queue(pollers=6, working=2, use=use),
        TWO: stream(FINE, FINE, use=use),
    }
    assert sample_of(shared).use == 0.6


def test_a_function_of_which_most_is_used_counts() -> None:
    other = FunctionUse(function="bills", in_flight=9, waiting=0, limit=10)
    assert sample_of({ONE: stream(FINE, use=room(1)), TWO: stream(FINE, use=other)}).use == 0.9 > CALM_USE


def test_the_maxima_of_queues_add_up_and_one_without_has_no_bound() -> None:
    bounded = {ONE: queue(maximum=5), TWO: queue(maximum=7)}
    assert (sample_of(bounded).calls, sample_of(bounded).unbounded) == (12, False)
    assert sample_of({**bounded, TWO: queue()}).unbounded


def test_a_function_that_may_not_run_at_all_has_no_use() -> None:
    assert sample_of({ONE: queue(pollers=0, working=0, ceiling=0)}).use == 0.0
