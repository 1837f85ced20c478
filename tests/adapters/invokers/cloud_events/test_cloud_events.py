"""Records as CloudEvents: attributes of each source, the three modes, and validity whatever keys and ids have in them."""

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, from_structured_event
from hypothesis import given
from hypothesis import strategies as st

from adapters.invokers.cloud_events.attributes import ATTRIBUTE_CHARS_MAX, cloud_event
from adapters.invokers.cloud_events.requests import Mode, Refused, Request, binary_headers, request_of
from poller.testing.invoker import ARN
from tests.adapters.invokers.cloud_events.plain_events import (
    FIFO,
    QUEUE,
    STREAM,
    TABLE,
    change,
    event,
    kinesis,
    message,
    parsed,
)
from tests.hostile_texts import HOSTILE

HEADER_BYTES_MAX = 8190
"""What aiohttp, as other servers, takes as a header."""
URI_REFERENCE = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]*:|(?![^/?]*:))(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-F]{2})*"
)
"""RFC 3986, as far as it concerns what has neither a fragment nor an address in brackets."""
MODES = list(Mode)


def sent(payload: bytes, mode: Mode) -> Request:
    """The request for a plain event."""
    found = request_of(payload, mode, function_arn=ARN)
    assert isinstance(found, Request)
    return found


def received(request: Request) -> list[BaseCloudEvent]:
    """The events of a request, as the specification's SDK reads them. It raises for one that is not valid."""
    kind = request.headers["Content-Type"]
    if kind == "application/cloudevents-batch+json":
        each = [json.dumps(one).encode() for one in json.loads(request.body)]
        return [from_structured_event(HTTPMessage({"Content-Type": kind}, one)) for one in each]
    read = from_structured_event if kind == "application/cloudevents+json" else from_binary_event
    return [read(HTTPMessage(dict(request.headers), request.body))]


def attributes(found: BaseCloudEvent) -> dict[str, Any]:
    """The attributes of an event, its time as text."""
    return {
        name: str(value) if name == "time" else value
        for name, value in found.get_attributes().items()
        if value is not None
    }


TABLE_OF_SOURCES: list[tuple[str, bytes, dict[str, str]]] = [
    (
        "a message of a standard queue",
        message("m-1", arn=QUEUE.removesuffix(".fifo")),
        {
            "id": "m-1",
            "source": QUEUE.removesuffix(".fifo"),
            "type": "com.amazon.sqs.message",
            "time": "2026-01-01 00:00:00.123000+00:00",
        },
    ),
    (
        "a message of a FIFO queue has its group as partition key",
        message("m-1", attributes=FIFO),
        {
            "id": "m-1",
            "source": QUEUE,
            "type": "com.amazon.sqs.message",
            "time": "2026-01-01 00:00:00.123000+00:00",
            "partitionkey": "customer 7",
        },
    ),
    (
        "a group of a standard queue is no partition key, since it orders nothing",
        message("m-1", attributes={"MessageGroupId": "tenant"}),
        {"id": "m-1", "source": QUEUE, "type": "com.amazon.sqs.message"},
    ),
    (
        "a Kinesis record",
        kinesis("495", key="customer 7"),
        {
            "id": "shardId-000000000000:495",
            "source": STREAM,
            "type": "com.amazon.kinesis.stream_record",
            "subject": "customer 7",
            "time": "2026-01-01 00:00:00.123000+00:00",
            "partitionkey": "customer 7",
        },
    ),
    (
        "a change of an item",
        change("c4ca"),
        {
            "id": "c4ca",
            "source": TABLE,
            "type": "com.amazon.dynamodb.stream_record",
            "subject": "pk,sk",
            "time": "2026-01-01 00:00:00+00:00",
            "dynamodboperation": "MODIFY",
        },
    ),
    (
        "a record of a plug-in's source, as far as it has the members",
        b'{"eventSource": "acme:outbox", "eventSourceARN": "arn:acme:x", "eventID": "7", "row": {}}',
        {"id": "7", "source": "arn:acme:x", "type": "poller.record"},
    ),
    (
        "a record with nothing",
        b"{}",
        {
            "id": "sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "source": ARN,
            "type": "poller.record",
        },
    ),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("record", "wanted"), [row[1:] for row in TABLE_OF_SOURCES], ids=[row[0] for row in TABLE_OF_SOURCES]
)
def test_a_record_of_each_source_in_each_mode(record: bytes, wanted: dict[str, str], mode: Mode) -> None:
    [found] = received(sent(event(record), mode))
    fixed = {"specversion": "1.0", "datacontenttype": "application/json"}
    # The SDK gives an event without a time the present one.
    have = cloud_event(record, function_arn=ARN).attributes
    assert {name: text for name, text in attributes(found).items() if name in have} == wanted | fixed
    assert found.get_data() == parsed(record)


def test_binary_mode_has_the_record_as_body_and_the_attributes_in_headers() -> None:
    record = kinesis(key='100 % "ü"')
    request = sent(event(record), Mode.BINARY)
    assert request.body == record
    assert request.headers == {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "shardId-000000000000:495",
        "ce-source": STREAM,
        "ce-type": "com.amazon.kinesis.stream_record",
        "ce-subject": "100%20%25%20%22%C3%BC%22",
        "ce-time": "2026-01-01T00:00:00.123Z",
        "ce-partitionkey": "100%20%25%20%22%C3%BC%22",
    }


