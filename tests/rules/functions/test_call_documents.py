"""What destinations get of an asynchronous call that is over."""

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller.domain.functions.queued_calls import AsyncPolicy
from poller.domain.invocations import EncodedEvent, FunctionError, Outcome, Succeeded, Throttled, TimedOut
from poller.domain.records import Epoch
from poller.domain.untrusted.json_values import json_value
from poller.rules.functions.call_documents import notice
from tests.rules.functions.test_queued_calls import ARN, FAILED, NOW, call, tried

AT = Epoch(1_573_754_565.568)


def test_the_document_of_a_success_is_as_aws_writes_it() -> None:
    done = tried(call(accepted=AT), Succeeded(b'{"ok":true}', "$LATEST"), now=AT)
    found = notice(done)
    assert found.documents[0].decode() == (
        '{"version":"1.0","timestamp":"2019-11-14T18:02:45.568Z","requestContext":{"requestId":"call-1",'
        f'"functionArn":"{ARN}:$LATEST","condition":"Success","approximateInvokeCount":1}},"requestPayload":{{"order":1}},'
        '"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"ok":true}}'
    )
    assert found.detail_type == "Lambda Function Invocation Result - Success"


def test_the_document_of_a_failure_has_the_error_of_the_function() -> None:
    found = notice(tried(call(attempts=2, arn=f"{ARN}:live"), FAILED))
    document = json.loads(found.documents[0])
    assert document["requestContext"] == {
        "requestId": "call-1",
        "functionArn": f"{ARN}:live",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert document["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "7",
        "functionError": "Unhandled",
    }
    assert document["responsePayload"] == {
        "errorMessage": "bad order",
        "errorType": "ValueError",
        "requestId": "call-1",
        "stackTrace": [],
    }
    assert (found.payload, found.error_code, found.error_message) == (
        b'{"order":1}',
        "200",
        "ValueError: bad order",
    )
    assert found.detail_type == "Lambda Function Invocation Result - Failure"


def test_a_time_limit_is_told_as_lambda_tells_it() -> None:
    document = json.loads(notice(tried(call(attempts=2), TimedOut(3.0))).documents[0])
    assert document["responsePayload"] == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: call-1 Error: Task timed out after 3.00 seconds",
    }


def test_a_function_that_was_never_reached_has_no_answer() -> None:
    found = notice(tried(call(), Throttled("no room"), now=NOW + 1e6))
    assert set(json.loads(found.documents[0])) == {"version", "timestamp", "requestContext", "requestPayload"}
    assert (found.error_code, found.error_message) == ("429", "no room")


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", None),
        (b"null", None),
        (b"17", 17),
        (b'"\\ud800"', "\ud800"),
        (b"\xff", "�"),
        (b"{]", "{]"),
        (b"[" * 9000, "[" * 9000),
    ],
)
def test_payloads_that_are_no_usual_json_stay_readable(payload: bytes, shown: object) -> None:
    found = notice(tried(call(payload=payload), Succeeded(payload)))
    document = json.loads(found.documents[0])
    assert document["requestPayload"] == document["responsePayload"] == shown


TEXTS = st.recursive(
    st.sampled_from(
        ["null", "NaN", "[-Infinity]", "1e999", "9" * 5000, '"\\ud800"', '"\ud800"', "01", "", " "]
    )
    | st.text(max_size=8)
    | st.text(max_size=8).map(json.dumps),
    lambda inner: inner.map("[{}]".format) | inner.map('{{"a":{},"a":1}}'.format),
    max_leaves=3,
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
PAYLOADS = st.binary(max_size=12) | st.builds(
    lambda text, encoding: text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace"),
    TEXTS,
    ENCODINGS,
)


@given(payload=PAYLOADS)
@example(payload=b'\xef\xbb\xbf{"a":1}')
@example(payload='{"a":1}'.encode("utf-16"))
@example(payload=b'"\xed\xa0\x80"')
def test_a_document_is_json_in_utf8_whatever_the_payload_has(payload: bytes) -> None:
    found = notice(tried(call(payload=payload), Succeeded(payload)))
    for document in found.documents:
        json.loads(document.decode(), parse_constant=pytest.fail, parse_int=float)


@given(payload=PAYLOADS)
def test_what_counts_as_json_can_be_given_to_a_function_and_into_a_document(payload: bytes) -> None:
    try:
        json_value(payload)
    except (ValueError, RecursionError):
        return
    EncodedEvent(payload).decoded()
    text = payload.decode()
    json.loads(text, parse_constant=pytest.fail)
    found = notice(tried(call(payload=payload), Succeeded(b"1")))
    assert text.strip() in found.documents[0].decode()


@pytest.mark.parametrize(
    ("answer_bytes", "payload_bytes", "left_out"),
    [(10, 10, None), (2000, 10, ["responsePayload"]), (2000, 2000, ["responsePayload", "requestPayload"])],
)
def test_a_document_that_is_too_large_leaves_payloads_out_and_says_so(
    answer_bytes: int, payload_bytes: int, left_out: list[str] | None
) -> None:
    done = tried(
        call(payload=json.dumps("p" * payload_bytes).encode()),
        Succeeded(json.dumps("a" * answer_bytes).encode()),
    )
    document = notice(done).document(1000)
    assert len(document) <= 1000
    assert json.loads(document).get("leftOut") == left_out
    assert json.loads(document)["requestContext"]["condition"] == "Success"


def test_the_error_of_a_dead_letter_is_cut_and_on_one_line() -> None:
    error = FunctionError("E" * 128, "line\n" * 400)
    found = notice(tried(replace(call(attempts=2)), error, policy=AsyncPolicy()))
    assert len(found.error_message) <= 1024
    assert "\n" not in found.error_message


def test_outcomes_are_told_for_each_kind() -> None:
    outcomes: list[Outcome] = [Succeeded(b"1"), FAILED, TimedOut(1.0)]
    for outcome in outcomes:
        assert (
            json.loads(notice(tried(call(attempts=2), outcome)).documents[0])["responseContext"]["statusCode"]
            == 200
        )
