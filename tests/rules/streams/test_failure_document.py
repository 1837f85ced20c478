"""Documents for on-failure destinations are AWS's own (aws-behaviour#failure-document)."""

import json

from poller.domain.invocations import Condition, object_key, with_payload
from poller.domain.records import Epoch, MappingId, ShardId
from poller.rules.events import WindowFacts
from poller.rules.responses import Response
from poller.rules.streams.attempts import BatchPart, Discard
from poller.rules.streams.batching import Entry
from poller.rules.streams.failure_document import Context, milliseconds, notice, seconds
from tests.rules.build import dynamo, entries, entry

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
SHARD = ShardId("shardId-000000000000")
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:reader"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
KINESIS = Context(MAPPING, SHARD, STREAM, FUNCTION, "KinesisBatchInfo")
NOW = Epoch(1_767_225_609.314)
PART = BatchPart((), "id-1")
REQUEST = "c9b8fa9f-5a7f-4e0c-af9c-0c604cde93a5"


def _discard(condition: Condition = Condition.RETRIES, response: Response | None = None) -> Discard:
    batch = (
        entry(2, arrived=1_767_225_600.125),
        entry(9, arrived=1_767_225_600.5),
        entry(18, arrived=1_767_225_601.004),
    )
    return Discard(PART, batch, condition, 2, REQUEST, response)


def _document(discard: Discard, context: Context = KINESIS, window: WindowFacts | None = None) -> str:
    made = notice(discard, context, payload=b"{}", now=NOW, notice_id="n", window=window)
    return made.document.decode()


def test_a_kinesis_document_is_aws_own_bytes() -> None:
    assert _document(_discard(response=Response("$LATEST", "Unhandled"))) == (
        '{"requestContext":{"requestId":"c9b8fa9f-5a7f-4e0c-af9c-0c604cde93a5","functionArn":'
        '"arn:aws:lambda:eu-west-1:111122223333:function:reader","condition":"RetryAttemptsExhausted",'
        '"approximateInvokeCount":2},"responseContext":{"statusCode":200,"executedVersion":"$LATEST",'
        '"functionError":"Unhandled"},"version":"1.0","timestamp":"2026-01-01T00:00:09.314Z","KinesisBatchInfo":'
        '{"shardId":"shardId-000000000000","startSequenceNumber":"2","endSequenceNumber":"18",'
        '"approximateArrivalOfFirstRecord":"2026-01-01T00:00:00.125Z","approximateArrivalOfLastRecord":'
        '"2026-01-01T00:00:01.004Z","batchSize":3,"streamArn":'
        '"arn:aws:kinesis:eu-west-1:111122223333:stream/readings"}}'
    )


def test_a_rejected_report_has_a_null_function_error() -> None:
    document = json.loads(_document(_discard(response=Response("1", None))))
    assert document["responseContext"] == {"statusCode": 200, "executedVersion": "1", "functionError": None}


def test_without_a_call_the_whole_response_context_is_missing() -> None:
    document = json.loads(_document(_discard(Condition.AGE)))
    assert "responseContext" not in document
    assert document["requestContext"]["condition"] == "RecordAgeExceeded"
    assert document["requestContext"]["requestId"] == REQUEST


def test_dynamodb_times_are_whole_seconds() -> None:
    batch = (Entry(0, dynamo(5, arrived=1_767_225_600.0), 2),)
    context = Context(MAPPING, SHARD, "arn:table", FUNCTION, "DDBStreamBatchInfo")
    document = json.loads(_document(Discard(PART, batch, Condition.RETRIES, 1, REQUEST, None), context))
    info = document["DDBStreamBatchInfo"]
    assert info["approximateArrivalOfFirstRecord"] == "2026-01-01T00:00:00Z"
    assert document["timestamp"] == "2026-01-01T00:00:09.314Z"


def test_a_failed_window_reports_its_window_last() -> None:
    window = WindowFacts("a", "b", b"{}", final=True, terminated_early=False)
    discard = Discard(PART, (), Condition.RETRIES, 1, REQUEST, None)
    document = json.loads(_document(discard, window=window))
    assert list(document)[-1] == "timeWindowInfo"
    assert document["timeWindowInfo"] == {
        "window": {"start": "a", "end": "b"},
        "isFinalInvokeForWindow": True,
        "isWindowTerminatedEarly": False,
    }
    assert document["KinesisBatchInfo"] == {"shardId": SHARD, "streamArn": STREAM}


def test_s3_gets_the_event_as_a_string_between_version_and_timestamp() -> None:
    payload = b'{"Records":[{"a":"\\"x\\""}]}'
    made = notice(_discard(), KINESIS, payload=payload, now=NOW, notice_id="n")
    document = json.loads(with_payload(made))
    assert list(document) == ["requestContext", "version", "payload", "timestamp", "KinesisBatchInfo"]
    assert document["payload"] == payload.decode()


def test_the_s3_key_is_by_mapping_shard_and_day() -> None:
    made = notice(_discard(), KINESIS, payload=b"{}", now=NOW, notice_id="1234")
    assert object_key(made) == (
        "aws/lambda/0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11/shardId-000000000000/2026/01/01/"
        "2026-01-01T00.00.09-1234"
    )


def test_times_round_to_the_nearest_millisecond_and_may_carry() -> None:
    assert milliseconds(Epoch(1_767_225_599.9996)) == "2026-01-01T00:00:00.000Z"
    assert seconds(Epoch(1_767_225_599.0)) == "2025-12-31T23:59:59Z"


def test_an_unused_batch_of_one_names_itself_twice() -> None:
    document = json.loads(_document(Discard(PART, entries(7), Condition.RETRIES, 1, REQUEST, None)))
    info = document["KinesisBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == ("7", "7", 1)
