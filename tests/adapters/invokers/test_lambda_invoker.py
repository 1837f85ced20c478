"""The lambda invoker: Lambda's refusals and answers from a scripted server, and a function in an emulator."""

import asyncio
import io
import json
import zipfile
from typing import Any

import pytest

from adapters.aws.clients import client
from adapters.demo.processes import free_port
from adapters.invokers.lambda_api import LambdaInvoker, open_lambda, outcome_of
from adapters.invokers.lambda_calls.settings import LambdaSettings
from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.testing.invoker import ARN, invocation
from tests.contracts.invokers import environment, on_lambda
from tests.emulators import ministack

CODE = """
import sys
def act(event, context):
    if event.get("fail"):
        raise ValueError("boom")
    return {"got": event, "arn": context.invoked_function_arn}
"""


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that no service checks; in the emulator they are an account of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")


REFUSALS: list[tuple[str, int, Outcome]] = [
    ("TooManyRequestsException", 429, Throttled("lambda Invoke: TooManyRequestsException (HTTP 429)", 7.0)),
    ("EC2ThrottledException", 502, Throttled("lambda Invoke: EC2ThrottledException (HTTP 502)", 7.0)),
    (
        "CodeArtifactUserPendingException",
        409,
        Throttled("lambda Invoke: CodeArtifactUserPendingException (HTTP 409)", 7.0),
    ),
    ("ResourceNotFoundException", 404, Unreachable("lambda Invoke: ResourceNotFoundException (HTTP 404)")),
    ("AccessDeniedException", 403, Unreachable("lambda Invoke: AccessDeniedException (HTTP 403)")),
    ("ResourceConflictException", 409, Unreachable("lambda Invoke: ResourceConflictException (HTTP 409)")),
    (
        "InvalidParameterValueException",
        400,
        Unreachable(
            "lambda Invoke: InvalidParameterValueException (HTTP 400); a function with tenant isolation needs tenant_id or tenant_id_from"
        ),
    ),
    ("RequestTooLargeException", 413, Unreachable("lambda Invoke: RequestTooLargeException (HTTP 413)")),
    ("KMSDisabledException", 502, Unreachable("lambda Invoke: KMSDisabledException (HTTP 502)")),
    ("ServiceException", 500, Unreachable("lambda Invoke: ServiceException (HTTP 500)")),
]


