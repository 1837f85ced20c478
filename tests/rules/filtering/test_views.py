"""What patterns see of each source's records, and how text and JSON are matched (aws-behaviour#text-and-json-payloads)."""

import base64
import json
from typing import cast

import pytest

from poller.rules.filtering import Filter, InvalidPattern, Source, compile_pattern, explain_record
from tests.bounds.slices import answered

ARRIVED = 1767225600.125


def kinesis(patterns: list[str], raw: bytes) -> bool:
    compiled = Filter.of(patterns, "kinesis")
    assert compiled is not None
    return answered(compiled.matches_kinesis("device-7", "49650", ARRIVED, base64.b64encode(raw).decode()))


def sqs(patterns: list[str], body: str) -> bool:
    compiled = Filter.of(patterns, "sqs")
    assert compiled is not None
    return answered(compiled.matches_sqs(message(body)))


def dynamodb(patterns: list[str], record: dict[str, object]) -> bool:
    compiled = Filter.of(patterns, "dynamodb")
    assert compiled is not None
    return answered(compiled.matches_dynamodb(record))


def message(body: object) -> dict[str, object]:
    return {
        "messageId": "m-1",
        "receiptHandle": "h",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", "SenderId": "AID"},
        "messageAttributes": {"kind": {"stringValue": "alarm", "dataType": "String"}},
        "md5OfBody": "x",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:111122223333:orders",
        "awsRegion": "eu-west-1",
    }


CHANGE: dict[str, object] = {
    "eventID": "5f0c",
    "eventName": "INSERT",
    "eventSource": "aws:dynamodb",
    "dynamodb": {
        "ApproximateCreationDateTime": 1767225600.0,
        "Keys": {"pk": {"S": "order-1"}},
        "NewImage": {"pk": {"S": "order-1"}, "qty": {"N": "3"}, "open": {"BOOL": True}},
    },
}


@pytest.mark.parametrize(
    ("payload", "pattern", "expected"),
    [
        ("plain text", '["plain text"]', True),
        ("plain text", '["other"]', False),
        ("plain text", '[{"prefix": "plain"}]', True),
        ("plain text", '[{"exists": true}]', True),
        ("", '[""]', True),
        ("plain text", '{"a": [1]}', False),
        ("plain text", '{"a": [{"exists": false}]}', False),
        ('{"a": 1}', '["plain text"]', False),
        ('{"a": 1}', '[{"exists": false}]', False),
        ('"plain text"', '["plain text"]', False),
        ("12", '["12"]', False),
        ("12", "[12]", False),
        ('["a"]', '["a"]', False),
        ('{"a": 1}', '{"a": [1]}', True),
        ('{"a": 1}', '{"a": [2]}', False),
        ('{"a": 1}', '{"b": [{"exists": false}]}', True),
        ('[{"a": 1}]', '{"a": [1]}', True),
        ("12", '{"a": [1]}', False),
        ('{"a": NaN}', '{"a": [1]}', False),
        ('{"a": 1', '{"a": [1]}', False),
        ('{"a": 0, "a": 1}', '{"a": [1]}', True),
        ('{"a": 1, "b": "\\ud83d"}', '{"a": [1]}', True),
        ('{"a": 1, "b": 1e400}', '{"a": [1]}', True),
        ('{"a": 1, "b": 1e400}', '{"b": [{"numeric": [">", 1]}]}', True),
        ("[" * 100_000, '{"a": [{"exists": false}]}', False),
        ("[" * 100_000, '[{"prefix": "[["}]', True),
    ],
)
def test_text_is_held_against_plain_patterns_and_json_against_json_patterns(
    payload: str, pattern: str, expected: bool
) -> None:
    assert kinesis([f'{{"data": {pattern}}}'], payload.encode()) is expected
    assert sqs([f'{{"body": {pattern}}}'], payload) is expected


