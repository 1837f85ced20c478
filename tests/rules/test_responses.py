"""Answers of functions are read by AWS's table (aws-behaviour#answers)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import (
    Ended,
    FunctionError,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.rules.responses import (
    ERROR_CHARACTERS_MAX,
    Accepted,
    Deferred,
    Partial,
    Rejected,
    Response,
    ResponseReading,
    oversized,
    parse,
)

IDS = ["101", "102", "103"]
STREAM = ResponseReading(report_failures=True)
QUEUE = ResponseReading(report_failures=True, ignore_empty_items=True)
OK = Response("$LATEST", None)


def _report(*items: object) -> bytes:
    return json.dumps({"batchItemFailures": list(items)}).encode()


@pytest.mark.parametrize("reading", [STREAM, QUEUE], ids=["streams", "queues"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b'""',
        b"[]",
        b"{}",
        b'{"batchItemFailures":[]}',
        b'{"batchItemFailures":null}',
        b'{"ok":1}',
    ],
)
def test_an_answer_without_failures_accepts_the_batch(reading: ResponseReading, answer: bytes) -> None:
    assert parse(Succeeded(answer), IDS, reading) == Accepted()


@pytest.mark.parametrize("reading", [STREAM, QUEUE], ids=["streams", "queues"])
@pytest.mark.parametrize(
    "answer",
    [
        _report({"itemIdentifier": 123}),
        _report({"itemIdentifier": ""}),
        _report({"itemIdentifier": None}),
        _report({"foo": 123}),
        _report({"foo": None}),
        _report({"itemIdentifier": "999"}),
        _report({"itemIdentifier": "102"}, {"itemIdentifier": "999"}),
        _report("102"),
        _report(None),
        _report(["102"]),
        b'{"batchItemFailures":"102"}',
        b'{"batchItemFailures":{"itemIdentifier":"102"}}',
        b'{"batchItemFailures":5}',
        b"not json",
        b'{"batchItemFailures":[',
        b'"done"',
        b"17",
        b"true",
        b"[1]",
        b"\xff\xfe",
    ],
)
def test_a_malformed_report_fails_the_whole_batch(reading: ResponseReading, answer: bytes) -> None:
    verdict = parse(Succeeded(answer), IDS, reading)
    assert isinstance(verdict, Rejected)
    assert verdict.ended is Ended.REJECTED
    assert verdict.response == OK


def test_an_empty_item_is_ignored_by_queues_and_fails_a_stream_batch() -> None:
    assert parse(Succeeded(_report({})), IDS, QUEUE) == Accepted()
    assert isinstance(parse(Succeeded(_report({})), IDS, STREAM), Rejected)
    both = Succeeded(_report({}, {"itemIdentifier": "102"}))
    assert parse(both, IDS, QUEUE) == Partial(frozenset({1}), OK)


@pytest.mark.parametrize("reading", [STREAM, QUEUE], ids=["streams", "queues"])
def test_valid_identifiers_are_a_partial_failure(reading: ResponseReading) -> None:
    answer = _report({"itemIdentifier": "103"}, {"itemIdentifier": "102"}, {"itemIdentifier": "103"})
    assert parse(Succeeded(answer, "7"), IDS, reading) == Partial(frozenset({1, 2}), Response("7", None))


def test_without_reports_the_answer_is_ignored() -> None:
    assert parse(Succeeded(_report({"itemIdentifier": "101"})), IDS, ResponseReading()) == Accepted()
    assert parse(Succeeded(b"not json"), IDS, ResponseReading()) == Accepted()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            FunctionError("KeyError", "'id'", "3"),
            Rejected(Ended.FUNCTION_ERROR, "KeyError: 'id'", Response("3", "Unhandled")),
        ),
        (TimedOut(3.0), Rejected(Ended.TIMED_OUT, "timed out after 3 s", Response("$LATEST", "Unhandled"))),
        (Throttled("busy", 2.5), Deferred(Ended.THROTTLED, "busy", 2.5)),
        (Unreachable("no route"), Deferred(Ended.UNREACHABLE, "no route")),
    ],
)
def test_only_function_errors_and_time_outs_use_up_a_retry(outcome: Outcome, expected: object) -> None:
    assert parse(outcome, IDS, STREAM) == expected


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"{}", b'{"state":[]}', b'{"state":null}', b'{"state":"x"}']
)
def test_a_window_needs_a_state_object(answer: bytes) -> None:
    verdict = parse(Succeeded(answer), IDS, ResponseReading(state_required=True))
    assert isinstance(verdict, Rejected)
    assert verdict.response == OK


def test_a_window_gets_its_state_back() -> None:
    assert parse(Succeeded(b'{"state":{"n":1}}'), IDS, ResponseReading(state_required=True)) == Accepted(
        b'{"n":1}'
    )


def test_an_oversized_record_has_no_response() -> None:
    verdict = oversized(7_000_000, 6_291_456)
    assert verdict.response is None
    assert verdict.ended is Ended.OVERSIZED


def test_errors_are_one_line_and_bounded() -> None:
    verdict = parse(FunctionError("E", "a\nb" * 500), IDS, STREAM)
    assert isinstance(verdict, Rejected)
    assert "\n" not in verdict.error
    assert len(verdict.error) == ERROR_CHARACTERS_MAX


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_no_answer_can_raise(answer: bytes, ignore: bool, state: bool) -> None:
    reading = ResponseReading(report_failures=True, ignore_empty_items=ignore, state_required=state)
    assert parse(Succeeded(answer), IDS, reading) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from([*IDS, "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["batchItemFailures", "itemIdentifier", "x"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_a_partial_verdict_names_records_of_the_batch_only(answer: object) -> None:
    verdict = parse(Succeeded(json.dumps(answer).encode()), IDS, STREAM)
    if isinstance(verdict, Partial):
        assert verdict.failed
        assert verdict.failed <= {0, 1, 2}
    else:
        assert isinstance(verdict, Accepted | Rejected)
