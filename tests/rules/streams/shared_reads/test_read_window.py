"""The window of a shard: no reader misses or repeats a record that its place does not leave out, whatever is dropped when."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Epoch, KinesisRecord, Position, Record
from poller.domain.streams.places import end_of
from poller.rules.streams.shared_reads.read_window import ReadWindow, size_of
from tests.rules.build import dynamo, kinesis


def read(*numbers: int) -> list[KinesisRecord]:
    return [kinesis(number) for number in numbers]


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(each.sequence_number) for each in records]


ALL = 10_000


def from_here(window: ReadWindow, position: Position, records_max: int = ALL) -> list[int]:
    """All that a reader takes from a window from its place on, so many records at a time."""
    taken: list[int] = []
    while (found := window.behind(position, records_max)) is not None:
        assert found.end > position
        assert len(found.records) <= records_max
        assert found.size == sum(map(size_of, found.records))
        taken += numbers(found.records)
        position = found.end
    assert position == window.end
    return taken


places = st.one_of(
    st.just(Position.horizon()),
    st.integers(1, 5).map(lambda moment: Position.at(Epoch(moment))),
    st.integers(0, 60).map(lambda number: Position.after(str(number))),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.lists(st.integers(1, 4), max_size=4), st.booleans()),
        st.tuples(st.just("passed"), places, st.none()),
        st.tuples(st.just("size"), st.integers(0, 3000), st.none()),
    ),
    max_size=12,
)


@given(start=places, then=steps, place=places, records_max=st.integers(1, 5))
def test_a_covered_place_gets_all_that_was_read_behind_it_and_nothing_before(
    start: Position, then: list[tuple[str, object, object]], place: Position, records_max: int
) -> None:
    window = ReadWindow(start)
    first = int(start.sequence_number) if start.sequence else 0
    there: list[int] = []
    last = first
    for verb, value, kept in then:
        if verb == "read":
            assert isinstance(value, list)
            fresh = []
            for gap in value:
                last += gap
                fresh.append(last)
            window.take(read(*fresh), kept=bool(kept))
            there += fresh
        elif verb == "passed":
            assert isinstance(value, Position)
            window.drop_passed(value)
        else:
            assert isinstance(value, int)
            window.drop_beyond(value)
            assert window.size <= value
        assert window.start <= window.end
    if not window.covers(place):
        return
    if place == start and place.sequence == 0:
        assert from_here(window, place, records_max) == there
        return
    assert from_here(window, place, records_max) == [each for each in there if end_of(str(each)) > place.end]


@given(start=st.sampled_from([Position.horizon(), Position.at(3.0)]))  # type: ignore[arg-type]
def test_a_place_before_the_first_record_must_ask_the_source_whether_its_record_is_gone(
    start: Position,
) -> None:
    window = ReadWindow(start)
    window.take(read(10, 12), kept=True)
    assert not window.covers(Position.after("9"))
    assert window.covers(Position.after("10"))
    assert window.covers(Position.after("11"))
    assert from_here(window, Position.after("11")) == [12]


def test_a_place_beyond_the_end_or_of_another_start_is_not_covered() -> None:
    window = ReadWindow(Position.after("5"))
    window.take(read(7), kept=True)
    assert not window.covers(Position.after("8"))
    assert not window.covers(Position.horizon())
    assert not window.covers(Position.after("4"))
    assert window.covers(Position.after("6"))


def test_a_place_inside_of_an_aggregated_record_gets_the_parts_behind_it() -> None:
    window = ReadWindow(Position.after("5"))
    parts = [kinesis(f"7:{part}/3") for part in range(3)]
    window.take(parts, kept=True)
    found = window.behind(Position.after("7:0/3"), ALL)
    assert found is not None
    assert [each.sequence_number for each in found.records] == ["7:1/3", "7:2/3"]
    assert found.end == Position.after("7")


def test_a_page_may_be_cut_inside_of_an_aggregated_record() -> None:
    window = ReadWindow(Position.after("5"))
    window.take([kinesis(f"7:{part}/3") for part in range(3)], kept=True)
    first = window.behind(Position.after("5"), 2)
    assert first is not None
    assert [each.sequence_number for each in first.records] == ["7:0/3", "7:1/3"]
    rest = window.behind(first.end, 2)
    assert rest is not None
    assert [each.sequence_number for each in rest.records] == ["7:2/3"]
    assert rest.end == Position.after("7")


@given(read_at_once=st.lists(st.integers(6, 12), min_size=1, max_size=8), records_max=st.integers(1, 4))
def test_of_a_page_that_is_not_in_order_nothing_is_left_out(
    read_at_once: list[int], records_max: int
) -> None:
    window = ReadWindow(Position.after("5"))
    window.take(read(*read_at_once), kept=True)
    position, taken = Position.after("5"), []
    while (found := window.behind(position, records_max)) is not None:
        assert found.end > position
        taken += numbers(found.records)
        position = found.end
    assert taken == read_at_once


@given(page=st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True), records_max=st.integers(1, 3))
def test_a_page_that_goes_back_is_cut_without_end_or_repeats(page: list[int], records_max: int) -> None:
    """As a source sends it that repeats what was read. A reader at the place has those records."""
    place = Position.after("5")
    window = ReadWindow(place)
    kept = window.take(read(*sorted(page)), kept=True)
    assert kept is not None
    first = kept.first_behind(place, records_max)
    assert first.end >= place
    if len(page) > records_max:
        assert numbers(first.records) == [each for each in sorted(page) if each > 5][:records_max]
    else:
        assert numbers(first.records) == sorted(page)


def test_nothing_is_kept_for_nobody() -> None:
    window = ReadWindow(Position.horizon())
    window.take(read(1, 2), kept=True)
    window.take(read(3), kept=False)
    assert (window.size, window.start, window.end) == (0, Position.after("3"), Position.after("3"))


def test_a_source_that_goes_back_does_not_take_the_end_back() -> None:
    window = ReadWindow(Position.after("5"))
    window.take(read(7, 8), kept=True)
    window.take(read(6, 7), kept=True)
    assert window.end == Position.after("8")
    assert window.behind(Position.after("8"), ALL) is None


def test_a_record_takes_its_data_and_something_for_itself() -> None:
    assert size_of(kinesis(1, data="x" * 1000)) > 1000
    assert size_of(dynamo(1)) > 300
