"""The safe position is the end of the contiguous settled prefix."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import SHARD_END, Position
from poller.domain.streams.places import begin_of, end_of
from poller.rules.streams.watermark import SettledSpans, Watermark


def _tracked(*sequences: int) -> Watermark:
    watermark = Watermark(Position.horizon())
    for sequence in sequences:
        watermark.track(str(sequence))
    return watermark


def test_nothing_settled_leaves_the_position() -> None:
    assert _tracked(10, 20).position == Position.horizon()


def test_a_gap_holds_the_position() -> None:
    watermark = _tracked(10, 20, 30)
    watermark.resolve([0, 2])
    assert watermark.position == Position.after("10")
    assert watermark.settled_ahead() == ((begin_of("30"), end_of("30")),)
    assert watermark.span == 2


def test_closing_the_gap_moves_the_position_over_all_that_is_settled() -> None:
    watermark = _tracked(10, 20, 30)
    watermark.resolve([2, 1])
    assert watermark.settled_ahead() == ((begin_of("20"), end_of("30")),)
    watermark.resolve([0])
    assert watermark.position == Position.after("30")
    assert watermark.settled_ahead() == ()


def test_the_end_comes_only_when_everything_is_settled() -> None:
    watermark = _tracked(10)
    watermark.end()
    assert watermark.position == Position.horizon()
    watermark.resolve([0])
    assert watermark.position == SHARD_END


def test_an_empty_shard_ends_at_once() -> None:
    watermark = _tracked()
    watermark.end()
    assert watermark.position == SHARD_END


def test_a_record_waits_until_the_position_is_behind_it() -> None:
    watermark = _tracked(10, 20, 30)
    watermark.resolve([0, 2])
    assert [each for each in range(41) if watermark.waits(begin_of(str(each)))] == [20, 30]


@pytest.mark.parametrize("indices", [[0, 0], [5], [-1]])
def test_settling_twice_or_something_unread_is_a_bug(indices: list[int]) -> None:
    watermark = _tracked(10, 20)
    with pytest.raises(AssertionError):
        watermark.resolve(indices)


def test_settling_again_what_the_position_has_passed_is_a_bug() -> None:
    watermark = _tracked(10, 20)
    watermark.resolve([0])
    with pytest.raises(AssertionError):
        watermark.resolve([0])


def test_a_record_behind_the_end_is_a_bug() -> None:
    watermark = _tracked(10)
    watermark.end()
    with pytest.raises(AssertionError):
        watermark.track("20")


@given(st.integers(1, 40), st.integers(0, 10_000), st.integers(1, 7))
def test_the_position_is_the_settled_prefix_in_any_order(size: int, seed: int, step: int) -> None:
    rng = Random(seed)
    sequences = [10 * (number + 1) for number in range(size)]
    watermark = _tracked(*sequences)
    order = list(range(size))
    rng.shuffle(order)
    settled: set[int] = set()
    for at in range(0, size, step):
        watermark.resolve(order[at : at + step])
        settled.update(order[at : at + step])
        prefix = next((index for index in range(size) if index not in settled), size)
        expected = Position.after(str(sequences[prefix - 1])) if prefix else Position.horizon()
        assert watermark.position == expected
        spans = SettledSpans(watermark.settled_ahead())
        covered = [index for index in range(prefix, size) if spans.covers(str(sequences[index]))]
        assert covered == sorted(index for index in settled if index >= prefix)
