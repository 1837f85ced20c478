"""Lambda's operations on functions over real sockets: by AWS's own client, and by bodies and headers as they are on the wire."""

import asyncio
import base64
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.control.access.sigv4 import Request
from adapters.control.invoke.invoke_api import (
    EVENT_BYTES_MAX,
    HELD_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    HeldBytes,
)
from adapters.control.invoke.invoke_headers import CONTEXT_BYTES_MAX
from poller.domain.functions.calls import (
    LOG_TAIL_BYTES_MAX,
    FunctionAnswer,
    FunctionCall,
    FunctionView,
    NoRoom,
    ThrottleReason,
)
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.telemetry.labels import ApiOperation
from tests.adapters.control.invoke.callers import ARN, REQUEST_ID, CallerModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_access import Keys, sent
from tests.adapters.control.test_audit import Told
from tests.adapters.control.test_roles import closed, files
from tests.adapters.control.test_sigv4 import KEY, SECRET, signed

__all__ = ["files"]
INVOKE = "/2015-03-31/functions/orders/invocations"
FUNCTIONS = "/2015-03-31/functions"


def setting(files: Keys, caller: CallerModel | None, told: Told | None = None) -> Setting:
    found = closed(files, told)
    found.calls = caller
    return found


def headers_of(request: Request) -> list[tuple[str, str]]:
    """The headers of a signed request, for a client that sets the length itself."""
    return [(name, value) for name, value in request.headers if name.lower() != "content-length"]


async def by_client(run: Running, operation: str, **given: Any) -> dict[str, Any]:
    """What AWS's client makes of the answer. Payloads are read."""

    def call() -> dict[str, Any]:
        session = botocore.session.Session()
        session.set_credentials(KEY, SECRET)
        config = Config(retries={"max_attempts": 0}, read_timeout=20, parameter_validation=False)
        client = session.create_client("lambda", "eu-west-1", endpoint_url=run.url, config=config)
        try:
            found: dict[str, Any] = getattr(client, operation)(**given)
            if "Payload" in found:
                found["Payload"] = found["Payload"].read()
            return found
        except ClientError as error:
            return dict(error.response)
        finally:
            client.close()

    return await asyncio.to_thread(call)


def invoked(files: Keys, caller: CallerModel, operation: str = "invoke", **given: Any) -> dict[str, Any]:
    return serving(
        lambda run: by_client(run, operation, **({"FunctionName": "orders"} | given)), setting(files, caller)
    )


@pytest.mark.parametrize("name", ["orders", ARN])
@pytest.mark.parametrize("payload", [b'{"n": 1}', b'"text"', b"7", b"null", b"[]", b'{"a": "\\ud800"}'])
def test_a_payload_comes_to_the_function_as_it_was_sent(files: Keys, name: str, payload: bytes) -> None:
    caller = CallerModel()
    found = invoked(files, caller, FunctionName=name, Payload=payload)
    assert (found["StatusCode"], found["Payload"], found["ExecutedVersion"]) == (200, payload, "$LATEST")
    assert "FunctionError" not in found
    assert found["ResponseMetadata"]["RequestId"] == REQUEST_ID
    assert [(each.function, each.payload) for each in caller.asked] == [(name, payload)]


def test_no_payload_is_an_empty_object(files: Keys) -> None:
    assert invoked(files, CallerModel())["Payload"] == b"{}"


