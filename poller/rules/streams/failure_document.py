"""Owns the documents for on-failure destinations, with AWS's key order and time formats (aws-behaviour#failure-document)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from poller.domain.invocations import Notice
from poller.domain.records import Epoch, JsonObject, MappingId, Record, ShardId
from poller.domain.streams.places import name_of
from poller.domain.untrusted.numbers import date_of
from poller.rules.events import WindowFacts
from poller.rules.streams.attempts import Discard

_STATUS_CODE = 200
_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Context:
    """Mapping, shard and function of a batch. `batch_info` is KinesisBatchInfo or DDBStreamBatchInfo; ARNs are as mapped."""

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


def milliseconds(moment: Epoch) -> str:
    """UTC with milliseconds, as in `2026-01-01T00:00:00.125Z`."""
    text = date_of(round(moment * 1000) / 1000).isoformat(timespec="milliseconds")
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
        "startSequenceNumber": name_of(records[0].sequence_number),
        "endSequenceNumber": name_of(records[-1].sequence_number),
        "approximateArrivalOfFirstRecord": written(records[0].arrived),
        "approximateArrivalOfLastRecord": written(records[-1].arrived),
        "batchSize": len(records),
        "streamArn": context.source_arn,
    }
