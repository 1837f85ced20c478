"""How large operations may be: what is refused, what fails later, and that each fits into a row of DynamoDB as long as it lives."""

from dataclasses import replace
from random import Random

import pytest

from adapters.stores.dynamodb.operation_rows import item_of
from poller.domain.operations import Operation, OperationState, PartResult
from poller.domain.records import ShardId, WorkerId
from poller.rules.operations import lifecycle, sizes
from poller.rules.operations.lifecycle import PARTS_MAX
from poller.rules.operations.members import ID_CHARS_MAX, RECORDS_MAX
from poller.rules.operations.reading import REASON_CHARS_MAX, OperationRefused
from tests.rules.operations.build import ANN, FIFO, NOW, ONE, QUEUE, STREAM, accepted

DIGITS = "0123456789"
PRINTABLE = "".join(map(chr, range(33, 127)))
HEX = "0123456789abcdef-"


def names(count: int, chars: int, alphabet: str, seed: int = 0) -> list[str]:
    rng = Random(seed)
    return ["".join(rng.choices(alphabet, k=chars)) for _ in range(count)]


def text(sign: str, size: int, seed: int) -> str:
    """A text of signs around this one, which cannot be compressed well."""
    rng, first = Random(seed), ord(sign)
    return "".join(chr(first + rng.randrange(20)) for _ in range(size))


def part_text(operation: Operation, sign: str, number: int) -> str:
    """The longest result that a part of the operation keeps."""
    share = max(lifecycle.PART_BYTES_MIN, lifecycle.PARTS_BYTES // len(operation.wanted))
    return text(sign, 200, number).encode()[: min(share, lifecycle.PART_BYTES_MAX)].decode(errors="ignore")


def with_all_results(operation: Operation, sign: str) -> Operation:
    """The operation with the longest results of all parts."""
    parts = {
        part: PartResult(state=OperationState.DONE, result=part_text(operation, sign, number))
        for number, part in enumerate(operation.wanted)
    }
    return replace(operation, parts=parts, state=OperationState.RUNNING)


def settled(operation: Operation, sign: str) -> Operation:
    """The operation after all of its records were settled in many steps, each with a line about it."""
    records = operation.notes["records"]
    size = max(1, len(records) // lifecycle.LINES_MAX)
    for first in range(0, len(records), size):
        said = text(sign, 300, first)
        operation = lifecycle.settle(operation, records[first : first + size], said)
    assert lifecycle.settled(operation) == records
    return operation


@pytest.mark.parametrize("alphabet", [DIGITS, HEX, PRINTABLE], ids=["digits", "hex", "printable"])
@pytest.mark.parametrize("records", [1, 100, RECORDS_MAX])
@pytest.mark.parametrize("workers", [1, 300, PARTS_MAX])
def test_an_operation_on_a_queue_fits_into_a_row_until_it_is_over_or_is_refused(
    alphabet: str, records: int, workers: int
) -> None:
    facts = replace(QUEUE, workers=tuple(map(WorkerId, names(workers, 64, alphabet, 1))))
    ids = names(records, ID_CHARS_MAX, alphabet)
    document = {"action": "skip", "records": ids, "reason": text("\u4e2d", REASON_CHARS_MAX, 2)}
    if alphabet == PRINTABLE and records == RECORDS_MAX and workers >= 300:
        with pytest.raises(OperationRefused) as caught:
            accepted(document, facts)
        assert caught.value.member == "records"
        assert f"the limit is {sizes.OPERATION_BYTES_MAX}; name fewer records at once" in caught.value.text
        return
    operation = accepted(document, facts)
    full = with_all_results(settled(operation, "\u4e2d"), "\u4e2d")
    assert sizes.within_limit(operation, full, now=NOW) is full
    item_of(
        replace(
            full, state=OperationState.DONE, ended=NOW, result=text("\u4e2d", lifecycle.RESULT_CHARS_MAX, 3)
        )
    )


@pytest.mark.parametrize(
    ("alphabet", "chars", "fits"),
    [(DIGITS, 56, True), (HEX, 40, True), (PRINTABLE, 128, False)],
    ids=["digits", "hex", "printable"],
)
def test_a_batch_of_ten_thousand_records_fits_into_a_row_or_its_skip_fails_and_says_so(
    alphabet: str, chars: int, fits: bool
) -> None:
    operation = accepted({"action": "skip", "shard": ONE, "records": "batch", "discard": True})
    ids = names(lifecycle.RESOLVED_MAX, chars, alphabet)
    resolved = lifecycle.resolve(operation, ids, part=ONE, now=NOW)
    changed = sizes.within_limit(operation, resolved, now=NOW)
    item_of(changed)
    if fits:
        assert changed == resolved
        assert sizes.charged_bytes(resolved) <= sizes.charged_bytes(operation)
        return
    assert changed.state is OperationState.FAILED
    assert changed.notes == operation.notes
    said = "what is noted of it would be longer than 390000 bytes, the limit of one operation; name fewer records at once"
    assert changed.result == said


@pytest.mark.parametrize("sign", ["a", "\u4e2d", "\U0001f600", "\u00fc"])
@pytest.mark.parametrize("action", ["pause", "retry"])
@pytest.mark.parametrize("shards", [1, 10, PARTS_MAX])
def test_an_operation_on_many_shards_fits_into_a_row_with_all_results(
    shards: int, action: str, sign: str
) -> None:
    facts = replace(STREAM, shards={ShardId(each): ANN for each in names(shards, ID_CHARS_MAX, HEX)})
    operation = accepted({"action": action}, facts)
    full = with_all_results(operation, sign)
    assert sizes.kept_bytes(full) <= sizes.OPERATION_BYTES_MAX
    item_of(full)


def test_the_operations_that_are_not_over_have_a_limit_together() -> None:
    document = {"action": "pause", "group": "g"}
    size = sizes.charged_bytes(accepted(document, FIFO))
    accepted(document, FIFO, open_bytes=sizes.OPEN_BYTES_MAX - size)
    with pytest.raises(OperationRefused) as caught:
        accepted(document, FIFO, open_bytes=sizes.OPEN_BYTES_MAX - size + 1)
    assert caught.value.conflict
    assert str(caught.value) == (
        f"action: with this one the operations that are not over would take {sizes.OPEN_BYTES_MAX + 1} bytes, "
        f"the limit is {sizes.OPEN_BYTES_MAX}; wait for them, cancel some, or ask for less at once"
    )


def test_a_resume_is_accepted_beside_as_much_as_there_may_be() -> None:
    paused = accepted({"action": "pause"}, FIFO)
    resume = accepted({"action": "resume"}, FIFO, others=(paused,), open_bytes=sizes.OPEN_BYTES_MAX)
    assert resume.notes["pauses"]


def test_a_pause_of_a_thousand_groups_is_far_from_the_limit() -> None:
    pause = accepted({"action": "pause", "group": "g" * ID_CHARS_MAX, "reason": "r" * REASON_CHARS_MAX}, FIFO)
    assert 1_000 * sizes.charged_bytes(pause) < sizes.OPEN_BYTES_MAX / 2


def test_what_is_over_and_what_does_not_change_is_left_alone() -> None:
    huge = replace(accepted({"action": "retry"}), notes={"records": names(10_000, ID_CHARS_MAX, PRINTABLE)})
    assert sizes.within_limit(huge, huge, now=NOW) is huge
    over = lifecycle.cancel(huge, by="ann", now=NOW)
    assert sizes.within_limit(huge, over, now=NOW) is over
