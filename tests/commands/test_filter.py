"""What `poller filter explain` says and with which exit status."""

import base64
import json

import pytest

from poller.commands.filter import explain_command
from poller.rules.filtering import Filter

KINESIS = json.dumps(
    {
        "kinesis": {
            "partitionKey": "device-7",
            "sequenceNumber": "1",
            "approximateArrivalTimestamp": 1767225600.125,
            "data": base64.b64encode(b'{"temp": 21}').decode(),
        },
        "eventSource": "aws:kinesis",
    }
)


def test_a_match_is_status_0() -> None:
    assert explain_command('{"a": [1]}', '{"a": 1}', None) == (0, "matches")


def test_each_failed_condition_is_named_with_the_values_it_saw() -> None:
    status, text = explain_command(
        '{"a": ["x", {"prefix": "é"}], "b": {"c": [1]}, "d": [2]}', '{"a": ["y", null], "d": 2}', None
    )
    assert status == 1
    assert text.splitlines() == [
        "does not match",
        "  a: none of the values satisfies it",
        '    condition: ["x", {"prefix": "é"}]',
        '    values: "y", null',
        "  b.c: there is no value at this path",
        "    condition: [1]",
    ]


def test_conditions_that_hold_in_different_array_elements_are_named_as_such() -> None:
    status, text = explain_command('{"l": {"a": [1], "b": [2]}}', '{"l": [{"a": 1}, {"b": 2}]}', None)
    assert status == 1
    assert "l.b: no single array element satisfies this together with the conditions on l.a" in text


def test_each_alternative_of_or_is_explained() -> None:
    status, text = explain_command('{"$or": [{"a": [1]}, {"b": [2]}]}', '{"a": 3}', None)
    assert status == 1
    assert "alternative 1 of 2:\n  a: none of the values satisfies it" in text
    assert "alternative 2 of 2:\n  b: there is no value at this path" in text


def test_an_invalid_pattern_is_status_2_with_the_reason() -> None:
    status, text = explain_command('{"a": []}', "{}", None)
    assert (status, text) == (
        2,
        "pattern: Invalid filter pattern definition.\nreason: Empty arrays are not allowed",
    )


@pytest.mark.parametrize(
    ("event", "source", "words"),
    [
        ("{", None, "event: not JSON"),
        ("{", "sqs", "event: not JSON"),
        ("[]", "sqs", "event: a record is a JSON object"),
        ("{}", "kinesis", "event: a Kinesis record has a member kinesis"),
        ("{}", "kafka", "source: 'kafka' is none of kinesis, dynamodb, sqs"),
    ],
)
def test_an_invalid_event_or_source_is_status_2(event: str, source: str | None, words: str) -> None:
    status, text = explain_command('{"a": [1]}', event, source)
    assert status == 2
    assert text.startswith(words)


@pytest.mark.parametrize("levels", [1_025, 5_000, 9_900])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"b":', "}")], ids=["lists", "objects"])
def test_an_event_may_nest_as_deeply_as_a_payload(levels: int, begin: str, end: str) -> None:
    event = f'{{"a":1,"x":{begin * levels}1{end * levels}}}'
    assert explain_command('{"a": [1]}', event, None) == (0, "matches")
    status, text = explain_command('{"x": [1], "a": [2]}', event, None)
    assert (status, text.splitlines()[0]) == (1, "does not match")


def test_an_event_that_nests_too_deeply_is_refused_with_a_remedy() -> None:
    event = "[" * 20_000 + "]" * 20_000
    assert explain_command('{"a": [1]}', event, None) == (
        2,
        "event: nested too deeply to be explained, about 10,000 levels; leave out what no condition reads, "
        "the answer stays the same",
    )


def deep_record(levels: int) -> str:
    """A message whose body nests so deeply."""
    return json.dumps({"body": f'{{"a":1,"x":{"[" * (levels - 1)}{"]" * (levels - 1)}}}', "y": 2})


