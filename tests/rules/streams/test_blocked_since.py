"""Since when lanes are blocked, over restarts and changes."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Epoch
from poller.domain.streams.places import end_of
from poller.rules.streams import checkpoint_memo
from poller.rules.streams.blocked_since import CLOSING, BlockedSince
from poller.rules.streams.checkpoint_memo import Memo


def test_a_lane_is_blocked_since_its_first_failure_until_it_is_free() -> None:
    lanes = BlockedSince(())
    lanes.block(0, "5", Epoch(100.5))
    lanes.block(0, "5", Epoch(200.0))
    assert lanes.of(0) == 100.5
    assert lanes.memo(settled=end_of("4")) == (("5", 100),)
    lanes.free(0)
    assert lanes.of(0) is None
    assert lanes.memo(settled=end_of("5")) == ()


def test_the_next_run_finds_the_lane_by_its_record_whatever_its_number() -> None:
    lanes = BlockedSince((("5", 100), ("9", 200)))
    lanes.begin(3, "9")
    lanes.block(3, "9", Epoch(900.0))
    assert (lanes.of(3), lanes.of(0)) == (200.0, None)
    assert lanes.memo(settled=end_of("4")) == (("5", 100), ("9", 200))


def test_what_was_settled_meanwhile_is_forgotten() -> None:
    lanes = BlockedSince((("5", 100), ("9", 200)))
    lanes.begin(0, "6")
    assert lanes.memo(settled=end_of("8")) == (("9", 200),)
    assert lanes.of(0) is None


def test_a_call_that_closes_a_window_is_the_first_of_the_next_run_or_over() -> None:
    lanes = BlockedSince(((CLOSING, 100),))
    assert lanes.memo(settled=end_of("8")) == ((CLOSING, 100),)
    lanes.begin(0, CLOSING)
    assert lanes.of(0) == 100.0
    lanes = BlockedSince(((CLOSING, 100),))
    lanes.begin(0, "9")
    assert (lanes.of(0), lanes.memo(settled=end_of("8"))) == (None, ())


def test_a_memo_has_the_keys_that_workers_of_earlier_versions_read_and_write() -> None:
    memo = Memo(2, 600, (("1", "2"),), {0: (checkpoint_memo.PartMemo("4", 1),)}, blocked=(("3", 100),))
    written = (
        b'{"lane_count":2,"as_of":600,"beyond":[["1","2"]],"lanes":{"0":[["4",1,0]]},"blocked":[["3",100]]}'
    )
    assert msgspec.json.encode(memo) == written
    assert checkpoint_memo.read(written) == memo


def test_a_memo_of_before_there_was_such_a_thing_is_read() -> None:
    assert checkpoint_memo.read(b'{"as_of":7,"beyond":[["1","2"]]}') == Memo(
        settled_through=7, settled_ahead=(("1", "2"),)
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_restarts_change_nothing_of_it(steps: list[tuple[int, bool, bool]]) -> None:
    """Each lane works at one record until it is free; a run ends at any moment."""
    since: dict[int, Epoch] = {}
    records = dict.fromkeys(range(4), 0)
    lanes = BlockedSince(())
    for now, (lane, frees, restarts) in enumerate(steps):
        if restarts:
            lanes = BlockedSince(lanes.memo(settled=0))
            for each, number in records.items():
                lanes.begin(each, str(1 + each + 4 * number))
        first = str(1 + lane + 4 * records[lane])
        if frees:
            lanes.free(lane)
            since.pop(lane, None)
            records[lane] += 1
        else:
            lanes.block(lane, first, Epoch(now))
            since.setdefault(lane, Epoch(now))
        assert {each: lanes.of(each) for each in records} == {each: since.get(each) for each in records}
