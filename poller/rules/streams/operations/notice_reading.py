"""Owns how a notice of a batch that was given up is read again, to call the function with its records once more.

The documents are those of `failure_document`, which are AWS's own, with the members of `include_payload` or without. A document that came
through a topic may be wrapped in the topic's message.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poller.domain.arns import BUCKET
from poller.domain.records import Epoch, JsonObject, Record, ShardId
from poller.domain.streams.places import begin_of, end_of, is_called, is_name
from poller.domain.untrusted.json_values import json_value
from poller.domain.untrusted.numbers import iso_moment
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.rules.operations.redriving import NoticeRefused
from poller.rules.streams.lanes import lane_of_record

SHOWN_CHARS_MAX = 200
LINE_CHARS_MAX = 1_000
"""One line about a notice: numbers of up to 128 digits, a shard, and a place. An operation keeps some of these lines."""
BATCH_MAX = 10_000
"""Records of one batch at most (aws-behaviour#sizes-and-counts)."""
KEY_CHARS_MAX = 1_024
REMOVED_OR_DROPPED = "it was removed, or a filter drops it now"
_BUCKET = re.compile(BUCKET)
_SHARD = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
"""How Kinesis and DynamoDB name shards. The name goes into requests, log lines and operations."""


@dataclass(frozen=True, slots=True)
class PayloadObject:
    """Where the event of a notice is."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamNotice:
    """What a notice says of its batch.

    `payload` is the event if the notice has it, else `stored` is where it is, if it is anywhere. Otherwise the records are read
    from `shard`, from the one named `first` to the one named `last` (see `places`). `since` is when the first one arrived, or a
    little earlier.
    """

    shard: ShardId
    first: str
    last: str
    records: int
    since: Epoch
    payload: bytes | None = None
    stored: PayloadObject | None = None

    def has(self, place: str) -> bool:
        """Whether the record at this place is in the range of the batch."""
        return begin_of(self.first) <= begin_of(place) and not self.before(place)

    def before(self, place: str) -> bool:
        """Whether the range ends before the record at this place."""
        return end_of(self.last) < begin_of(place)


def read_notice(document: bytes, *, source_arn: str, function_arn: str) -> StreamNotice:
    """The batch of a notice. Raises NoticeRefused for one of another stream or function, and for what is no notice of a stream's batch."""
    found = _unwrapped(_object(document))
    info = found.get("KinesisBatchInfo") or found.get("DDBStreamBatchInfo")
    if not isinstance(info, dict):
        raise NoticeRefused(
            "it is no notice of a stream's batch: KinesisBatchInfo and DDBStreamBatchInfo are missing"
        )
    stream = info.get("streamArn")
    if stream != source_arn:
        raise NoticeRefused(f"it is of another stream: {_shown(stream)}")
    context = found.get("requestContext")
    function = context.get("functionArn") if isinstance(context, dict) else None
    if function != function_arn:
        raise NoticeRefused(f"it is of another function: {_shown(function)}")
    if "startSequenceNumber" not in info:
        raise NoticeRefused("its batch has no records: it was the last call of a window, whose state is gone")
    payload = found.get("payload")
    return StreamNotice(
        shard=_shard(info, "shardId"),
        first=_name(info, "startSequenceNumber"),
        last=_name(info, "endSequenceNumber"),
        records=_count(info, "batchSize"),
        since=_moment(info, "approximateArrivalOfFirstRecord"),
        payload=_encoded(payload) if payload is not None else None,
        stored=_stored(found.get("payloadObject")),
    )


def described(notice: StreamNotice) -> str:
    """What a redrive of this notice would call, in one line."""
    place = "its records read again from the stream"
    if notice.payload is not None:
        place = "the event in the notice"
    elif notice.stored is not None:
        place = f"the event in s3://{notice.stored.bucket}/{notice.stored.key}"
    records = number_of(notice.records, "record")
    line = f"{records} of shard {notice.shard}, from {notice.first} to {notice.last}: {place}"
    return line_of(line, chars_max=LINE_CHARS_MAX)


def payload_of(document: bytes) -> bytes:
    """The event in an object of the S3 destination; raises NoticeRefused if it has none."""
    payload = _object(document).get("payload")
    if payload is None:
        raise NoticeRefused("its object has no payload")
    return _encoded(payload)


def identifiers(payload: bytes) -> list[str]:
    """The sequence numbers of an event's records, in order; raises NoticeRefused if it is no event of a stream."""
    records = _object(payload).get("Records")
    if not isinstance(records, list) or not records:
        raise NoticeRefused("its event has no Records")
    found = [_identifier(each) for each in records]
    if None in found:
        raise NoticeRefused("a record of its event has no sequence number")
    return [each for each in found if each is not None]


def chosen(records: Sequence[Record], notice: StreamNotice, *, lanes: int) -> Sequence[Record]:
    """The records of the batch among those that were read from its range, without those that filters drop.

    A range also has the records of other lanes. Raises NoticeRefused if the batch is not complete, or cannot be told apart.
    """
    within = narrowed(
        [each for each in records if notice.has(each.sequence_number)],
        notice,
        lanes=lanes,
    )
    if len(within) < notice.records:
        raise NoticeRefused(
            f"the stream has {len(within)} of its {number_of(notice.records, 'record')}: the others were removed, or a filter drops them now"
        )
    if not is_called(within[-1].sequence_number, notice.last):
        raise NoticeRefused(f"the stream does not have its last record: {REMOVED_OR_DROPPED}")
    return within


def narrowed(found: Sequence[Record], notice: StreamNotice, *, lanes: int) -> Sequence[Record]:
    """What may be of the batch among the first records of its range: all of them, or those of its lane where they are too many.

    Raises NoticeRefused if the first record of the batch is not the first one, or if its lane has more records than the batch.
    """
    if found and not is_called(found[0].sequence_number, notice.first):
        # Records of other lanes must not stand for those that the stream has lost.
        raise NoticeRefused(f"the stream does not have its first record: {REMOVED_OR_DROPPED}")
    if len(found) <= notice.records:
        return found
    lane = lane_of_record(found[0], lanes)
    own = [each for each in found if lane_of_record(each, lanes) == lane]
    if len(own) > notice.records:
        raise NoticeRefused(
            f"its range has {number_of(len(own), 'record')} or more and the batch had {notice.records}: "
            "a record of it was skipped, or the mapping's lanes or filters have changed"
        )
    return own


def _object(document: bytes) -> JsonObject:
    try:
        # The keys and contents of records may have lone surrogates, so an event may have them, too.
        found = json_value(document)
    except (ValueError, RecursionError) as error:
        raise NoticeRefused(f"it is no JSON: {line_of(str(error), chars_max=SHOWN_CHARS_MAX)}") from None
    if not isinstance(found, dict):
        raise NoticeRefused("it is no JSON object")
    return found


def _unwrapped(found: JsonObject) -> JsonObject:
    """The document in the message of a topic, or the document itself."""
    message = found.get("Message")
    if found.get("Type") == "Notification" and isinstance(message, str):
        return _object(message.encode("utf-8", "surrogatepass"))
    return found


def _encoded(payload: Any) -> bytes:
    """An event that a notice has as a JSON text, as here and on AWS, or as an object."""
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    try:
        return json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise NoticeRefused("its payload has a number that is none, or is nested too deep") from None


def _stored(found: Any) -> PayloadObject | None:
    match found:
        case {"bucket": str(bucket), "key": str(key)} if (
            _BUCKET.fullmatch(bucket) and 0 < len(key) <= KEY_CHARS_MAX
        ):
            return PayloadObject(bucket, key)
        case _:
            return None


def _identifier(record: Any) -> str | None:
    match record:
        case {"kinesis": {"sequenceNumber": str(number)}} | {"dynamodb": {"SequenceNumber": str(number)}}:
            return number
        case _:
            return None


def _shard(info: JsonObject, member: str) -> ShardId:
    found = info.get(member)
    if not isinstance(found, str) or not _SHARD.fullmatch(found):
        raise NoticeRefused(f"its {member} is {_shown(found)}")
    return ShardId(found)


def _name(info: JsonObject, member: str) -> str:
    found = info.get(member)
    if not isinstance(found, str) or not is_name(found):
        raise NoticeRefused(f"its {member} is {_shown(found)}")
    return found


def _count(info: JsonObject, member: str) -> int:
    found = info.get(member)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= BATCH_MAX:
        raise NoticeRefused(f"its {member} is {_shown(found)}")
    return found


def _moment(info: JsonObject, member: str) -> Epoch:
    found = iso_moment(info.get(member), default=None)
    if found is None:
        raise NoticeRefused(f"its {member} is {_shown(info.get(member))}")
    return Epoch(found)


def _shown(value: Any) -> str:
    return "missing" if value is None else line_of(str(value)[:SHOWN_CHARS_MAX], chars_max=SHOWN_CHARS_MAX)
