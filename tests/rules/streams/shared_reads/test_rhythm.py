"""How often a shard is read: more often while there is traffic, seldom while it is quiet, and less where others read, too."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Monotonic
from poller.rules.streams.shared_reads.rhythm import CALM_S, CROWDED_S_MAX, SHORTEST_S, Rhythm


def at(seconds: float) -> Monotonic:
    return Monotonic(seconds)


def reads_of_quiet(seconds: float, *, idle_s: float = 5.0) -> list[float]:
    """When a shard without records is read."""
    rhythm, now, reads = Rhythm(at(0.0), idle_s), 0.0, []
    while now < seconds:
        reads.append(now)
        rhythm.found(at(now), records=False)
        now += rhythm.wait_s(at(now), more=False)
    return reads


def test_a_shard_with_more_to_read_is_read_at_once() -> None:
    rhythm = Rhythm(at(0.0), 5.0)
    rhythm.found(at(1.0), records=True)
    assert rhythm.wait_s(at(1.0), more=True) == 0.0


def test_a_busy_shard_is_read_five_times_a_second_and_a_quiet_one_once_in_five_seconds() -> None:
    rhythm = Rhythm(at(0.0), 5.0)
    rhythm.found(at(100.0), records=True)
    assert rhythm.wait_s(at(100.1), more=False) == SHORTEST_S
    assert rhythm.wait_s(at(110.0), more=False) == 1.0
    assert rhythm.wait_s(at(1000.0), more=False) == 5.0


def test_an_hour_of_quiet_takes_about_one_read_in_five_seconds() -> None:
    assert 720 <= len(reads_of_quiet(3600.0)) < 780


def test_a_shorter_wait_may_be_asked_for() -> None:
    assert len(reads_of_quiet(10.0, idle_s=0.1)) in (100, 101)


@given(quiet=st.floats(0.0, 10_000.0), idle_s=st.floats(0.001, 60.0))
def test_a_record_waits_for_a_tenth_of_the_quiet_before_it_at_most(quiet: float, idle_s: float) -> None:
    rhythm = Rhythm(at(0.0), idle_s)
    rhythm.found(at(0.0), records=True)
    assert rhythm.wait_s(at(quiet), more=False) <= min(idle_s, max(SHORTEST_S, quiet / 10)) + 1e-9


@given(
    st.lists(st.tuples(st.floats(0.0, 100.0), st.sampled_from(["records", "none", "throttled"])), max_size=50)
)
def test_the_wait_is_within_its_limits_whatever_comes(steps: list[tuple[float, str]]) -> None:
    rhythm, now = Rhythm(at(0.0), 5.0), 0.0
    for passed, what in steps:
        now += passed
        if what == "throttled":
            rhythm.throttled(at(now))
        else:
            rhythm.found(at(now), records=what == "records")
        assert SHORTEST_S <= rhythm.wait_s(at(now), more=False) <= 5.0
        assert 0.0 <= rhythm.wait_s(at(now), more=True) <= CROWDED_S_MAX


def test_throttling_makes_reads_rarer_also_with_more_to_read_until_it_is_over() -> None:
    rhythm = Rhythm(at(0.0), 5.0)
    for second in range(10):
        rhythm.throttled(at(second))
    assert rhythm.wait_s(at(10.0), more=True) == CROWDED_S_MAX
    now = 9.0
    while now < 9.0 + 10 * CALM_S:
        now += 1.0
        rhythm.found(at(now), records=True)
    assert rhythm.wait_s(at(now), more=True) == 0.0
    assert rhythm.wait_s(at(now), more=False) == SHORTEST_S
