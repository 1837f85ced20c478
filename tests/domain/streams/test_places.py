"""Places of whole records and of parts of aggregated ones are compared, named and stored in one order."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Position
from poller.domain.streams.places import (
    begin_of,
    end_of,
    is_called,
    is_name,
    name_of,
    place_of_part,
    sequence_of,
    text_of_begin,
    text_of_end,
)

SEQUENCES = st.integers(1, 10**56)
PARTS = st.integers(2, 5)


@st.composite
def shards(draw: st.DrawFn) -> list[list[str]]:
    """The places of a shard by record: one place for a whole record, several for an aggregated one that is taken apart."""
    found = []
    for sequence in sorted(draw(st.sets(SEQUENCES, min_size=2, max_size=8))):
        parts = draw(st.none() | PARTS)
        if parts is None:
            found.append([str(sequence)])
        else:
            found.append([place_of_part(str(sequence), part, parts) for part in range(parts)])
    return found


@given(shards())
def test_places_follow_each_other_and_do_not_touch(records: list[list[str]]) -> None:
    places = [place for record in records for place in record]
    for one, other in pairwise(places):
        assert begin_of(one) <= end_of(one) < begin_of(other)
        assert Position.after(one) < Position.after(other)


@given(shards())
def test_a_record_and_its_parts_begin_and_end_at_the_same_place(records: list[list[str]]) -> None:
    for record in records:
        whole = sequence_of(record[0])
        assert begin_of(whole) == begin_of(record[0])
        assert end_of(whole) == end_of(record[-1])
        assert Position.after(whole) == Position.after(record[-1])


@given(shards())
def test_positions_are_stored_in_their_order(records: list[list[str]]) -> None:
    positions = [Position.horizon(), *(Position.after(place) for record in records for place in record)]
    assert [Position.decode(each.encode()) for each in positions] == positions
    keys = [each.sort_key() for each in positions]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@given(shards())
def test_names_lead_back_to_places(records: list[list[str]]) -> None:
    places = [place for record in records for place in record]
    for place in places:
        assert is_name(name_of(place))
        assert [each for each in places if is_called(each, name_of(place))] == [place]
        assert begin_of(text_of_begin(begin_of(place))) == begin_of(place)
        assert end_of(text_of_end(end_of(place))) == end_of(place)


def test_a_number_alone_names_the_first_part() -> None:
    assert [part for part in range(3) if is_called(place_of_part("70", part, 3), "70")] == [0]


@pytest.mark.parametrize(
    "text", ["", "x", "7:", ":7", "7:x", "7:1/3", "-7", "7:12345678", "1" * 130, "¹", "7 ", "7_0"]
)
def test_what_is_no_name_is_none(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    "text", ["AFTER:", "AFTER:7:", "AFTER:7:x", "AFTER:7:-1", "AFTER:7:16777215", "AFTER:7:1:2", "AFTER::1"]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.decode(text)


def test_digits_of_a_number_are_kept_beside_its_part() -> None:
    position = Position.after("007:1/3")
    assert (position.sequence_number, position.encode(), position.partial) == ("007", "AFTER:007:1", True)
