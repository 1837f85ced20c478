"""Back-off, lanes and positions."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import Backoff, RetryPolicy
from poller.domain.records import SHARD_END, Epoch, Position
from poller.rules.backoff import ceiling_s, retry_wait_s, wait_s
from poller.rules.streams.lanes import lane_of, lane_of_record
from tests.rules.build import kinesis


@pytest.mark.parametrize(("tries", "expected"), [(0, 0.2), (1, 0.4), (2, 0.8), (8, 30.0), (10_000, 30.0)])
def test_the_ceiling_doubles_up_to_its_cap(tries: int, expected: float) -> None:
    assert ceiling_s(Backoff(0.2, 30.0), tries) == expected


@given(st.integers(0, 100), st.integers())
def test_a_wait_lies_between_zero_and_the_ceiling(tries: int, seed: int) -> None:
    backoff = Backoff()
    assert 0.0 <= wait_s(backoff, tries, Random(seed)) <= ceiling_s(backoff, tries)


@pytest.mark.parametrize(
    ("tries", "shortest_s", "longest_s"),
    [(0, 0.2, 0.4), (1, 0.4, 0.8), (2, 0.8, 1.6), (5, 6.4, 12.8), (7, 15.0, 30.0), (10_000, 15.0, 30.0)],
)
def test_a_failing_batch_waits_for_half_of_a_bound_and_a_random_part_of_the_rest(
    tries: int, shortest_s: float, longest_s: float
) -> None:
    backoff = RetryPolicy().backoff
    waits = [retry_wait_s(backoff, tries, Random(seed)) for seed in range(200)]
    assert all(shortest_s <= wait <= longest_s for wait in waits)
    assert min(waits) < shortest_s + (longest_s - shortest_s) / 10
    assert max(waits) > longest_s - (longest_s - shortest_s) / 10


@given(st.integers(1, 10), st.integers(1, 10**20))
def test_a_record_without_a_key_has_the_lane_of_its_sequence_number(lanes: int, number: int) -> None:
    assert lane_of_record(kinesis(number, key=None), lanes) == lane_of(str(number), lanes)
    assert lane_of_record(kinesis(number, key="k"), lanes) == lane_of("k", lanes)


@given(st.floats(0.001, 1000), st.floats(0.001, 1000), st.integers(0, 100), st.integers())
def test_a_retry_never_waits_less_than_half_of_its_bound(
    base_s: float, cap_s: float, tries: int, seed: int
) -> None:
    backoff = Backoff(base_s, cap_s)
    bound_s = ceiling_s(backoff, tries)
    assert bound_s / 2 <= retry_wait_s(backoff, tries, Random(seed)) <= bound_s


def _tries_in(seconds: float, *, call_s: float, rng: Random) -> int:
    """How often a batch that always fails is tried, when a call takes `call_s`."""
    now, tries = call_s, 1
    while (now := now + retry_wait_s(RetryPolicy().backoff, tries - 1, rng) + call_s) <= seconds:
        tries += 1
    return tries


@pytest.mark.parametrize(("call_s", "eight_of_100"), [(0.0, 54), (0.1, 59), (0.5, 78), (1.0, 94)])
def test_a_failing_batch_is_tried_eight_times_in_a_minute_as_on_aws(call_s: float, eight_of_100: int) -> None:
    rng = Random(8)
    draws = Counter(_tries_in(60.0, call_s=call_s, rng=rng) for _ in range(10_000))
    assert round(draws[8] / 100) == pytest.approx(eight_of_100, abs=3)
    assert draws[8] + draws[9] > 9_900


@given(st.text(), st.integers(1, 10))
def test_a_key_has_one_lane(key: str, lanes: int) -> None:
    assert lane_of(key, lanes) in range(lanes)
    assert lane_of(key, lanes) == lane_of(key, lanes)


def test_lanes_are_the_same_on_every_machine() -> None:
    # 0xCBF43926 is the published check value of CRC-32 for this text.
    assert [lane_of("123456789", lanes) for lanes in (2, 7, 10)] == [0xCBF43926 % n for n in (2, 7, 10)]


def test_keys_spread_over_all_lanes() -> None:
    counts = [0] * 10
    for number in range(10_000):
        counts[lane_of(f"device-{number}", 10)] += 1
    assert min(counts) > 800


POSITIONS = [
    Position.horizon(),
    Position.at(Epoch(1.0)),
    Position.at(Epoch(1_767_225_600.125)),
    Position.after("0"),
    Position.after("9"),
    Position.after("10"),
    Position.after("49650000000000000000000000000000000000000000000000000002"),
    SHARD_END,
]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position.encode())
def test_a_position_survives_its_text(position: Position) -> None:
    assert Position.decode(position.encode()) == position


def test_positions_and_their_sort_keys_have_the_same_order() -> None:
    for lower, higher in pairwise(POSITIONS):
        assert lower < higher
        assert lower.sort_key() < higher.sort_key()


@pytest.mark.parametrize(
    "text", ["", "x", "AFTER", "AFTER:", "AFTER:x", "SHARD_END:1", "AT_TIMESTAMP:", "LATEST"]
)
def test_other_texts_are_no_positions(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Position.decode(text)
