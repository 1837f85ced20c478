"""Owns the documents that on-failure destinations get (spec 8), key order and time formats included."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from poller.invocations import Notice
from poller.records import Epoch, JsonObject, MappingId, Record, ShardId
from poller.rules.attempts import Discard
from poller.rules.events import WindowFacts

_STATUS_CODE = 200
_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Context:
    """Whose batch it was. `batch_info` is KinesisBatchInfo or DDBStreamBatchInfo; ARNs are as mapped."""

    mapping: MappingId
    shard: ShardId
    source_arn: str
    function_arn: str
    batch_info: str


def notice(
    discard: Discard,
    context: Context,
    *,
    payload: bytes,
    now: Epoch,
    notice_id: str,
    window: WindowFacts | None = None,
) -> Notice:
    """The notice for a discarded batch; `payload` is its event, `notice_id` a random UUID."""
    timestamp = milliseconds(now)
    document: JsonObject = {
        "requestContext": {
            "requestId": discard.request_id,
            "functionArn": context.function_arn,
            "condition": discard.condition.value,
            "approximateInvokeCount": discard.invoke_count,
        }
    }
    if discard.response is not None:
        document["responseContext"] = {
            "statusCode": _STATUS_CODE,
            "executedVersion": discard.response.executed_version,
            "functionError": discard.response.function_error,
        }
    document["version"] = _VERSION
    document["timestamp"] = timestamp
    records = [entry.record for entry in discard.entries]
    document[context.batch_info] = _batch_info(records, context)
    if window is not None:
        document["timeWindowInfo"] = {
            "window": {"start": window.start, "end": window.end},
            "isFinalInvokeForWindow": window.final,
            "isWindowTerminatedEarly": window.terminated_early,
        }
    return Notice(notice_id, context.mapping, context.shard, orjson.dumps(document), payload, timestamp)


def with_payload(notice: Notice) -> bytes:
    """The document for S3: `payload`, the event as a JSON string, stands between `version` and `timestamp`."""
    document: JsonObject = {}
    for name, value in orjson.loads(notice.document).items():
        if name == "timestamp":
            document["payload"] = notice.payload.decode()
        document[name] = value
    return orjson.dumps(document)


def object_key(notice: Notice) -> str:
    """The S3 key (spec 8.2): by mapping, shard and day; the time is the document's, in whole seconds with dots."""
    day, _, clock = notice.timestamp.partition("T")
    second = clock.partition(".")[0].replace(":", ".")
    return f"aws/lambda/{notice.mapping}/{notice.shard}/{day.replace('-', '/')}/{day}T{second}-{notice.notice_id}"


def milliseconds(moment: Epoch) -> str:
    """UTC with milliseconds, as in `2026-01-01T00:00:00.125Z`."""
    text = datetime.fromtimestamp(round(moment * 1000) / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def seconds(moment: Epoch) -> str:
    """UTC with whole seconds, as in `2026-01-01T00:00:00Z`."""
    return re.sub(r"\.\d+Z$", "Z", milliseconds(moment))


def _batch_info(records: Sequence[Record], context: Context) -> JsonObject:
    if not records:
        return {"shardId": context.shard, "streamArn": context.source_arn}
    written = milliseconds if context.batch_info == "KinesisBatchInfo" else seconds
    return {
        "shardId": context.shard,
        "startSequenceNumber": records[0].sequence_number,
        "endSequenceNumber": records[-1].sequence_number,
        "approximateArrivalOfFirstRecord": written(records[0].arrived),
        "approximateArrivalOfLastRecord": written(records[-1].arrived),
        "batchSize": len(records),
        "streamArn": context.source_arn,
    }
