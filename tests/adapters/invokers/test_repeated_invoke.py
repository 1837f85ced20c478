"""Repeated calls of Lambda's Invoke are the library's own, and mean the same."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.invokers.lambda_api import LambdaInvoker, open_lambda
from adapters.invokers.lambda_calls.settings import LambdaSettings
from adapters.invokers.outcomes import ANSWER_BYTES_MAX
from poller.domain.invocations import FunctionError, Succeeded, Throttled
from poller.testing.invoker import ARN, invocation
from tests.adapters.answers import environment, on_a_loop
from tests.adapters.aws.test_request_templates import FRESH, Wire, signature, wire, without_the_library

pytestmark = pytest.mark.usefixtures("account")

VERSION = {"X-Amz-Executed-Version": "7"}
DONE = (200, VERSION, b'{"done":true}')
PATHS = [
    (
        None,
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Aorders/invocations",
    ),
    (
        "live",
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Aorders/invocations"
        "?Qualifier=live",
    ),
]


@asynccontextmanager
async def learnt(
    *answers: tuple[int, dict[str, str], bytes], qualifier: str | None = None
) -> AsyncIterator[tuple[LambdaInvoker, Wire]]:
    """An invoker whose first call went by the library, and the server that it asks."""
    settings = LambdaSettings(function="orders", qualifier=qualifier)
    async with (
        wire(DONE, *answers) as server,
        environment(server.url) as env,
        open_lambda(settings, env) as invoker,
    ):
        assert await invoker.invoke(invocation({"n": 1})) == Succeeded(DONE[2], "7")
        with without_the_library():
            yield invoker, server


@pytest.mark.parametrize(("qualifier", "path"), PATHS, ids=["plain", "qualified"])
@on_a_loop
async def test_a_repeated_call_differs_from_the_library_s_in_its_event_date_and_signature_alone(
    qualifier: str | None, path: str
) -> None:
    async with learnt(DONE, qualifier=qualifier) as (invoker, server):
        assert await invoker.invoke(invocation({"n": 2})) == Succeeded(DONE[2], "7")
        first, second = server.asked
        assert first.line == second.line == f"POST {path} HTTP/1.1"
        assert json.loads(second.body) == {"n": 2}
        assert {name: value for name, value in first.headers.items() if name not in FRESH} == {
            name: value for name, value in second.headers.items() if name not in FRESH
        }
        signature(second, f"{server.url}{path}", service="lambda", secret="not-a-secret")


@on_a_loop
async def test_a_repeated_call_reports_what_the_function_did() -> None:
    failure = {**VERSION, "X-Amz-Function-Error": "Unhandled"}
    body = b'{"errorType":"ValueError","errorMessage":"boom"}'
    async with learnt((200, failure, body)) as (invoker, _):
        outcome = await invoker.invoke(invocation({}))
        assert outcome == FunctionError("ValueError", "boom", "7", "Unhandled")


@on_a_loop
async def test_a_refusal_of_a_repeated_call_uses_up_no_retry() -> None:
    headers = {"x-amzn-ErrorType": "TooManyRequestsException", "Retry-After": "7"}
    async with learnt((429, headers, b"{}")) as (invoker, _):
        outcome = await invoker.invoke(invocation({}))
        assert outcome == Throttled("lambda Invoke: TooManyRequestsException (HTTP 429)", 7.0)


@on_a_loop
async def test_an_answer_that_is_too_long_is_a_failure_of_the_function_and_not_read_to_its_end() -> None:
    async with learnt((200, VERSION, b"x" * (ANSWER_BYTES_MAX + 1)), DONE) as (invoker, _):
        outcome = await invoker.invoke(invocation({}))
        assert isinstance(outcome, FunctionError)
        assert (outcome.error_type, outcome.executed_version) == ("Function.ResponseSizeTooLarge", "7")
        assert await invoker.invoke(invocation({})) == Succeeded(DONE[2], "7")


@on_a_loop
async def test_a_dry_run_is_not_what_calls_repeat() -> None:
    settings = LambdaSettings(function="orders")
    async with (
        wire((204, {}, b""), (200, {}, b'{"Timeout": 3}'), DONE) as server,
        environment(server.url) as env,
        open_lambda(settings, env) as invoker,
    ):
        await invoker.probe_function(ARN)
        for number in range(2):
            assert await invoker.invoke(invocation({"n": number})) == Succeeded(DONE[2], "7")
        kinds = [each.headers.get("x-amz-invocation-type") for each in server.asked]
        assert kinds == ["DryRun", None, "RequestResponse", "RequestResponse"]
