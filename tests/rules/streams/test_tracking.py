"""What is known of a shard's records between reading and settling."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Epoch, Position
from poller.domain.streams.places import begin_of
from poller.rules.streams.batching import Entry
from poller.rules.streams.checkpoint_memo import Memo
from poller.rules.streams.resuming import EarlierRun
from poller.rules.streams.tracking import EMPTY_PAGES, RecordTracker
from tests.rules.build import kinesis


@given(
    settled=st.sets(st.integers(1, 20)), ahead=st.sets(st.integers(1, 40)), asked=st.sets(st.integers(1, 45))
)
def test_what_is_settled_among_some_records_is_told_of_this_run_and_earlier_ones(
    settled: set[int], ahead: set[int], asked: set[int]
) -> None:
    """Records 1 to 20 are read in this run; `ahead` are those that earlier runs had settled."""
    memo = Memo(settled_ahead=tuple((str(each), str(each)) for each in sorted(ahead)))
    tracker = RecordTracker(Position.horizon(), EarlierRun(memo, lanes=1), settled_through=Epoch(0.0))
    page = tracker.take([kinesis(number) for number in range(1, 21)], None, caught_up=True, asked=Epoch(0.0))
    todo = [
        Entry(index, record, 1)
        for index, record in zip(page.indices, page.records, strict=True)
        if int(record.sequence_number) in settled
    ]
    if todo:
        tracker.settle(todo)
    known = tracker.settled_among({begin_of(str(each)) for each in asked})
    assert known == {begin_of(str(each)) for each in asked & (settled | ahead)}


@given(st.lists(st.sampled_from(["at the end", "behind", "a record"]), max_size=60))
def test_a_record_that_does_not_come_is_gone_once_the_source_has_often_had_nothing(pages: list[str]) -> None:
    """A read without news, such as one that waited in vain for an event, is no sign that there is more."""
    tracker = RecordTracker(Position.horizon(), EarlierRun(Memo(), lanes=1), settled_through=Epoch(0.0))
    tracker.expect_skips()
    ends = 0
    for number, page in enumerate(pages, 1):
        records = [kinesis(number)] if page == "a record" else []
        tracker.take(records, None, caught_up=page == "at the end", asked=Epoch(0.0))
        ends = 0 if records else ends + (page == "at the end")
        assert bool(tracker.gone_among({begin_of("1000")})) == (ends >= EMPTY_PAGES)
