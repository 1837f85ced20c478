"""A notice says again which records it is about; what is no notice is refused with the reason."""

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Condition, Notice, with_member, with_payload
from poller.domain.records import Epoch, MappingId, Record, ShardId
from poller.rules.operations.redriving import NoticeRefused
from poller.rules.streams.attempts import BatchPart, Discard
from poller.rules.streams.batching import Entry
from poller.rules.streams.failure_document import Context, notice
from poller.rules.streams.lanes import lane_of_record
from poller.rules.streams.operations.notice_reading import (
    LINE_CHARS_MAX,
    PayloadObject,
    StreamNotice,
    chosen,
    described,
    identifiers,
    payload_of,
    read_notice,
)
from tests.hostile_texts import HOSTILE, fit
from tests.rules.build import BASE, dynamo, entry, kinesis

SHARD = ShardId("shardId-000000000000")
TEXTS = st.text(st.characters(exclude_categories=()))
"""Also with lone surrogates."""
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:reader"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
PAYLOAD = b'{"Records":[{"kinesis":{"sequenceNumber":"2"}},{"kinesis":{"sequenceNumber":"9"}}]}'


def _notice(*batch: Entry, kind: str = "KinesisBatchInfo") -> Notice:
    discard = Discard(BatchPart((), "id-1"), batch, Condition.RETRIES, 2, "request", None)
    context = Context(MappingId("m"), SHARD, STREAM, FUNCTION, kind)
    return notice(discard, context, payload=PAYLOAD, now=Epoch(BASE + 9.5), notice_id="n")


TWO = _notice(entry(2, arrived=BASE + 0.125), entry(9, arrived=BASE + 1))


def _read(document: bytes) -> StreamNotice:
    return read_notice(document, source_arn=STREAM, function_arn=FUNCTION)


def test_a_kinesis_notice_names_its_records() -> None:
    assert _read(TWO.document) == StreamNotice(
        shard=SHARD, first="2", last="9", records=2, since=Epoch(BASE + 0.125)
    )


def test_a_dynamodb_notice_names_its_records_and_a_moment_that_is_not_too_late() -> None:
    found = _read(_notice(Entry(0, dynamo(5, arrived=BASE + 0.9), 2), kind="DDBStreamBatchInfo").document)
    assert (found.first, found.last, found.records, found.since) == ("5", "5", 1, BASE)


def test_the_event_is_in_the_notice_or_in_an_object_that_it_names() -> None:
    place = {"bucket": "events", "key": "a/b", "sizeBytes": 4}
    assert _read(with_payload(TWO)).payload == PAYLOAD
    assert _read(with_member(TWO, "payloadObject", place)).stored == PayloadObject("events", "a/b")
    omitted = _read(with_member(TWO, "payloadOmitted", {"sizeBytes": 4}))
    assert (omitted.payload, omitted.stored) == (None, None)
    assert payload_of(with_payload(TWO)) == PAYLOAD


def test_a_notice_that_came_through_a_topic_is_unwrapped() -> None:
    message = json.dumps({"Type": "Notification", "TopicArn": "t", "Message": with_payload(TWO).decode()})
    assert _read(message.encode()).payload == PAYLOAD


def test_an_event_names_its_records() -> None:
    assert identifiers(PAYLOAD) == ["2", "9"]
    assert identifiers(b'{"Records":[{"dynamodb":{"SequenceNumber":"7"}}]}') == ["7"]


@pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_event_with_any_key_is_read_from_a_notice_and_from_an_object(key: str) -> None:
    event = {"Records": [{"kinesis": {"sequenceNumber": "2", "partitionKey": key}}]}
    payload = json.dumps(event).encode()
    found = replace(TWO, payload=payload)
    assert _read(with_payload(found)).payload == payload_of(with_payload(found)) == payload
    assert identifiers(payload) == ["2"]
    written = {**json.loads(TWO.document), "payload": event}
    again = _read(json.dumps(written).encode()).payload
    assert again is not None
    assert json.loads(again) == event


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
def test_an_event_with_a_number_that_is_none_is_refused(number: str) -> None:
    document = with_member(TWO, "payload", {"Records": 0}).replace(
        b'"Records":0', b'"Records":' + number.encode()
    )
    with pytest.raises(NoticeRefused):
        _read(document)