GOLDEN: list[tuple[Outcome, int, dict[str, str], str]] = [
    (Succeeded(b"null"), 200, {"X-Amz-Executed-Version": "$LATEST"}, "null"),
    (Succeeded(b"", "7"), 200, {"X-Amz-Executed-Version": "7"}, ""),
    (
        FunctionError("ValueError", "no", stack_trace=('  File "app.py", line 3, in handler', "    raise")),
        200,
        {"X-Amz-Executed-Version": "$LATEST", "X-Amz-Function-Error": "Unhandled"},
        f'{{"errorMessage":"no","errorType":"ValueError","requestId":"{REQUEST_ID}",'
        '"stackTrace":["  File \\"app.py\\", line 3, in handler","    raise"]}',
    ),
    (
        FunctionError(
            "E" * 200, "x" * 2000, document=b'{"errorMessage": "\\ud800' + b"x" * 2000 + b'", "cause": {}}'
        ),
        200,
        {"X-Amz-Executed-Version": "$LATEST", "X-Amz-Function-Error": "Unhandled"},
        f'{{"errorMessage": "\\ud800{"x" * 2000}", "cause": {{}}}}',
    ),
    (
        TimedOut(3.0),
        200,
        {"X-Amz-Executed-Version": "$LATEST", "X-Amz-Function-Error": "Unhandled"},
        f'{{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: {REQUEST_ID} Error: Task timed out after 3.00 seconds"}}',
    ),
    (
        Throttled("all 2 processes are busy", 2.5),
        429,
        {"x-amzn-errortype": "TooManyRequestsException", "Retry-After": "3"},
        '{"Reason":"ConcurrentInvocationLimitExceeded","Type":"User","message":"all 2 processes are busy"}',
    ),
    (
        Unreachable("no connection"),
        502,
        {"x-amzn-errortype": "ResourceNotReadyException"},
        '{"Type":"User","Message":"The function cannot be called: no connection"}',
    ),
]


@pytest.mark.parametrize(("outcome", "status", "headers", "body"), GOLDEN)
def test_each_outcome_has_its_status_headers_and_body(
    files: Keys, outcome: Outcome, status: int, headers: dict[str, str], body: str
) -> None:
    async def use(run: Running) -> tuple[int, bytes, Any]:
        request = signed("POST", INVOKE)
        return await run.exact("POST", INVOKE, data=request.body, headers=headers_of(request))

    found = serving(use, setting(files, CallerModel(answer=lambda _: outcome)))
    assert found[:2] == (status, body.encode())
    assert {name: found[2].get(name) for name in headers} == headers
    assert found[2]["x-amzn-requestid"] == REQUEST_ID
    assert found[2]["Content-Type"] == "application/json"
    assert ("X-Amz-Function-Error" in found[2]) == ("X-Amz-Function-Error" in headers)


@pytest.mark.parametrize("version", ["7\r\nX-Forged: 1", "\ud800", "v" * 100_000, "é"])
def test_a_version_of_a_plug_in_is_one_line_of_the_answer(files: Keys, version: str) -> None:
    found = invoked(files, CallerModel(answer=lambda _: Succeeded(b"1", version)))
    assert (found["StatusCode"], found["Payload"]) == (200, b"1")
    assert len(found["ExecutedVersion"]) <= 256
    assert "x-forged" not in found["ResponseMetadata"]["HTTPHeaders"]