@pytest.mark.parametrize("levels", [9_900, 9_999, 10_000, 10_001, 20_000])
@pytest.mark.parametrize(
    "pattern",
    [
        '{"body": {"a": [1]}}',
        '{"body": {"a": [2]}}',
        '{"body": {"a": [1]}, "y": [2]}',
        '{"body": {"a": [1]}, "y": [3]}',
        '{"body": [{"prefix": "{"}]}',
        '{"body": [{"prefix": "x"}]}',
        '{"y": [2]}',
        '{"y": [3]}',
        '{"$or": [{"y": [3]}, {"body": {"a": [1]}}]}',
    ],
)
def test_a_payload_of_any_depth_passes_if_it_passes_the_filter_of_a_mapping(
    pattern: str, levels: int
) -> None:
    record = deep_record(levels)
    filters = Filter.of([pattern], "sqs")
    assert filters is not None
    answer = filters.matches_sqs(json.loads(record))
    while not isinstance(answer, bool):
        try:
            next(answer)
        except StopIteration as ended:
            answer = bool(ended.value)
    assert explain_command(pattern, record, "sqs")[0] == (0 if answer else 1)


def test_a_deep_payload_that_does_not_pass_is_told_with_a_remedy() -> None:
    status, text = explain_command('{"body": {"a": [2]}}', deep_record(10_000), "sqs")
    assert status == 1
    assert text.endswith(
        "body: the payload is nested too deeply to tell which condition fails; leave out what no condition reads"
    )


def test_an_event_that_is_no_object_does_not_match() -> None:
    status, text = explain_command('{"a": [1]}', "[1]", None)
    assert status == 1
    assert "event: the event is not a JSON object" in text


def test_with_a_source_the_event_is_a_record_and_its_payload_is_decoded() -> None:
    assert (
        explain_command('{"data": {"temp": [21]}, "partitionKey": ["device-7"]}', KINESIS, "kinesis")[0] == 0
    )
    assert explain_command('{"body": {"a": [1]}}', '{"body": "{\\"a\\": 1}"}', "sqs")[0] == 0
    assert explain_command('{"eventName": ["INSERT"]}', '{"eventName": "INSERT"}', "dynamodb")[0] == 0


@pytest.mark.parametrize(
    ("pattern", "body", "words"),
    [
        ('{"body": ["a"]}', '{"a": 1}', "the payload is JSON and these conditions are for plain"),
        ('{"body": {"a": [1]}}', "text", "the payload is plain and these conditions are for JSON"),
    ],
)
def test_a_payload_of_the_other_kind_is_named_as_such(pattern: str, body: str, words: str) -> None:
    status, text = explain_command(pattern, json.dumps({"body": body}), "sqs")
    assert status == 1
    assert words in text


def test_long_values_are_shortened() -> None:
    _, text = explain_command('{"a": ["x"]}', json.dumps({"a": "y" * 10_000}), None)
    assert len(text) < 400
    assert text.endswith("…")


def test_half_a_surrogate_pair_can_be_printed() -> None:
    status, text = explain_command('{"a": ["\\ud83d"]}', '{"a": 1}', None)
    assert status == 1
    assert "\\ud83d" in text
    assert text.encode()


@pytest.mark.parametrize(
    "value", ['"\\ud800"', '"\\udc00 x"', "1e400", "9" * 5_000, "-0", "1e-999", '"\\u0000"']
)
@pytest.mark.parametrize("source", [None, "sqs"])
def test_an_event_may_have_whatever_a_payload_may_have(value: str, source: str | None) -> None:
    event = f'{{"a": {value}}}'
    pattern = '{"a": [{"exists": false}]}'
    if source:
        event, pattern = f'{{"x": {value}, "body": {json.dumps(event)}}}', f'{{"body": {pattern}}}'
    status, text = explain_command(pattern, event, source)
    assert status == 1
    text.encode()
    assert explain_command(pattern.replace("false", "true"), event, source) == (0, "matches")
