"""Owns a model of the daemon's peeking for tests of the API and the command: it keeps what was asked, and answers with given records."""

from dataclasses import dataclass, field, replace

from poller.domain.mapping_api import ApiError
from poller.domain.peeking.answers import (
    BatchAtFault,
    FilterVerdict,
    PayloadForm,
    PeekAnswer,
    PeekedRecord,
    PeekRequest,
    ShownPayload,
    UserRecord,
)
from poller.domain.records import Epoch, ShardId
from poller.testing.telemetry_events import MAPPING, STREAM_ARN

SHARD = ShardId("shardId-000000000003")
HOSTILE_TEXT = "\x1b]0;owned\x07\x1b[2J\x9b31m \u202e\ud83e\ufeff\x00 end"


def payload(text: str, *, form: PayloadForm = PayloadForm.TEXT, full: int | None = None) -> ShownPayload:
    """A payload with this text; cut if it is said to be larger."""
    size = len(text.encode("utf-8", "replace")) if full is None else full
    return ShownPayload(form=form, text=text, full_bytes=size, cut=full is not None)


RECORDS = (
    PeekedRecord(
        sequence_number="4959033827149",
        key="order-7",
        arrived=Epoch(1_767_225_600.25),
        size_bytes=15,
        lane=0,
        verdict=FilterVerdict.PASSES,
        pattern=2,
        payload=payload('{"state": "paid"}', form=PayloadForm.JSON),
    ),
    PeekedRecord(
        sequence_number="4959033827150",
        key="",
        arrived=Epoch(1_767_225_601.0),
        size_bytes=300_000,
        lane=1,
        verdict=FilterVerdict.FILTERED,
        reasons=('data.state: none of the values satisfies it (condition: ["paid"])',),
        payload=payload("x" * 50, full=300_000),
    ),
    PeekedRecord(
        sequence_number="4959033827151",
        key="k",
        arrived=Epoch(1_767_225_602.0),
        size_bytes=90,
        lane=0,
        verdict=FilterVerdict.PASSES,
        user_records=(UserRecord(key="inner", payload=payload("one")),),
        user_records_count=40,
    ),
    PeekedRecord(
        sequence_number="4959033827152",
        key='{"pk":{"S":"7"}}',
        arrived=Epoch(1_767_225_603.0),
        size_bytes=90,
        lane=0,
        verdict=FilterVerdict.PASSES,
        event_name="MODIFY",
        keys=payload('{"pk":{"S":"7"}}', form=PayloadForm.JSON),
        new_image=payload('{"pk":{"S":"7"},"n":{"N":"2"}}', form=PayloadForm.JSON),
        old_image=payload('{"pk":{"S":"7"},"n":{"N":"1"}}', form=PayloadForm.JSON),
    ),
)
ANSWER = PeekAnswer(
    mapping=MAPPING,
    function="orders",
    source_arn=STREAM_ARN,
    shard=SHARD,
    start="fault",
    records=RECORDS,
    fault=BatchAtFault(
        first="4959033827149", last="4959033827152", lane=0, failures=3, since=Epoch(1_767_225_700.0)
    ),
    next="AFTER:4959033827152",
    behind_ms=1500,
    notes=("other batches block this shard, too; they begin at 4959033827199",),
)


@dataclass
class PeekModel:
    """PeekControl that answers with `records`, or raises `trouble`."""

    records: tuple[PeekedRecord, ...] = RECORDS
    trouble: ApiError | None = None
    asked: list[tuple[str, PeekRequest]] = field(default_factory=list)

    async def peek(self, mapping: str, request: PeekRequest) -> PeekAnswer:
        self.asked.append((mapping, request))
        if self.trouble is not None:
            raise self.trouble
        shown = self.records if request.payloads else tuple(map(bare, self.records))
        return replace(ANSWER, records=shown[: request.limit], payloads=request.payloads)


def bare(record: PeekedRecord) -> PeekedRecord:
    """A record without its payload."""
    return replace(
        record,
        payload=None,
        user_records=(),
        user_records_count=None,
        keys=None,
        new_image=None,
        old_image=None,
    )
