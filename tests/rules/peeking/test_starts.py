"""What operators write as a place in a shard, and which batches block a shard by its checkpoint."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.peeking.answers import BatchAtFault
from poller.domain.records import SHARD_END, Epoch, Position
from poller.domain.rows import Checkpoint
from poller.rules.peeking.faults import stored_faults
from poller.rules.peeking.starts import (
    FromFault,
    FromLatest,
    FromPosition,
    FromRecord,
    FromStored,
    PeekStart,
    UnknownStart,
    parse_start,
)
from poller.rules.streams.checkpoint_memo import Memo, PartMemo
from poller.rules.streams.lanes import lane_of
from tests.rules.build import kinesis

LONG = "49590338271490256608559692538361571095921575989136588898"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", FromFault(required=False)),
        ("fault", FromFault(required=True)),
        (" Fault ", FromFault(required=True)),
        ("position", FromStored()),
        ("LATEST", FromLatest()),
        ("latest", FromLatest()),
        ("TRIM_HORIZON", FromPosition(Position.horizon())),
        ("trim-horizon", FromPosition(Position.horizon())),
        (LONG, FromRecord(LONG)),
        ("AT:12", FromRecord("12")),
        ("AFTER:12", FromPosition(Position.after("12"))),
        (f"AFTER:{LONG}", FromPosition(Position.after(LONG))),
        (f"AFTER:{LONG}:2", FromPosition(Position.after(f"{LONG}:2"))),
        (f"{LONG}:0", FromRecord(LONG)),
        (f"{LONG}:3", FromPosition(Position.after(f"{LONG}:2"))),
        ("AT_TIMESTAMP:1767225600000", FromPosition(Position.at(Epoch(1767225600)))),
        ("1767225600", FromPosition(Position.at(Epoch(1767225600)))),
        ("1767225600.5", FromPosition(Position.at(Epoch(1767225600.5)))),
        ("20260101", FromPosition(Position.at(Epoch(20260101)))),
        ("2026-01-01T00:00:00Z", FromPosition(Position.at(Epoch(1767225600)))),
        ("2026-01-01T01:00:00+01:00", FromPosition(Position.at(Epoch(1767225600)))),
        ("2026-01-01", FromPosition(Position.at(Epoch(1767225600)))),
    ],
)
def test_each_way_to_write_a_place_is_understood(text: str, expected: PeekStart) -> None:
    assert parse_start(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "-1",
        "AFTER:",
        "AFTER:x",
        "12:30",
        f"{LONG}:3/4",
        "AT_TIMESTAMP:x",
        "SHARD_END",
        "9" * 130,
        "2026-13-01",
        "nan",
        "١٢",
    ],
)
def test_another_text_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UnknownStart, match="write TRIM_HORIZON, LATEST, fault, position, a time"):
        parse_start(text)


@given(st.text(max_size=200))
def test_a_text_names_a_place_or_is_refused_and_nothing_else(text: str) -> None:
    try:
        parse_start(text)
    except UnknownStart:
        return


@given(st.one_of(st.just(Position.horizon()), st.integers(0, 10**60).map(lambda n: Position.after(str(n)))))
def test_a_position_of_a_status_can_be_given_back(position: Position) -> None:
    assert parse_start(position.encode()) == FromPosition(position)


def checkpoint(memo: Memo) -> Checkpoint:
    return Checkpoint(Position.after("1"), msgspec.json.encode(memo))


def test_the_batch_that_comes_first_is_at_fault_with_its_end_and_failures() -> None:
    faults = stored_faults(
        checkpoint(Memo(blocked=(("12", 100), ("5", 200)), lanes={0: (PartMemo("9", 3), PartMemo("11", 0))}))
    )
    assert faults.first == "5"
    assert faults.others() == ("12",)
    batch = faults.batch(kinesis(5))
    assert batch == BatchAtFault(first="5", last="9", lane=0, failures=3, since=Epoch(200.0))
    found = faults.of_batch([kinesis(number) for number in (5, 7, 9, 11)], batch)
    assert [record.sequence_number for record in found] == ["5", "7", "9"]
    assert faults.is_behind(kinesis(10), batch)
    assert not faults.is_behind(kinesis(9), batch)


def test_a_batch_has_only_the_records_of_its_lane() -> None:
    keys = {lane: next(str(n) for n in range(99) if lane_of(str(n), 3) == lane) for lane in range(3)}
    faults = stored_faults(
        checkpoint(Memo(lane_count=3, blocked=(("5", 200),), lanes={2: (PartMemo("8", 1),)}))
    )
    shard = [kinesis(number, key=keys[number % 3]) for number in range(1, 12)]
    start = next(record for record in shard if record.sequence_number == "5")
    batch = faults.batch(start)
    assert (batch.lane, batch.last) == (2, "8")
    found = faults.of_batch([record for record in shard if int(record.sequence_number) >= 5], batch)
    assert [record.sequence_number for record in found] == ["5", "8"]


def test_a_batch_whose_end_the_checkpoint_does_not_have_has_no_last_record() -> None:
    batch = stored_faults(checkpoint(Memo(blocked=(("5", 200),)))).batch(kinesis(5))
    assert (batch.last, batch.failures) == ("", 0)


def test_the_end_of_a_window_has_no_first_record_and_comes_last() -> None:
    faults = stored_faults(checkpoint(Memo(blocked=(("", 100), ("5", 200)))))
    assert faults.first == "5"
    assert stored_faults(checkpoint(Memo(blocked=(("", 100),)))).first == ""
    assert faults.others() == ()


@pytest.mark.parametrize("memo", [b"", b"{", b'{"blocked": [["x", 1]]}', b"[" * 10_000])
def test_a_checkpoint_without_a_readable_memo_blocks_nothing(memo: bytes) -> None:
    assert stored_faults(Checkpoint(SHARD_END, memo)).first is None