@pytest.mark.parametrize("pattern", ['["a"]', '[{"anything-but": "a"}]', '{"a": [{"exists": false}]}'])
def test_bytes_that_are_no_text_are_dropped_under_a_payload_pattern(pattern: str) -> None:
    assert not kinesis([f'{{"data": {pattern}}}'], b"\xff\xfe")


def test_data_that_is_not_base64_is_dropped_under_a_payload_pattern() -> None:
    compiled = Filter.of(['{"data": [{"exists": true}]}'], "kinesis")
    assert compiled is not None
    assert not compiled.matches_kinesis("p", "1", ARRIVED, "no base64!")
    assert not compiled.matches_kinesis("p", "1", ARRIVED, "é")


@pytest.mark.parametrize("raw", [b"plain", b'{"a": 1}', b"\xff\xfe", b""])
def test_without_a_payload_pattern_only_the_other_keys_decide(raw: bytes) -> None:
    assert kinesis(['{"partitionKey": ["device-7"]}'], raw)
    assert not kinesis(['{"partitionKey": ["device-8"]}'], raw)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{"partitionKey": [{"prefix": "device"}]}', True),
        ('{"sequenceNumber": ["49650"]}', True),
        ('{"approximateArrivalTimestamp": [{"numeric": [">=", 1767225600, "<", 1767225601]}]}', True),
        ('{"kinesisSchemaVersion": ["1.0"]}', True),
        ('{"kinesis": {"partitionKey": ["device-7"]}}', False),
        ('{"eventSource": ["aws:kinesis"]}', False),
        ('{"data": {"temp": [{"numeric": [">", 20]}]}, "partitionKey": ["device-7"]}', True),
        ('{"data": {"temp": [{"numeric": [">", 20]}]}, "partitionKey": ["device-8"]}', False),
        ('{"data.temp": [21]}', True),
    ],
)
def test_kinesis_patterns_see_the_record_and_not_the_event(pattern: str, expected: bool) -> None:
    assert kinesis([pattern], b'{"temp": 21}') is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{"eventName": ["INSERT", "MODIFY"]}', True),
        ('{"eventName": ["REMOVE"]}', False),
        ('{"eventSource": ["aws:dynamodb"]}', True),
        ('{"dynamodb": {"NewImage": {"pk": {"S": ["order-1"]}}}}', True),
        ('{"dynamodb": {"NewImage": {"pk": ["order-1"]}}}', False),
        ('{"dynamodb": {"NewImage": {"qty": {"N": [{"numeric": [">", 1]}]}}}}', False),
        ('{"dynamodb": {"NewImage": {"qty": {"N": ["3"]}}}}', True),
        ('{"dynamodb": {"NewImage": {"qty": {"N": [{"anything-but": "4"}]}}}}', True),
        ('{"dynamodb": {"NewImage": {"open": {"BOOL": [true]}}}}', True),
        ('{"dynamodb": {"NewImage": {"pk": [{"exists": true}]}}}', False),
        ('{"dynamodb": {"NewImage": {"pk": [{"exists": false}]}}}', True),
        ('{"dynamodb": {"OldImage": {"pk": {"S": [{"exists": false}]}}}}', True),
        ('{"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 1767225599]}]}}', True),
        ('{"dynamodb": [{"exists": false}]}', False),
    ],
)
def test_dynamodb_patterns_see_the_whole_record_with_type_wrappers(pattern: str, expected: bool) -> None:
    assert dynamodb([pattern], CHANGE) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{"messageId": ["m-1"]}', True),
        ('{"attributes": {"ApproximateReceiveCount": ["1"]}}', True),
        ('{"messageAttributes": {"kind": {"stringValue": ["alarm"]}}}', True),
        ('{"eventSourceARN": [{"suffix": ":orders"}]}', True),
        ('{"body": {"order": {"total": [{"numeric": [">", 100]}]}}}', True),
        ('{"body": {"note": {"a": [1]}}}', False),
    ],
)
def test_sqs_patterns_see_the_record_with_its_body_parsed(pattern: str, expected: bool) -> None:
    body = json.dumps({"order": {"total": 120}, "note": '{"a": 1}'})
    assert sqs([pattern], body) is expected


