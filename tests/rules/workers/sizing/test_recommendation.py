"""What follows from the loads of all workers: a table, and what always holds."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import WorkerId
from poller.domain.sizing.fleet_size import FleetSize, Pressure, WorkerLoad
from poller.rules.workers.sizing.recommendation import Loads, decided, newest, scaling_of, workers_max

B, S, C, L = Pressure.BUSY, Pressure.STEADY, Pressure.CALM, Pressure.LONG_CALM


def load(
    pressure: str, workers: int, *, shards: int = 4, calls: int = 0, unbounded: bool = False
) -> WorkerLoad:
    reason = "a shard of mapping one is behind" if pressure == B else ""
    return WorkerLoad(
        pressure=str(pressure),
        workers=workers,
        shards=shards,
        calls=calls,
        unbounded=unbounded,
        reason=reason,
    )


def fleet(*loads: WorkerLoad | None) -> Loads:
    return {WorkerId(f"worker-{number:02}"): each for number, each in enumerate(loads)}


def measured(*pressures: str, shards: int = 4, unbounded: bool = False) -> Loads:
    """Workers that have measured themselves with their present number."""
    return fleet(*(load(each, len(pressures), shards=shards, unbounded=unbounded) for each in pressures))


def size(workers: int, too_few: int = 0) -> FleetSize:
    return FleetSize(change=7, workers=workers, too_few=too_few)


@pytest.mark.parametrize(
    ("before", "loads", "wanted"),
    [
        pytest.param(size(2), measured(S, S), 2, id="steady workers stay"),
        pytest.param(size(2), measured(B, S), 3, id="one busy worker asks for one more"),
        pytest.param(size(2), measured(B, B), 4, id="all busy workers ask for twice as many"),
        pytest.param(size(2), measured(B, C), 3, id="a busy worker counts more than a calm one"),
        pytest.param(size(2), measured(B, B, shards=1), 2, id="each shard has a worker already"),
        pytest.param(size(3), measured(B, B, S, shards=1), 3, id="three shards on three workers"),
        pytest.param(
            size(2), fleet(load(B, 2, shards=2), load(B, 2, shards=1)), 3, id="three shards on two workers"
        ),
        pytest.param(size(2), measured(B, B, shards=0, unbounded=True), 4, id="a queue without a maximum"),
        pytest.param(
            size(2),
            fleet(load(B, 2, shards=0, calls=3), load(B, 2, shards=0, calls=3)),
            3,
            id="a queue of three calls",
        ),
        pytest.param(size(4), measured(B, B), 4, id="what was wanted is not there yet"),
        pytest.param(size(2), measured(B, S, S), 4, id="there are more than were wanted, and one is busy"),
        pytest.param(size(2), measured(S, S, S), 2, id="there is one more while a pod is replaced"),
        pytest.param(size(2), fleet(load(B, 1), load(B, 3)), 2, id="measured with another number of workers"),
        pytest.param(size(2), measured("furious", "furious"), 2, id="words of a later version"),
        pytest.param(size(2), measured(C, S), 2, id="only one is calm"),
        pytest.param(size(2), measured(C, C), 1, id="all are calm"),
        pytest.param(size(8), measured(*[C] * 8), 6, id="a quarter of many"),
        pytest.param(size(1), measured(C), 1, id="there is always one"),
        pytest.param(size(1), measured(C, C), 1, id="fewer were wanted already"),
        pytest.param(
            size(9), measured(C, C, C), 2, id="what was wanted never came, and is not needed any more"
        ),
        pytest.param(size(2), fleet(load(C, 2), None), 2, id="nothing is known of one worker"),
        pytest.param(
            size(2), fleet(load(B, 2), None), 3, id="one is busy, and nothing is known of the other"
        ),
        pytest.param(size(2), fleet(load(C, 2), load(C, 1)), 2, id="one of two has not measured itself yet"),
        pytest.param(size(4, too_few=3), measured(C, C, C, C), 4, id="fewer were too few before"),
        pytest.param(size(8, too_few=6), measured(*[C] * 8), 7, id="not down to what was too few before"),
        pytest.param(size(4, too_few=3), measured(L, L, L, C), 4, id="not all have been calm for long"),
        pytest.param(size(4, too_few=3), measured(L, L, L, L), 3, id="all have been calm for long"),
        pytest.param(
            size(4),
            fleet(*[load(S, 4, shards=1)] * 3, load(C, 4, shards=0)),
            3,
            id="one has had nothing for long",
        ),
        pytest.param(
            size(4),
            fleet(*[load(S, 4, shards=1)] * 3, load(S, 4, shards=0)),
            4,
            id="one has nothing, but not for long",
        ),
        pytest.param(size(4), measured(*[C] * 4, shards=0), 1, id="nothing can have work"),
        pytest.param(size(20), measured(B, *[S] * 19), 23, id="one more of twenty would be ignored"),
        pytest.param(size(9), measured(B, *[S] * 8), 10, id="one more of nine is not ignored"),
        pytest.param(
            size(20),
            fleet(load(B, 20, shards=2), *[load(S, 20, shards=1)] * 19),
            21,
            id="more than one more of twenty cannot have work",
        ),
        pytest.param(
            size(21), measured(B, B, *[S] * 18), 23, id="what was wanted was ignored, and more can have work"
        ),
        pytest.param(size(23), measured(B, *[S] * 19), 23, id="twenty-three were wanted, and come"),
        pytest.param(
            size(19, too_few=18), measured(*[L] * 20), 15, id="one of twenty was to go, which was ignored"
        ),
        pytest.param(size(15), measured(*[L] * 20), 15, id="five of twenty are to go, and do"),
    ],
)
def test_what_follows_from_the_loads(before: FleetSize, loads: Loads, wanted: int) -> None:
    after = decided(before, loads)
    assert after.workers == wanted
    assert after.change == before.change + (after != before)


def test_the_first_recommendation_is_the_present_number() -> None:
    assert decided(None, measured(B, C, S)) == FleetSize(change=1, workers=3)


def test_the_number_that_was_too_few_is_remembered_until_it_is_tried_again() -> None:
    more = decided(size(2), measured(B, S))
    assert more.too_few == 2
    fewer = decided(replace(more, workers=3), measured(L, L, L))
    assert (fewer.workers, fewer.too_few) == (2, 0)


def test_the_newest_recommendation_counts_and_of_two_the_larger() -> None:
    old, new, other = (
        FleetSize(change=change, workers=workers) for change, workers in ((3, 9), (4, 2), (4, 3))
    )
    assert newest([old, None, new, other]) == newest([other, new, old]) == other
    assert newest([None]) is None


def test_how_many_can_have_work_is_not_known_without_a_load() -> None:
    assert workers_max(fleet(load(S, 2, shards=3), load(S, 2, shards=2, calls=5))) == 10
    assert workers_max(fleet(load(S, 2), None)) is None
    assert workers_max(fleet(load(S, 1, unbounded=True))) is None
    assert workers_max(fleet(load(S, 1, shards=0))) == 1


def test_the_answer_says_who_is_busy_and_what_is_not_known() -> None:
    answer = scaling_of(size(3), fleet(load(B, 3), load(S, 2), None), fresh=True)
    assert (answer.wanted_workers, answer.workers, answer.complete) == (3, 3, False)
    assert answer.reason == "worker-00: a shard of mapping one is behind"
    assert [(each.pressure, each.known) for each in answer.pressures] == [(B, True), (S, False), (S, False)]


@pytest.mark.parametrize(
    ("wanted", "pressures", "reason"),
    [
        (4, (B, B, B), "worker-00 and 2 others: a shard of mapping one is behind"),
        (4, (S, S), "the workers that were wanted are not there yet"),
        (1, (C, C), "the workers have little to do, or there are more than were wanted"),
        (2, (S, S), "the workers have the right amount of work"),
    ],
)
def test_the_answer_gives_a_reason(wanted: int, pressures: Sequence[str], reason: str) -> None:
    answer = scaling_of(size(wanted), measured(*pressures), fresh=True)
    assert (answer.reason, answer.complete) == (reason, True)


def test_an_answer_from_old_loads_is_not_complete() -> None:
    assert not scaling_of(size(1), measured(S), fresh=False).complete


LOADS = st.builds(
    load,
    st.sampled_from([*map(str, Pressure), "furious"]),
    st.integers(0, 6),
    shards=st.integers(0, 5),
    calls=st.integers(0, 5),
    unbounded=st.booleans(),
)
SIZES = st.builds(FleetSize, change=st.integers(0, 9), workers=st.integers(1, 40), too_few=st.integers(0, 40))


@st.composite
def given_loads(draw: st.DrawFn, *, unknown: bool = False) -> list[WorkerLoad | None]:
    """Loads of few workers, or of many that are nearly alike and have measured themselves."""
    few: list[WorkerLoad | None] = draw(
        st.lists(st.none() | LOADS if unknown else LOADS, min_size=1, max_size=6)
    )
    count = draw(st.sampled_from([0, 0, 5, 12, 25]))
    alike = draw(LOADS)
    many = [each and replace(each, workers=len(few) + count) for each in few]
    return [*many, *[replace(alike, workers=len(few) + count)] * count] if count else few


@given(SIZES, given_loads(unknown=True))
def test_a_change_is_small_and_never_below_one_nor_beyond_what_can_have_work(
    before: FleetSize, given: list[WorkerLoad | None]
) -> None:
    loads, workers = fleet(*given), len(given)
    after, limit = decided(before, loads), workers_max(loads)
    assert after.workers >= 1
    assert decided(after, loads).workers >= 1
    if after.workers > before.workers:
        assert workers <= after.workers <= 2 * workers
        assert before.workers <= workers * 1.1, "it waits for those that it asked for"
        assert limit is None or after.workers <= max(limit, workers)
    if after.workers < before.workers:
        assert after.workers < workers or any(each is not None and each.pressure == B for each in given)
        assert before.workers >= workers * 0.9, "it waits until those have gone that are to go"
        assert all(each is not None and each.workers == workers for each in given)


@given(SIZES, given_loads())
def test_nothing_changes_again_before_the_number_of_workers_has(
    before: FleetSize, given: list[WorkerLoad | None]
) -> None:
    loads = fleet(*given)
    after = decided(before, loads)
    again = decided(after, loads)
    # A busy worker may take a recommendation back that was made just before.
    if not any(each is not None and each.pressure == B for each in given):
        assert again == after


@given(SIZES, SIZES, SIZES)
def test_all_workers_agree_on_the_newest_in_whatever_order_they_hear_of_it(
    one: FleetSize, two: FleetSize, three: FleetSize
) -> None:
    found = [newest([newest([one, two]), three]), newest([three, newest([two, one])])]
    assert found[0] == found[1]