def test_the_specifications_example_of_percent_encoding() -> None:
    assert binary_headers({"x": "Euro € 😀"}) == {"ce-x": "Euro%20%E2%82%AC%20%F0%9F%98%80"}


def test_structured_mode_has_everything_in_the_body() -> None:
    request = sent(event(message("m-1")), Mode.STRUCTURED)
    assert request.headers == {"Content-Type": "application/cloudevents+json"}
    found = json.loads(request.body)
    assert (found["id"], found["data"]["messageId"]) == ("m-1", "m-1")


def test_batched_mode_has_one_event_for_each_record_in_order() -> None:
    request = sent(event(message("m-1"), message("m-2"), message("m-3")), Mode.BATCHED)
    assert request.headers == {"Content-Type": "application/cloudevents-batch+json"}
    assert [each.get_id() for each in received(request)] == ["m-1", "m-2", "m-3"]


def test_no_records_are_an_empty_batch() -> None:
    assert sent(event(), Mode.BATCHED).body == b"[]"


@pytest.mark.parametrize("mode", [Mode.BINARY, Mode.STRUCTURED])
@pytest.mark.parametrize("count", [0, 2, 10])
def test_other_modes_refuse_a_batch_that_is_not_one_record(mode: Mode, count: int) -> None:
    found = request_of(event(*[message()] * count), mode, function_arn=ARN)
    assert found == Refused(
        f"cloud_events: {mode} sends one record in a request, and this batch has {count}; "
        "set BatchSize: 1 in the mapping, or cloud_events: batched"
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["x", "half \\ud800"])
def test_a_tumbling_window_is_refused_since_its_state_would_be_lost(mode: Mode, text: str) -> None:
    window = b'{"Records":[{"a":"%b"}],"window":{"start":"","end":""},"state":{}}' % text.encode()
    found = request_of(window, mode, function_arn=ARN)
    assert isinstance(found, Refused)
    assert "TumblingWindowInSeconds" in found.reason


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"Records": {}}',
        b'{"Records": ["\\ud800", 1e999]}',
        b'{"Records":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    ],
)
def test_an_event_that_has_no_records_is_refused(payload: bytes) -> None:
    found = request_of(payload, Mode.BATCHED, function_arn=ARN)
    assert isinstance(found, Refused)
    assert "remove cloud_events" in found.reason


@pytest.mark.parametrize("record", [b"7", b'"x"', b"null", b"[]", b'{"kinesis": 7}', b'{"attributes": "x"}'])
def test_a_record_of_any_form_is_a_valid_event(record: bytes) -> None:
    [found] = received(sent(event(record), Mode.STRUCTURED))
    assert found.get_id().startswith("sha256-")
    assert found.get_source() == ARN


def check_validity(record: bytes) -> None:
    """Asserts that a record is a valid event in every mode, with the record as its data, and that servers take its headers."""
    for mode in MODES:
        request = sent(event(record), mode)
        for name, value in request.headers.items():
            assert re.fullmatch(r"[!-~ ]+", value)
            assert len(name) + len(value) < HEADER_BYTES_MAX
        [found] = received(request)
        assert json.dumps(found.get_data()) == json.dumps(parsed(record))
    for name, text in cloud_event(record, function_arn=ARN).attributes.items():
        assert re.fullmatch("[a-z0-9]{1,20}", name)
        assert text
        assert len(text) <= ATTRIBUTE_CHARS_MAX or name == "source"
        assert not any(is_disallowed(ord(char)) for char in text)
        assert unquote(binary_headers({name: text}).get(f"ce-{name}", text)) == text
    assert URI_REFERENCE.fullmatch(cloud_event(record, function_arn=ARN).attributes["source"])


def is_disallowed(code: int) -> bool:
    """Whether an attribute may not have the character: controls, halves of surrogate pairs, and noncharacters."""
    control = code < 0x20 or 0x7F <= code < 0xA0
    return control or 0xD800 <= code < 0xE000 or 0xFDD0 <= code < 0xFDF0 or code & 0xFFFE == 0xFFFE


ANY_TEXT = st.text(st.characters(), max_size=20) | st.text(
    st.sampled_from('\ud800\udfff\uffff\x00\x85%" :é#[]')
)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_key_id_or_arn_leaves_the_event_valid(text: str) -> None:
    check_validity(kinesis(key=text))
    check_validity(message(text, attributes={**FIFO, "MessageGroupId": text, "SentTimestamp": text}))
    check_validity(change(text, keys={text: {"S": text}}))
    check_validity(message(arn=text))
    check_validity(message(arn=f"arn:{text}"))


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_any_key_id_and_arn_leave_the_event_valid(one: str, two: str, three: str) -> None:
    check_validity(kinesis(key=one, arn=two))
    check_validity(message(one, attributes={**FIFO, "MessageGroupId": two}, arn=three))
    check_validity(change(one, keys={two: {"S": one}, three: {}}))


@given(ANY_TEXT, ANY_TEXT)
def test_different_ids_stay_different(one: str, two: str) -> None:
    ids = [cloud_event(message(each), function_arn=ARN).event_id for each in (one or "-", two or "-")]
    assert (ids[0] == ids[1]) == ((one or "-") == (two or "-"))


def test_a_character_that_is_not_allowed_is_replaced_in_keys_but_not_in_ids() -> None:
    found = cloud_event(kinesis(key="a\nb"), function_arn=ARN).attributes
    assert found["subject"] == found["partitionkey"] == "a\ufffdb"
    assert cloud_event(message("a\nb"), function_arn=ARN).event_id == (
        "sha256-7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78"
    )
