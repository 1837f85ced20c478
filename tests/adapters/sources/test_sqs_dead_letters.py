"""The copy of a message for the dead-letter queue is the message as it came, or there is none."""

import json
from typing import Any

import pytest
from msgspec import structs

from adapters.sources.sqs_answers import dead_letter_arn
from adapters.sources.sqs_dead_letters import copy_of, send_copy
from poller.domain.errors import RecordUnreadable
from poller.domain.records import Message, Monotonic, QueueFacts
from tests.adapters.sources.queue_api import QueueApi
from tests.simulation.services.queues import FakeQueue
from tests.virtual import run_virtual

PLAIN = Message("id-1", "r", "hello €", {}, {}, None, Monotonic(0.0))
DEAD = "arn:aws:sqs:eu-west-1:111122223333:orders-dead"


def attribute(**members: Any) -> dict[str, Any]:
    return {"stringListValues": [], "binaryListValues": [], **members}


def test_a_copy_has_body_attributes_group_and_trace() -> None:
    message = structs.replace(
        PLAIN,
        attributes={
            "MessageGroupId": "g",
            "AWSTraceHeader": "Root=1",
            "SenderId": "x",
            "MessageDeduplicationId": "d",
        },
        message_attributes={
            "text": attribute(stringValue="", dataType="String.x"),
            "bytes": attribute(binaryValue="AP8=", dataType="Binary"),
        },
    )
    expected = {
        "MessageBody": "hello €",
        "MessageAttributes": {
            "text": {"DataType": "String.x", "StringValue": ""},
            "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        },
        "MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}},
        "MessageGroupId": "g",
    }
    assert copy_of(message, fifo=False) == expected
    assert copy_of(message, fifo=True) == expected | {"MessageDeduplicationId": "id-1"}
    assert copy_of(PLAIN, fifo=False) == {"MessageBody": "hello €"}


@pytest.mark.parametrize(
    ("changes", "fifo", "reason"),
    [
        ({"body": None}, False, "no body"),
        ({"unreadable": "Body is no text"}, False, "Body is no text"),
        ({"message_attributes": {"a": attribute(dataType="String")}}, False, "attribute a"),
        ({"message_attributes": {"a": attribute(stringValue="x", dataType=None)}}, False, "attribute a"),
        ({"message_attributes": {"a": attribute(binaryValue="?", dataType="Binary")}}, False, "not base64"),
        ({}, True, "no MessageGroupId"),
    ],
)
def test_a_message_that_cannot_be_sent_as_it_is_is_not_sent(
    changes: dict[str, Any], reason: str, *, fifo: bool
) -> None:
    with pytest.raises(RecordUnreadable, match=reason):
        copy_of(structs.replace(PLAIN, **changes), fifo=fifo)


@pytest.mark.parametrize(
    ("policy", "arn"),
    [
        (json.dumps({"deadLetterTargetArn": DEAD, "maxReceiveCount": 3}), DEAD),
        (json.dumps({"deadLetterTargetArn": f"{DEAD}.fifo"}), f"{DEAD}.fifo"),
        (json.dumps({"deadLetterTargetArn": f"{DEAD}/../other"}), None),
        (json.dumps({"deadLetterTargetArn": [DEAD]}), None),
        (json.dumps({"deadLetterTargetArn": None}), None),
        (json.dumps([DEAD]), None),
        ("{", None),
        ("[" * 100_000, None),
        (None, None),
        ("", None),
    ],
)
def test_a_policy_that_cannot_be_read_names_no_queue(policy: str | None, arn: str | None) -> None:
    assert dead_letter_arn(policy) == arn


def test_a_copy_goes_to_the_queue_of_that_name_in_the_same_account() -> None:
    api = QueueApi(FakeQueue(QueueFacts(30, False)))
    run_virtual(send_copy(api, PLAIN, queue_url="https://sqs/111122223333/orders", dead_letters=DEAD))
    assert [each["QueueUrl"] for each in api.sent] == ["https://sqs/111122223333/orders-dead"]