def test_a_call_without_room_names_the_reason_and_the_wait(files: Keys) -> None:
    def refuse(_: object) -> Outcome:
        raise NoRoom(ThrottleReason.CONCURRENCY, "all 4 are in use")

    found = invoked(files, CallerModel(answer=refuse))
    assert found["Error"] == {"Code": "TooManyRequestsException", "Message": "all 4 are in use"}
    assert found["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert found["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"


def test_the_log_comes_with_the_answer_if_it_is_asked_for(files: Keys) -> None:
    caller = CallerModel(log="one\ntwo ü\n")
    found = invoked(files, caller, LogType="Tail")
    assert base64.b64decode(found["LogResult"]).decode() == (
        f"START RequestId: {REQUEST_ID} Version: $LATEST\none\ntwo ü\nEND RequestId: {REQUEST_ID}\n"
        f"REPORT RequestId: {REQUEST_ID}\tDuration: 12.30 ms\tBilled Duration: 13 ms\n"
    )
    assert caller.asked[0].log_tail
    assert "LogResult" not in invoked(files, caller, LogType="None")


def test_a_long_log_has_its_end(files: Keys) -> None:
    found = invoked(files, CallerModel(log="x" * 3_900 + "\nlast line\n"), LogType="Tail")
    text = base64.b64decode(found["LogResult"])
    assert len(text) == LOG_TAIL_BYTES_MAX
    assert b"last line\nEND" in text


def test_a_dry_run_calls_nothing(files: Keys) -> None:
    caller = CallerModel()
    assert invoked(files, caller, InvocationType="DryRun")["StatusCode"] == 204
    assert caller.asked == []
    missing = invoked(files, caller, InvocationType="DryRun", FunctionName="nothing")
    assert missing["Error"]["Code"] == "ResourceNotFoundException"


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"FunctionName": "nothing"}, 404, "ResourceNotFoundException", "Function not found: nothing"),
    ({"Qualifier": "live"}, 404, "ResourceNotFoundException", "Function not found: orders"),
    *(
        ({"Payload": wrong}, 400, "InvalidRequestContentException", "Could not parse request body into json")
        for wrong in (
            b"{",
            b" ",
            b"NaN",
            b"[Infinity]",
            b"e30",
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
            b'"\xff"',
        )
    ),
    (
        {"Payload": gzip.compress(b"{}")},
        400,
        "InvalidRequestContentException",
        "Could not parse request body",
    ),
    (
        {"Payload": b"[" * 100_000},
        400,
        "InvalidRequestContentException",
        "Could not parse request body into json",
    ),
    (
        {"InvocationType": "Soon"},
        400,
        "ValidationException",
        "1 validation error detected: Value 'Soon' at 'invocationType'",
    ),
    ({"LogType": "Head"}, 400, "ValidationException", "[None, Tail]"),
    ({"ClientContext": "%%"}, 400, "InvalidRequestContentException", "Base64"),
    (
        {"ClientContext": base64.b64encode(b'{"a":NaN}').decode()},
        400,
        "InvalidRequestContentException",
        "JSON object",
    ),
    (
        {"ClientContext": base64.b64encode(b"[1]").decode()},
        400,
        "InvalidRequestContentException",
        "JSON object",
    ),
    (
        {"ClientContext": "A" * (CONTEXT_BYTES_MAX + 1)},
        400,
        "InvalidRequestContentException",
        "no more than 3583 bytes",
    ),
    ({"TenantId": "blue"}, 400, "InvalidParameterValueException", "tenant"),
    (
        {"InvocationType": "Event", "Payload": b'"' + b"x" * EVENT_BYTES_MAX + b'"'},
        413,
        "RequestTooLargeException",
        "limit 1048576 bytes",
    ),
]


@pytest.mark.parametrize(("given", "status", "code", "said"), REFUSED)
def test_a_wrong_request_is_refused_and_calls_nothing(
    files: Keys, given: dict[str, Any], status: int, code: str, said: str
) -> None:
    caller = CallerModel()
    found = invoked(files, caller, **given)
    assert (found["ResponseMetadata"]["HTTPStatusCode"], found["Error"]["Code"]) == (status, code)
    assert said in found["Error"]["Message"]
    assert caller.asked == []


@pytest.mark.parametrize("chunked", [False, True])
def test_payloads_are_taken_up_to_the_limit_and_refused_beyond_it(files: Keys, *, chunked: bool) -> None:
    caller = CallerModel()
    largest = b'"' + b"x" * (PAYLOAD_BYTES_MAX - 2) + b'"'

    async def ask(run: Running, payload: bytes) -> tuple[int, bytes]:
        async def parts() -> AsyncIterator[bytes]:
            for first in range(0, len(payload), 100_000):
                yield payload[first : first + 100_000]

        headers = headers_of(signed("POST", INVOKE, body=payload))
        data = parts() if chunked else io.BytesIO(payload)
        status, body, _ = await run.exact("POST", INVOKE, data=data, headers=headers)
        return status, body

    async def use(run: Running) -> None:
        assert await ask(run, largest) == (200, largest)
        status, body = await ask(run, largest + b" ")
        assert status == 413
        assert (
            json.loads(body)["message"]
            == "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
        )

    serving(use, setting(files, caller))
    assert [len(each.payload) for each in caller.asked] == [PAYLOAD_BYTES_MAX]