def test_what_is_nested_too_deep_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for document in (deep, b'{"payload":' + deep + b"}"):
        with pytest.raises(NoticeRefused):
            payload_of(document)


@pytest.mark.parametrize(
    "event", [b"[]", b"{}", b'{"Records":[]}', b'{"Records":[{}]}', b'{"Records":{"a":1}}', b"x"]
)
def test_what_is_no_event_of_a_stream_is_refused(event: bytes) -> None:
    with pytest.raises(NoticeRefused):
        identifiers(event)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another stream": ({"streamArn": STREAM + "2"}, "another stream"),
    "no stream": ({"streamArn": None}, "another stream: missing"),
    "no shard": ({"shardId": ""}, "its shardId is"),
    "a sequence number that is a number": ({"startSequenceNumber": 2}, "its startSequenceNumber is 2"),
    "a sequence number of other digits": ({"endSequenceNumber": "١"}, "its endSequenceNumber"),
    "an endless sequence number": ({"endSequenceNumber": "9" * 10_000}, "its endSequenceNumber"),
    "no size": ({"batchSize": None}, "its batchSize is missing"),
    "a size of nothing": ({"batchSize": 0}, "its batchSize is 0"),
    "a size that is true": ({"batchSize": True}, "its batchSize is True"),
    "no time": ({"approximateArrivalOfFirstRecord": "soon"}, "its approximateArrivalOfFirstRecord is soon"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_what_a_notice_must_say_is_named_when_it_is_missing(change: dict[str, Any], reason: str) -> None:
    document = orjson.loads(TWO.document)
    document["KinesisBatchInfo"] |= change
    with pytest.raises(NoticeRefused, match=reason) as refused:
        _read(orjson.dumps(document))
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_are_refused_in_one_clean_line(text: str) -> None:
    document = orjson.loads(TWO.document)
    for change in ({"streamArn": text}, {"startSequenceNumber": text}, {"shardId": text}):
        changed = {**document, "KinesisBatchInfo": {**document["KinesisBatchInfo"], **change}}
        with pytest.raises(NoticeRefused) as refused:
            _read(json.dumps(changed).encode())
        assert fit(str(refused.value))


def test_a_notice_of_another_function_is_refused() -> None:
    with pytest.raises(NoticeRefused, match=r"another function: .*reader"):
        read_notice(TWO.document, source_arn=STREAM, function_arn=FUNCTION + "2")


def test_the_last_call_of_a_window_is_refused_since_it_has_no_records() -> None:
    with pytest.raises(NoticeRefused, match="last call of a window"):
        _read(_notice().document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS,
        lambda each: st.lists(each) | st.dictionaries(TEXTS, each),
    )
)
def test_any_json_is_refused_or_read(value: Any) -> None:
    with pytest.raises(NoticeRefused):
        _read(json.dumps(value).encode())


def _nested(depth: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * depth + "1" + closing * depth


NOTICE_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([text for text in HOSTILE.values() if len(text) < 3_000])
    | st.sampled_from(["5", "12", "2026-01-31T08:00:00Z", SHARD, STREAM, FUNCTION, PAYLOAD.decode()])
    | st.dictionaries(st.sampled_from(["bucket", "key", "functionArn", "Records"]), st.text(max_size=3_000))
)
MEMBERS = ("requestContext", "payload", "payloadObject", "Type", "Message", "version", "DDBStreamBatchInfo")


