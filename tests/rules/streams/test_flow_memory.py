"""What waits in a shard's lanes keeps no more than its own bytes alive."""

import tracemalloc
from random import Random

import msgspec
import pytest

from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import DynamoRecord, Epoch, Position
from poller.domain.rows import Checkpoint
from poller.rules.events import DynamoEncoder
from poller.rules.streams.flow import ShardFlow
from tests.rules.build import BASE, ids

PAGES = 20
PAGE_RECORDS = 500
IMAGE_BYTES = 1_000
ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"


def page(number: int) -> list[DynamoRecord]:
    """Half a megabyte of records whose images are slices of one answer."""
    first = number * PAGE_RECORDS
    change = '{{"eventID":"{0}","eventName":"INSERT","dynamodb":{1}}}'
    body = (
        f'{{"ApproximateCreationDateTime":{BASE},"Keys":{{"pk":{{"S":"{{0}}"}}}},'
        f'"NewImage":{{"t":{{"S":"{"x" * IMAGE_BYTES}"}}}},"SequenceNumber":"{{0}}"}}'
    )
    records = [
        change.format(each, body.replace("{0}", str(each))) for each in range(first, first + PAGE_RECORDS)
    ]
    return msgspec.json.decode(f"[{','.join(records)}]".encode(), type=list[DynamoRecord])


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_record_that_a_filter_let_through_does_not_keep_the_answer_it_came_with(lanes: int) -> None:
    flow = ShardFlow(
        Checkpoint(Position.horizon()),
        batch=BatchPolicy(records_max=10_000, window_s=300.0),
        retry=RetryPolicy(),
        lanes=lanes,
        look_ahead_records_max=10**9,
        encoder=DynamoEncoder(source_arn=ARN, region="eu-west-1"),
        new_id=ids(),
        rng=Random(1),
    )
    tracemalloc.start()
    try:
        for number in range(PAGES):
            passing = [each == 7 for each in range(PAGE_RECORDS)]
            intake = flow.accept(page(number), caught_up=False, asked=Epoch(BASE), passing=passing)
            assert (intake.taken, intake.filtered) == (1, PAGE_RECORDS - 1)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Sequence numbers behind the first waiting record are kept, some hundred bytes each.
    assert held_bytes < PAGES * PAGE_RECORDS * IMAGE_BYTES / 4