def test_the_client_context_is_passed_on(files: Keys) -> None:
    caller = CallerModel()
    text = base64.b64encode(b'{"custom": {"a": 1}}').decode()
    invoked(files, caller, ClientContext=text)
    assert caller.asked[0].client_context == text


def test_payloads_of_running_calls_are_bounded() -> None:
    held = HeldBytes(10)
    with held.more(6):
        with pytest.raises(NoRoom) as refused, held.more(5):
            pass
        assert refused.value.reason is ThrottleReason.CALLER
        with held.more(4):
            pass
    with held.more(10):
        pass
    with held.more(10) as only:
        only(3)
        with held.more(7):
            pass
    with held.more(10):
        pass


class Together(CallerModel):
    """Functions whose calls answer when so many of them run at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.all = asyncio.Event()

    async def call(self, call: FunctionCall, *, trace_header: str = "") -> FunctionAnswer:
        found = await super().call(call, trace_header=trace_header)
        if len(self.asked) >= self.count:
            self.all.set()
        await self.all.wait()
        return found


def test_a_body_of_unknown_length_counts_for_what_it_had_when_its_function_runs(files: Keys) -> None:
    count = HELD_BYTES_MAX // PAYLOAD_BYTES_MAX + 8

    async def use(run: Running) -> list[int]:
        async def parts() -> AsyncIterator[bytes]:
            yield b"[1"
            yield b"]"

        async def ask() -> int:
            headers = headers_of(signed("POST", INVOKE, body=b"[1]"))
            status, _, _ = await run.exact("POST", INVOKE, data=parts(), headers=headers)
            return status

        asked = []
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                asked.append(group.create_task(ask()))
                await asyncio.sleep(0.01)
        return [each.result() for each in asked]

    assert serving(use, setting(files, Together(count))) == [200] * count


PUBLIC: list[tuple[dict[str, Any], int, str]] = [
    # What has been reported of Lambda, its emulators and its clients, by what was sent.
    ({"ClientContext": "string", "LogType": "Tail", "Qualifier": "$LATEST"}, 400, "valid Base64-encoded JSON object"),
    ({"Payload": base64.b64encode(b"{}")}, 400, "Could not parse request body into json"),
    ({"Payload": b"testPayload"}, 400, "Could not parse request body into json"),
    ({"Payload": b""}, 200, ""),
    ({"InvocationType": "RequestResponse", "Payload": b'{"key":"\\u0000"}'}, 200, ""),
    ({"FunctionName": f"{ARN}:$LATEST"}, 200, ""),
    ({"InvocationType": "Event", "LogType": "Tail", "Payload": b"null"}, 202, ""),
    ({"InvocationType": "DryRun", "Payload": b"{}"}, 204, ""),
]  # fmt: skip


@pytest.mark.parametrize(("given_members", "status", "said"), PUBLIC)
def test_what_others_reported_is_answered_as_lambda_answers_it(
    files: Keys, given_members: dict[str, Any], status: int, said: str
) -> None:
    caller = CallerModel(log="line\n")
    found = invoked(files, caller, **given_members)
    assert found["ResponseMetadata"]["HTTPStatusCode"] == status
    assert said in found.get("Error", {}).get("Message", "")
    assert "LogResult" not in found


def test_an_event_is_stored_and_acknowledged_without_a_call(files: Keys) -> None:
    caller = CallerModel()
    context = base64.b64encode(b'{"custom": {"a": 1}}').decode()
    found = invoked(files, caller, InvocationType="Event", Payload=b'{"n": 1}', ClientContext=context)
    assert (found["StatusCode"], found["Payload"]) == (202, b"")
    assert found["ResponseMetadata"]["RequestId"] == REQUEST_ID
    ((call, header),) = caller.put
    assert (call.function, call.payload, call.client_context, header) == ("orders", b'{"n": 1}', context, "")
    assert caller.asked == []


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AS_XRAY = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1"
ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793"
TOLD: list[tuple[list[tuple[str, str]], str]] = [
    ([("X-Amzn-Trace-Id", f"{ROOT};Lineage=a87bd80c:1")], f"{ROOT};Lineage=a87bd80c:1"),
    ([("traceparent", PARENT)], AS_XRAY),
    # A load balancer writes a header that names no span.
    ([("X-Amzn-Trace-Id", f"{ROOT};Lineage=a87bd80c:1"), ("traceparent", PARENT)], f"{AS_XRAY};Lineage=a87bd80c:1"),
    ([("X-Amzn-Trace-Id", f"{ROOT};Parent=53995c3f42cd8ad8"), ("traceparent", PARENT)], f"{ROOT};Parent=53995c3f42cd8ad8"),
    ([("X-Amzn-Trace-Id", "x" * 2000), ("traceparent", PARENT)], AS_XRAY),
    ([("X-Amzn-Trace-Id", ROOT), ("traceparent", "00-not-one-01")], ROOT),
    ([("X-Amzn-Trace-Id", ROOT), ("X-Amzn-Trace-Id", "Root=other")], ROOT),
]  # fmt: skip


@pytest.mark.parametrize(("given_headers", "header"), TOLD)
def test_an_event_keeps_the_trace_header_of_its_caller(
    files: Keys, given_headers: list[tuple[str, str]], header: str
) -> None:
    caller = CallerModel()

    async def use(run: Running) -> None:
        event = {"X-Amz-Invocation-Type": "Event"}
        headers = headers_of(signed("POST", INVOKE, body=b"[1]", headers=event))
        headers += given_headers
        status, body, _ = await run.exact("POST", INVOKE, data=b"[1]", headers=headers)
        assert (status, body) == (202, b"")

    serving(use, setting(files, caller))
    assert [(call.payload, told) for call, told in caller.put] == [(b"[1]", header)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoRoom(ThrottleReason.CALLER, "100000 wait already"), 429, "TooManyRequestsException"),
        (ApiError(ApiErrorType.SERVICE, "the store did not take the call"), 500, "ServiceException"),
    ],
)
@pytest.mark.parametrize("operation", ["invoke", "invoke_async"])
def test_an_event_that_is_not_stored_is_not_acknowledged(
    files: Keys, operation: str, error: Exception, status: int, code: str
) -> None:
    more = {"InvokeArgs": b"{}"} if operation == "invoke_async" else {"InvocationType": "Event"}
    found = invoked(files, CallerModel(refuses=error), operation, **more)
    assert (found["ResponseMetadata"]["HTTPStatusCode"], found["Error"]["Code"]) == (status, code)


def test_the_old_operation_stores_a_call_too(files: Keys) -> None:
    caller = CallerModel()
    assert invoked(files, caller, "invoke_async", InvokeArgs=b'{"n": 1}')["Status"] == 202
    assert [call.payload for call, _ in caller.put] == [b'{"n": 1}']
    refused = invoked(files, caller, "invoke_async", InvokeArgs=b"{")
    assert refused["ResponseMetadata"]["HTTPStatusCode"] == 400
    large = invoked(files, caller, "invoke_async", InvokeArgs=b'"' + b"x" * EVENT_BYTES_MAX + b'"')
    assert large["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert len(caller.put) == 1


def test_what_is_not_served_says_what_to_call(files: Keys) -> None:
    found = invoked(files, CallerModel(), "invoke_with_response_stream")
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "Invoke" in found["Error"]["Message"]


def test_without_a_caller_nothing_is_served(files: Keys) -> None:
    status, body, _ = serving(lambda run: sent(run, signed("POST", INVOKE)), setting(files, None))
    assert (status, body["message"]) == (501, "This server shows what runs and changes nothing")


def test_only_refused_requests_are_audited(files: Keys) -> None:
    told = Told()

    async def use(run: Running) -> None:
        assert (await sent(run, signed("POST", INVOKE)))[0] == 200
        assert (await sent(run, signed("POST", INVOKE, secret="wrong")))[0] == 403

    serving(use, setting(files, CallerModel(), told))
    assert [(each.operation, bool(each.refused)) for each in told.changes] == [(ApiOperation.INVOKE, True)]
    assert KEY not in told.changes[0].refused


def test_a_function_is_shown_as_it_is_configured(files: Keys) -> None:
    found = invoked(files, CallerModel(), "get_function_configuration")
    del found["ResponseMetadata"]
    assert found == {
        "FunctionName": "orders",
        "FunctionArn": ARN,
        "Role": "arn:aws:iam::111122223333:role/orders",
        "Handler": "app.handler",
        "Description": "called by poller through its invoker python",
        "Timeout": 30,
        "MemorySize": 512,
        "Version": "$LATEST",
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }
    whole = invoked(files, CallerModel(), "get_function")
    assert whole["Configuration"] == found
    assert whole["Concurrency"] == {"ReservedConcurrentExecutions": 4}


def test_a_function_that_cannot_be_opened_shows_why(files: Keys) -> None:
    broken = FunctionView(name="orders", arn=ARN, invoker="python", timeout_s=3.0, trouble="no module app")
    found = invoked(files, CallerModel(views=[broken]), "get_function_configuration")
    assert (found["State"], found["StateReason"]) == ("Failed", "no module app")


def test_functions_are_listed_in_pages(files: Keys) -> None:
    names = [f"f-{number:03}" for number in range(120)]
    caller = CallerModel(
        views=[FunctionView(name=each, arn=ARN, invoker="python", timeout_s=1.0) for each in names]
    )

    async def use(run: Running) -> list[list[str]]:
        pages: list[list[str]] = []
        marker: dict[str, str] = {}
        while True:
            found = await by_client(run, "list_functions", MaxItems=70, **marker)
            pages.append([each["FunctionName"] for each in found["Functions"]])
            if "NextMarker" not in found:
                return pages
            marker = {"Marker": found["NextMarker"]}

    pages = serving(use, setting(files, caller))
    assert [len(each) for each in pages] == [50, 50, 20]
    assert [name for each in pages for name in each] == names


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"MaxItems": 0}, "ValidationException"),
        ({"MaxItems": 10_001}, "ValidationException"),
        ({"FunctionVersion": "SOME"}, "ValidationException"),
        ({"Marker": "%%%"}, "InvalidParameterValueException"),
    ],
)
def test_a_list_that_is_asked_for_wrongly_is_refused(files: Keys, given: dict[str, Any], code: str) -> None:
    found = serving(lambda run: by_client(run, "list_functions", **given), setting(files, CallerModel()))
    assert found["Error"]["Code"] == code


@settings(max_examples=25, deadline=None)
@given(
    message=st.text(max_size=50), kind=st.text(max_size=20), trace=st.lists(st.text(max_size=20), max_size=3)
)
def test_any_error_of_a_function_is_a_document_that_can_be_read(
    message: str, kind: str, trace: list[str]
) -> None:
    outcome = FunctionError(kind, message, stack_trace=tuple(trace))
    caller = CallerModel(answer=lambda _: outcome)
    plain = Setting(calls=caller)
    plain.api = plain.api.model_copy(update={"allow_unauthenticated": True})
    status, body, _ = serving(lambda run: run.ask("POST", INVOKE, data=b"{}"), plain)
    assert (status, body["errorMessage"], body["errorType"]) == (200, outcome.message, outcome.error_type)


def test_a_failed_opening_is_an_error_that_clients_try_again(files: Keys) -> None:
    def refuse(_: object) -> Outcome:
        raise ApiError(ApiErrorType.NOT_READY, "The function orders cannot be opened: no module app")

    found = invoked(files, CallerModel(answer=refuse))
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 502
    assert found["Error"]["Code"] == "ResourceNotReadyException"
    assert "no module app" in found["Error"]["Message"]


def test_any_number_of_calls_may_have_one_signature(files: Keys) -> None:
    caller = CallerModel()

    async def use(run: Running) -> list[int]:
        request = signed("POST", INVOKE)
        return [
            (await run.exact("POST", INVOKE, data=request.body, headers=headers_of(request)))[0]
            for _ in range(40)
        ]

    assert serving(use, setting(files, caller)) == [200] * 40
    assert len(caller.asked) == 40