@pytest.mark.parametrize(("code", "status", "outcome"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_refusal_of_lambda_uses_up_no_retry(code: str, status: int, outcome: Outcome) -> None:
    async def run() -> Outcome:
        async with on_lambda() as invoker:
            return await invoker.invoke(invocation({"do": "refuse", "code": code, "status": status}))

    assert asyncio.run(run()) == outcome


def test_a_lambda_that_nobody_serves_is_unreachable() -> None:
    async def run() -> Outcome:
        url = f"http://127.0.0.1:{free_port()}"
        async with (
            environment(endpoint_url=url) as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            return await invoker.invoke(invocation({}))

    assert isinstance(asyncio.run(run()), Unreachable)


def test_an_endpoint_that_makes_no_client_is_unreachable() -> None:
    async def run() -> Outcome:
        async with (
            environment(endpoint_url="nonsense") as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            return await invoker.invoke(invocation({}))

    outcome = asyncio.run(run())
    assert isinstance(outcome, Unreachable)
    assert "endpoint" in outcome.reason


ANSWERS: list[tuple[str, dict[str, Any], bytes, Outcome]] = [
    ("a version", {"ExecutedVersion": "7"}, b"1", Succeeded(b"1", "7")),
    (
        "an error with its version",
        {"FunctionError": "Handled", "ExecutedVersion": "7"},
        b'{"errorType": "Bad", "errorMessage": "no"}',
        FunctionError("Bad", "no", "7", "Handled"),
    ),
    (
        "a time-out by type",
        {"FunctionError": "Unhandled"},
        b'{"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 3.00 seconds"}',
        TimedOut(30.0),
    ),
    (
        "a text that sounds like a time-out",
        {"FunctionError": "Unhandled"},
        b'{"errorMessage": "Task timed out after 3.00 seconds"}',
        FunctionError("Unhandled", "Task timed out after 3.00 seconds"),
    ),
    (
        "an error without JSON",
        {"FunctionError": "Unhandled"},
        b"oops",
        FunctionError("Unhandled", ""),
    ),
    (
        "an error document without a flag",
        {},
        b'{"errorType": "Bad", "errorMessage": "no"}',
        Succeeded(b'{"errorType": "Bad", "errorMessage": "no"}'),
    ),
]


@pytest.mark.parametrize(
    ("answer", "body", "outcome"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS]
)
def test_an_answer_of_lambda_means_what_it_flags(
    answer: dict[str, Any], body: bytes, outcome: Outcome
) -> None:
    assert outcome_of(answer, body, 30.0) == outcome


@pytest.mark.parametrize(
    ("arn", "asked"),
    [(ARN, {"Qualifier": "live"}), (f"{ARN}:7", {}), (f"{ARN}:$LATEST", {})],
    ids=["bare", "version", "latest"],
)
def test_the_qualifier_of_the_settings_is_for_arns_that_have_none(arn: str, asked: dict[str, str]) -> None:
    async def run() -> dict[str, str]:
        async with environment() as env:
            return LambdaInvoker(LambdaSettings(function="orders", qualifier="live"), env).qualifier(arn)

    assert asyncio.run(run()) == asked


def test_a_function_in_an_emulator_answers_and_fails() -> None:
    async def run(url: str) -> list[Outcome]:
        async with (
            environment(endpoint_url=url) as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            arn = await deployed(await client(env, "lambda", "eu-west-1"))
            missing = invocation({}, arn=arn.replace("orders", "nowhere"))
            calls = [invocation({"x": 1}, arn=arn), invocation({"fail": 1}, arn=arn), missing]
            return [await invoker.invoke(each) for each in calls]

    with ministack() as emulator:
        answered, failed, missing = asyncio.run(run(emulator.url))
    assert isinstance(answered, Succeeded)
    assert json.loads(answered.payload)["got"] == {"x": 1}
    assert isinstance(failed, FunctionError)
    assert failed.function_error == "Unhandled"
    assert "boom" in failed.message
    assert missing == Unreachable("lambda Invoke: ResourceNotFoundException (HTTP 404)")


def test_a_function_exists_if_lambda_has_it_with_this_qualifier() -> None:
    async def run(url: str) -> list[bool]:
        async with (
            environment(endpoint_url=url) as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            arn = await deployed(await client(env, "lambda", "eu-west-1"))
            return [await invoker.exists(each) for each in (arn, f"{arn}x", f"{arn}:nowhere")]

    with ministack() as emulator:
        assert asyncio.run(run(emulator.url)) == [True, False, False]


def test_a_lambda_that_nobody_serves_does_not_say_whether_a_function_exists() -> None:
    async def run() -> bool:
        url = f"http://127.0.0.1:{free_port()}"
        async with (
            environment(endpoint_url=url) as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            return await invoker.exists(ARN)

    with pytest.raises(ServiceUnavailable):
        asyncio.run(run())


async def deployed(service: Any) -> str:
    """The ARN of a function that runs CODE."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("app.py", CODE)
    made = await service.create_function(
        FunctionName="orders",
        Runtime="python3.13",
        Role="arn:aws:iam::111122223333:role/orders",
        Handler="app.act",
        Code={"ZipFile": archive.getvalue()},
    )
    arn: str = made["FunctionArn"]
    return arn


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["nothing", "cut", "cut chunk", "another protocol"],
)
def test_a_connection_to_lambda_that_is_lost_says_nothing_of_the_function(sent: bytes) -> None:
    """No event can break Lambda's own connections: the call is repeated without using up a retry."""
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        if len(asked) == 1:
            await reader.readexactly(len(json.dumps({"do": "echo"})))
            body = b'{"fine": 1}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")
            asked.append(head)
        writer.write(sent)
        writer.close()

    async def run() -> list[Outcome]:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            server,
            environment(endpoint_urls={"lambda": url}) as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            return [await invoker.invoke(invocation({"do": "echo"})) for _ in range(2)]

    first, lost = asyncio.run(run())
    assert isinstance(first, Succeeded)
    assert isinstance(lost, Unreachable)
    assert lost.reason