def test_filters_are_alternatives_each_with_its_own_kind_of_payload() -> None:
    patterns = ['{"body": ["ping"]}', '{"body": {"kind": ["alarm"]}}', '{"messageId": ["m-2"]}']
    assert sqs(patterns, "ping")
    assert sqs(patterns, '{"kind": "alarm"}')
    assert not sqs(patterns, "pong")
    assert not sqs(patterns, '{"kind": "other"}')
    assert sqs([*patterns, '{"messageId": ["m-1"]}'], "pong")


def test_the_alternatives_of_or_are_held_against_the_payload_one_by_one() -> None:
    pattern = '{"$or": [{"data": {"a": [1]}}, {"data": ["ping"]}, {"partitionKey": ["x"]}]}'
    assert kinesis([pattern], b"ping")
    assert kinesis([pattern], b'{"a": 1}')
    assert not kinesis([pattern], b"pong")


def test_no_payload_is_both_text_and_json() -> None:
    pattern = '{"data": [{"exists": false}], "data.a": [1]}'
    assert not kinesis([pattern], b'{"a": 1}')
    assert not kinesis([pattern], b"text")


class Untouchable:
    """Stands for a payload; whoever decodes it meets a TypeError or an AttributeError."""


def test_a_payload_that_no_pattern_looks_at_is_not_decoded() -> None:
    key = Filter.of(['{"partitionKey": ["a"]}'], "kinesis")
    assert key is not None
    assert not key.looks_at_payload
    data = cast("str", Untouchable())
    assert key.matches_kinesis("a", "1", ARRIVED, data)
    assert not key.matches_kinesis("b", "1", ARRIVED, data)


def test_a_payload_is_not_decoded_when_another_filter_already_matches() -> None:
    either = Filter.of(['{"data": {"a": [1]}}', '{"partitionKey": ["a"]}'], "kinesis")
    assert either is not None
    assert either.looks_at_payload
    assert either.matches_kinesis("a", "1", ARRIVED, cast("str", Untouchable()))


def test_the_body_of_the_record_stays_the_text_it_is() -> None:
    record = message('{"a": 1}')
    compiled = Filter.of(['{"body": {"a": [1]}}'], "sqs")
    assert compiled is not None
    assert compiled.matches_sqs(record)
    assert record["body"] == '{"a": 1}'


@pytest.mark.parametrize("source", ["kinesis", "dynamodb", "sqs"])
def test_no_patterns_are_no_filter(source: Source) -> None:
    assert Filter.of([], source) is None


def test_one_invalid_pattern_makes_the_filter_invalid() -> None:
    with pytest.raises(InvalidPattern):
        Filter.of(['{"a": [1]}', '{"a": []}'], "sqs")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{"partitionKey": [null]}', True),
        ('{"partitionKey": [{"exists": true}]}', True),
        ('{"partitionKey": [{"exists": false}]}', False),
        ('{"partitionKey": [{"prefix": ""}]}', False),
        ('{"partitionKey": ["null"]}', False),
        ('{"partitionKey": ["", null]}', True),
    ],
)
def test_a_pattern_sees_null_where_a_record_has_no_partition_key(pattern: str, expected: bool) -> None:
    criteria = Filter.of([pattern], "kinesis")
    assert criteria is not None
    assert criteria.matches_kinesis(None, "1", 1.5, "") == expected
    record: dict[str, object] = {
        "kinesis": {
            "partitionKey": None,
            "sequenceNumber": "1",
            "approximateArrivalTimestamp": 1.5,
            "data": "",
        }
    }
    assert explain_record(compile_pattern(pattern), "kinesis", record).matched == expected
