"""Sizes that were seen say how much to ask for: they rise at once and fall slowly."""

from poller.rules.memory.byte_budget import UNIT_BYTES
from poller.rules.memory.sizes import CALL_BYTES_MIN, SIZE_UNKNOWN, SizesSeen


def test_something_moderate_is_assumed_at_first() -> None:
    assert SizesSeen().count(UNIT_BYTES, 10_000) == UNIT_BYTES // SIZE_UNKNOWN


def test_large_records_are_seen_at_once_and_forgotten_slowly() -> None:
    seen = SizesSeen()
    seen.brought(2, 2_000_000, asked=10)
    assert seen.count(3_000_000, 10_000) == 3
    seen.brought(10, 1_000, asked=20)
    assert seen.count(3_000_000, 10_000) == 3, "a fifth less"
    for _ in range(100):
        seen.brought(10, 10_000, asked=20)
    assert seen.count(3_000_000, 10_000) == 3_000


def test_one_is_asked_for_whatever_the_room() -> None:
    assert SizesSeen().count(0, 10_000) == 1


def test_a_full_call_lets_the_next_one_be_twice_as_large() -> None:
    seen = SizesSeen()
    seen.brought(100, 1_000_000, asked=100)
    assert seen.call == 2_000_000


def test_a_source_that_is_quiet_for_long_reserves_nearly_nothing() -> None:
    seen = SizesSeen()
    seen.brought(10, 10_000_000, asked=10)
    for _ in range(100):
        seen.brought(0, 0, asked=10)
    assert seen.call == CALL_BYTES_MIN
    assert seen.one == SIZE_UNKNOWN


def test_an_answer_without_room_is_asked_for_in_smaller_pieces_until_it_is_one() -> None:
    seen, room, asked = SizesSeen(), 100_000, [1_000]
    while asked[-1] > 1:
        seen.too_large(10_000_000, asked=asked[-1])
        asked.append(seen.count(room, 1_000))
    assert asked == sorted(asked, reverse=True)
    assert len(asked) < 8
