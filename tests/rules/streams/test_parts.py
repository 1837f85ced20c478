"""Parts of aggregated records: what one run settled is known to the next, also if that one takes records apart and the other did not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Succeeded
from poller.domain.records import Epoch, Position, ShardId
from poller.domain.streams.places import place_of_part, sequence_of
from poller.rules.events import KinesisEncoder
from poller.rules.responses import Accepted, Partial, ResponseReading, parse
from poller.rules.streams.batching import Entry
from poller.rules.streams.checkpoint_memo import Memo
from poller.rules.streams.resuming import EarlierRun
from poller.rules.streams.tracking import RecordTracker
from poller.rules.streams.watermark import SettledSpans, Watermark
from tests.rules.build import kinesis

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=8)


def places(sizes: list[int], *, apart: bool) -> list[str]:
    """The places of records that hold so many user records each."""
    found = []
    for sequence, size in enumerate(sizes, 1):
        whole = not apart or size == 1
        found += (
            [str(sequence)] if whole else [place_of_part(str(sequence), part, size) for part in range(size)]
        )
    return found


def settled_by(there: list[str], settled: set[int]) -> tuple[Position, tuple[tuple[int, int], ...]]:
    """The safe position, and the spans behind it, of a run that has settled these places."""
    watermark = Watermark(Position.horizon())
    watermark.track_all(there)
    watermark.resolve([index for index in range(len(there)) if index in settled])
    return watermark.position, watermark.settled_ahead()


@given(SIZES, st.data(), st.booleans(), st.booleans())
def test_nothing_is_taken_for_settled_of_which_a_part_is_not(
    sizes: list[int], data: st.DataObject, before: bool, after: bool
) -> None:
    """`before` and `after` say whether the two runs take records apart."""
    first, second = places(sizes, apart=before), places(sizes, apart=after)
    settled = data.draw(st.sets(st.integers(0, len(first) - 1)))
    position, ahead = settled_by(first, settled)
    spans = SettledSpans(ahead)
    skipped = [place for place in second if Position.after(place) <= position or spans.covers(place)]
    done = {first[index] for index in settled}
    if before == after:
        assert skipped == [place for place in second if place in done]
    for place in skipped:
        of_it = [each for each in first if sequence_of(each) == sequence_of(place)]
        assert place in done or done.issuperset(of_it)


@given(SIZES, st.data())
def test_what_a_checkpoint_remembers_of_parts_is_skipped_by_the_next_run(
    sizes: list[int], data: st.DataObject
) -> None:
    there = places(sizes, apart=True)
    settled = data.draw(st.sets(st.integers(0, len(there) - 1)))
    tracker = RecordTracker(Position.horizon(), EarlierRun(Memo(), lanes=2), settled_through=Epoch(0.0))
    page = tracker.take([kinesis(each) for each in there], None, caught_up=True, asked=Epoch(0.0))
    tracker.settle([Entry(index, page.records[index], 1) for index in sorted(settled)])
    memo = Memo(settled_ahead=tracker.settled_ahead(lanes=2))

    again = RecordTracker(tracker.position, EarlierRun(memo, lanes=2), settled_through=Epoch(0.0))
    left = [each for each in there if Position.after(each) > tracker.position]
    page = again.take([kinesis(each) for each in left], None, caught_up=True, asked=Epoch(0.0))
    assert [each.sequence_number for each in page.records] == [
        place for index, place in enumerate(there) if index not in settled
    ]


def test_an_event_shows_the_sequence_number_of_the_whole_record() -> None:
    encoder = KinesisEncoder(
        shard=ShardId("shard-1"), source_arn="arn:stream", region="eu-west-1", role_arn="arn:role"
    )
    records = [kinesis("6"), kinesis("7:0/2"), kinesis("7:1/2")]
    encoded = encoder.encode_all(records)
    assert encoder.sizes(records) == [len(each) for each in encoded]
    shown = [json.loads(each) for each in encoded]
    assert shown == encoder.views(records)
    assert [each["kinesis"]["sequenceNumber"] for each in shown] == ["6", "7", "7"]
    assert [each["eventID"] for each in shown] == ["shard-1:6", "shard-1:7", "shard-1:7"]


@pytest.mark.parametrize(
    ("reported", "failed"),
    [(["7:1"], {2}), (["7"], {1}), (["7:0"], {1}), (["6"], {0}), (["7", "7:2"], {1, 3}), (["8"], None), (["7:5"], None), (["6:0"], None)],
)  # fmt: skip
def test_a_report_names_parts_or_the_first_of_them(reported: list[str], failed: set[int] | None) -> None:
    answer = Succeeded(
        json.dumps({"batchItemFailures": [{"itemIdentifier": each} for each in reported]}).encode()
    )
    names = ["6", "7:0", "7:1", "7:2"]
    verdict = parse(answer, names, ResponseReading(report_failures=True))
    found = set(verdict.failed) if isinstance(verdict, Partial) else None
    assert found == failed
    assert not isinstance(verdict, Accepted)


def test_a_number_alone_is_the_first_part_that_is_in_the_batch() -> None:
    answer = Succeeded(b'{"batchItemFailures":[{"itemIdentifier":"7"}]}')
    verdict = parse(answer, ["7:2", "7:3"], ResponseReading(report_failures=True))
    assert isinstance(verdict, Partial)
    assert verdict.failed == {0}


def test_in_the_event_of_a_notice_a_number_stands_for_the_first_record_that_has_it() -> None:
    answer = Succeeded(b'{"batchItemFailures":[{"itemIdentifier":"7"}]}')
    verdict = parse(answer, ["6", "7", "7", "7"], ResponseReading(report_failures=True))
    assert isinstance(verdict, Partial)
    assert verdict.failed == {1}
