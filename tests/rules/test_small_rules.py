"""Back-off, lanes and positions."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.records import SHARD_END, Epoch, Position
from poller.rules.backoff import ceiling_s, wait_s
from poller.rules.lanes import lane_of
from poller.rules.policies import Backoff


@pytest.mark.parametrize(("tries", "expected"), [(0, 0.2), (1, 0.4), (2, 0.8), (8, 30.0), (10_000, 30.0)])
def test_the_ceiling_doubles_up_to_its_cap(tries: int, expected: float) -> None:
    assert ceiling_s(Backoff(0.2, 30.0), tries) == expected


@given(st.integers(0, 100), st.integers())
def test_a_wait_lies_between_zero_and_the_ceiling(tries: int, seed: int) -> None:
    backoff = Backoff()
    assert 0.0 <= wait_s(backoff, tries, Random(seed)) <= ceiling_s(backoff, tries)


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