@given(
    st.dictionaries(st.sampled_from(MEMBERS), NOTICE_VALUES, max_size=2),
    st.dictionaries(
        st.sampled_from([*orjson.loads(TWO.document)["KinesisBatchInfo"]]), NOTICE_VALUES, max_size=2
    ),
    st.sets(st.sampled_from(MEMBERS)),
)
def test_a_notice_with_odd_members_is_refused_or_read_in_one_clean_line(
    members: dict[str, Any], info: dict[str, Any], missing: set[str]
) -> None:
    document = orjson.loads(TWO.document)
    changed = {**document, **members, "KinesisBatchInfo": {**document["KinesisBatchInfo"], **info}}
    written = json.dumps({name: value for name, value in changed.items() if name not in missing}).encode()
    try:
        found = _read(written)
        line = described(found)
        if found.payload is not None:
            identifiers(found.payload)
    except NoticeRefused as refused:
        line = str(refused)
    assert fit(line)
    assert len(line) <= LINE_CHARS_MAX


@pytest.mark.parametrize("depth", [200, 300, 900, 5_000])
@pytest.mark.parametrize(
    "member", ["payload", "payloadObject", "requestContext", "KinesisBatchInfo", "DDBStreamBatchInfo"]
)
def test_what_nests_deep_is_refused_or_left_out(member: str, depth: int) -> None:
    document = orjson.loads(TWO.document)
    document.pop(member, None)
    text = f'{orjson.dumps(document).decode()[:-1]},"{member}":{_nested(depth)}}}'
    try:
        line = described(_read(text.encode()))
    except NoticeRefused as refused:
        line = str(refused)
    assert fit(line)
    assert len(line) <= LINE_CHARS_MAX


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(document: bytes) -> None:
    with pytest.raises(NoticeRefused):
        _read(document)


def _of(first: int, last: int, records: int) -> StreamNotice:
    return StreamNotice(shard=SHARD, first=str(first), last=str(last), records=records, since=Epoch(BASE))


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40), st.integers(1, 4), st.data())
def test_the_batch_of_a_lane_is_found_among_the_records_of_its_range(
    keys: list[str], lanes: int, data: st.DataObject
) -> None:
    stream: list[Record] = [kinesis(number, key=key) for number, key in enumerate(keys, 1)]
    lane = lane_of_record(data.draw(st.sampled_from(stream)), lanes)
    own = [each for each in stream if lane_of_record(each, lanes) == lane]
    start = data.draw(st.integers(0, len(own) - 1))
    batch = own[start : data.draw(st.integers(start + 1, len(own)))]
    wanted = _of(int(batch[0].sequence_number), int(batch[-1].sequence_number), len(batch))
    assert list(chosen(stream, wanted, lanes=lanes)) == batch


def test_a_batch_of_which_the_stream_has_lost_records_is_refused() -> None:
    with pytest.raises(NoticeRefused, match="does not have its first record"):
        chosen([kinesis(3), kinesis(8)], _of(1, 3, 3), lanes=1)
    with pytest.raises(NoticeRefused, match="has 2 of its 3 records"):
        chosen([kinesis(1), kinesis(3), kinesis(8)], _of(1, 3, 3), lanes=1)
    with pytest.raises(NoticeRefused, match="does not have its last record"):
        chosen([kinesis(1), kinesis(2)], _of(1, 3, 2), lanes=1)


def test_a_range_with_more_records_than_the_batch_is_refused() -> None:
    with pytest.raises(NoticeRefused, match="has 3 records or more and the batch had 2"):
        chosen([kinesis(1), kinesis(2), kinesis(3)], _of(1, 3, 2), lanes=1)


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40), st.integers(2, 4), st.data())
def test_records_of_other_lanes_do_not_stand_for_those_that_the_stream_has_lost(
    keys: list[str], lanes: int, data: st.DataObject
) -> None:
    """The first records of a batch may be removed while the range still has as many others."""
    stream: list[Record] = [kinesis(number, key=key) for number, key in enumerate(keys, 1)]
    lane = lane_of_record(stream[0], lanes)
    own = [each for each in stream if lane_of_record(each, lanes) == lane]
    batch = own[: data.draw(st.integers(1, len(own)))]
    last = int(batch[-1].sequence_number)
    lost = max(1, last - len(batch)) if data.draw(st.booleans()) else data.draw(st.integers(1, last))
    with pytest.raises(NoticeRefused):
        chosen(stream[lost:], _of(1, last, len(batch)), lanes=lanes)
