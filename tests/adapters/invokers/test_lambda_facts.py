"""What Lambda says of a function, by GetFunctionConfiguration; and calls that are waited for as long as it runs, once each."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import botocore.loaders
import pytest
from aiohttp import web

from adapters.aws.clients import client, mapped
from adapters.aws.pacing import READ_PERIOD_S
from adapters.invokers.lambda_api import (
    MARGIN_S,
    SILENCE_S_MAX,
    LambdaInvoker,
    facts_of,
    open_lambda,
)
from adapters.invokers.lambda_calls.settings import LambdaSettings
from poller.domain.errors import AccessDenied, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import EncodedEvent, Invocation, Outcome, Succeeded, TimedOut
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId
from poller.ports import FunctionLookup
from poller.runtime import invoking
from poller.runtime.function_watch import LIMIT_S_MAX
from poller.runtime.invoking import Function
from poller.testing.invoker import ARN, invocation
from tests.adapters.answers import on_a_loop
from tests.adapters.invokers.test_lambda_invoker import deployed
from tests.contracts.invokers import environment, served
from tests.emulators import ministack
from tests.runtime.fakes import Seen


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that no service checks; in the emulator they are an account of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")


@dataclass
class SlowLambda:
    """A server as Lambda's: a run goes on when its client has gone. `timeout_s` is the function's own limit."""

    timeout_s: int = 60
    takes_s: float = 0.0
    denied: bool = False
    runs: list[tuple[float, float]] = field(default_factory=list)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    async def invoke(self, request: web.Request) -> web.Response:
        await request.read()
        took_s = min(self.takes_s, float(self.timeout_s))
        began = time.monotonic()
        self.runs.append((began, began + took_s))
        await asyncio.sleep(took_s)
        if self.takes_s > self.timeout_s:
            body = {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out"}
            return web.json_response(body, headers={"X-Amz-Function-Error": "Unhandled"})
        return web.json_response("done")

    async def describe(self, request: web.Request) -> web.Response:
        self.asked.append((request.match_info["function"], dict(request.query)))
        if self.denied:
            headers = {"x-amzn-errortype": "AccessDeniedException"}
            return web.json_response({"message": "no"}, status=403, headers=headers)
        return web.json_response({"Timeout": self.timeout_s, "Role": "arn:aws:iam::111122223333:role/orders"})

    @property
    def overlapping(self) -> bool:
        """Whether one run began while another went on."""
        return any(late[0] < early[1] for early, late in zip(self.runs, self.runs[1:], strict=False))


@asynccontextmanager
async def behind(service: SlowLambda, **settings: Any) -> AsyncIterator[LambdaInvoker]:
    """The invoker of functions on this server."""
    app = web.Application()
    app.router.add_post("/2015-03-31/functions/{function}/invocations", service.invoke)
    app.router.add_get("/2015-03-31/functions/{function}/configuration", service.describe)
    given = LambdaSettings.model_validate({"function": "orders", **settings})
    async with (
        served(app) as url,
        environment(endpoint_urls={"lambda": url}) as env,
        open_lambda(given, env) as invoker,
    ):
        yield invoker


@asynccontextmanager
async def followed(service: SlowLambda, *, timeout_s: float | None = None) -> AsyncIterator[Function]:
    """The function of a daemon that a mapping uses."""
    async with behind(service) as invoker:
        function = Function(
            FunctionPlan(name="orders", invoker="lambda", timeout_s=timeout_s), invoker, Seen()
        )
        async with function.used_by(ARN), asyncio.TaskGroup() as scope:
            following = scope.create_task(function.follow())
            yield function
            following.cancel()


async def called(function: Function) -> Outcome:
    await function.slots.acquire()
    try:
        return await function.call(
            Invocation(ARN, "id", EncodedEvent(b"{}"), function.limit_s(ARN)), mapping=MappingId("m")
        )
    finally:
        function.slots.release()


@on_a_loop
async def test_time_limit_and_role_are_lambdas_by_the_qualifier_that_is_called() -> None:
    service = SlowLambda(timeout_s=7)
    async with behind(service, qualifier="live") as invoker:
        assert isinstance(invoker, FunctionLookup)
        facts = await invoker.describe_function(ARN)
        await invoker.describe_function(f"{ARN}:7")
    assert facts == FunctionFacts(timeout_s=7.0, role_arn="arn:aws:iam::111122223333:role/orders")
    assert service.asked == [
        (ARN, {"Qualifier": "live"}),
        (f"{ARN}:7", {}),
    ]


@pytest.mark.parametrize("timeout_s", [None, 0.2])
@pytest.mark.parametrize("denied", [False, True])
@on_a_loop
async def test_a_function_slower_than_what_is_configured_runs_once_and_answers(
    timeout_s: float | None, denied: bool
) -> None:
    service = SlowLambda(timeout_s=3, takes_s=1.5, denied=denied)
    async with followed(service, timeout_s=timeout_s) as function:
        for _ in range(2):
            assert await called(function) == Succeeded(b'"done"')
    assert (len(service.runs), service.overlapping) == (2, False)


@on_a_loop
async def test_a_function_that_lambda_ends_is_a_time_out_of_its_own_limit() -> None:
    async with followed(SlowLambda(timeout_s=1, takes_s=2.0), timeout_s=5.0) as function:
        assert await called(function) == TimedOut(1.0)


@on_a_loop
async def test_a_limit_that_is_raised_before_a_call_is_known_before_the_call_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("poller.runtime.invoking.MARGIN_S", 0.5)
    monkeypatch.setattr("poller.runtime.function_watch.AGAIN_S", 0.1)
    service = SlowLambda(timeout_s=1, takes_s=2.0)
    async with followed(service) as function:
        # The run begins under the new limit, of which the daemon has not heard.
        service.timeout_s = 30
        assert await called(function) == Succeeded(b'"done"')
    assert len(service.runs) == 1


def test_a_client_is_never_more_impatient_than_the_engine() -> None:
    assert SILENCE_S_MAX > LIMIT_S_MAX + invoking.MARGIN_S
    assert SILENCE_S_MAX > LIMIT_S_MAX + MARGIN_S


@on_a_loop
async def test_the_connection_of_a_call_may_be_silent_for_as_long_as_any_function_runs() -> None:
    async with behind(SlowLambda()) as invoker:
        await invoker.invoke(invocation({}))
        service = await invoker._client(ARN)
        assert service.meta.config.read_timeout == SILENCE_S_MAX
        assert service.meta.config.retries["total_max_attempts"] == 1


@on_a_loop
async def test_many_functions_are_looked_up_at_a_pace_that_leaves_others_room() -> None:
    async with behind(SlowLambda()) as invoker, asyncio.TaskGroup() as looks:
        began = time.monotonic()
        tasks = [looks.create_task(invoker.describe_function(f"{ARN}-{number}")) for number in range(6)]
        await asyncio.wait(tasks)
        assert time.monotonic() - began >= 5 * READ_PERIOD_S


@on_a_loop
async def test_the_connection_of_a_silent_call_is_kept_alive() -> None:
    async with behind(SlowLambda()) as invoker:
        await invoker.invoke(invocation({}))
        http = (await invoker._client(ARN))._endpoint.http_session
        pool = (await http._get_session(None)).connector._conns
        ((handler, _),) = (each for connections in pool.values() for each in connections)
        made = handler.transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


@on_a_loop
async def test_a_call_that_went_unanswered_is_not_repeated_by_the_client() -> None:
    service = SlowLambda(takes_s=1.0)
    app = web.Application()
    app.router.add_post("/2015-03-31/functions/{function}/invocations", service.invoke)
    async with served(app) as url, environment(endpoint_urls={"lambda": url}) as env:
        impatient = await client(env, "lambda", "eu-west-1", purpose="impatient", read_s_max=0.3)
        with pytest.raises(ServiceUnavailable), mapped("lambda Invoke"):
            await impatient.invoke(FunctionName=ARN, Payload=b"{}")
        await asyncio.sleep(1.5)
    assert len(service.runs) == 1


ANSWERS: list[tuple[str, dict[str, Any], FunctionFacts]] = [
    ("a limit alone", {"Timeout": 3}, FunctionFacts(timeout_s=3.0)),
    (
        "everything",
        {
            "Timeout": 900,
            "Role": "arn:aws:iam::111122223333:role/orders",
            "State": "Active",
            "StateReason": "as it should",
            "StateReasonCode": "Idle",
            "LastUpdateStatus": "Successful",
            "LastUpdateStatusReason": "so",
        },
        FunctionFacts(
            timeout_s=900.0,
            role_arn="arn:aws:iam::111122223333:role/orders",
            state="Active",
            state_reason="as it should",
            update_status="Successful",
            update_reason="so",
        ),
    ),
    ("nulls", {"Timeout": 3, "Role": None, "State": None, "StateReason": None}, FunctionFacts(timeout_s=3.0)),
    (
        "words that nobody knows",
        {"Timeout": 3, "State": "Hibernating", "LastUpdateStatus": "Odd"},
        FunctionFacts(timeout_s=3.0, state="Hibernating", update_status="Odd"),
    ),
    (
        "a hostile text",
        {"Timeout": 3, "State": "Failed", "StateReason": "a\x1b[2Jb\u202ec\n" + "d" * 1000},
        FunctionFacts(timeout_s=3.0, state="Failed", state_reason="abc " + "d" * 295 + "…"),
    ),
]


@pytest.mark.parametrize(("answer", "facts"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_whatever_lambda_leaves_out_is_not_known(answer: dict[str, Any], facts: FunctionFacts) -> None:
    assert facts_of(answer) == facts


@pytest.mark.parametrize("answer", [{}, {"Timeout": None}, {"Timeout": 0}, {"Timeout": "60"}])
def test_an_answer_without_a_limit_says_nothing(answer: dict[str, Any]) -> None:
    with pytest.raises(ServiceUnavailable):
        facts_of(answer)


def test_every_state_of_the_service_model_is_decided_about() -> None:
    shapes = botocore.loaders.Loader().load_service_model("lambda", "service-2")["shapes"]
    assert set(shapes["State"]["enum"]) == KNOWN_STATES
    assert set(shapes["LastUpdateStatus"]["enum"]) == {"Successful", "Failed", "InProgress"}


KNOWN_STATES = {
    "Pending",
    "Active",
    "Inactive",
    "Failed",
    "Deactivating",
    "Deactivated",
    "ActiveNonInvocable",
    "Deleting",
}


@pytest.mark.parametrize("answer", [ResourceMissing, AccessDenied])
@on_a_loop
async def test_a_refused_look_says_why(answer: type[PortError]) -> None:
    async def refused(request: web.Request) -> web.Response:
        code, status = (
            ("AccessDeniedException", 403) if answer is AccessDenied else ("ResourceNotFoundException", 404)
        )
        return web.json_response({"Message": "no"}, status=status, headers={"x-amzn-errortype": code})

    app = web.Application()
    app.router.add_get("/2015-03-31/functions/{function}/configuration", refused)
    async with (
        served(app) as url,
        environment(endpoint_urls={"lambda": url}) as env,
        open_lambda(LambdaSettings(function="orders"), env) as invoker,
    ):
        with pytest.raises(answer, match="lambda GetFunctionConfiguration"):
            await invoker.describe_function(ARN)


def test_a_function_in_an_emulator_reports_its_limit_and_role_and_follows_changes() -> None:
    async def run(url: str) -> list[FunctionFacts]:
        async with (
            environment(endpoint_url=url) as env,
            open_lambda(LambdaSettings(function="orders"), env) as invoker,
        ):
            service = await client(env, "lambda", "eu-west-1")
            arn = await deployed(service)
            await service.get_waiter("function_active_v2").wait(FunctionName="orders")
            before = await invoker.describe_function(arn)
            await service.update_function_configuration(FunctionName="orders", Timeout=120)
            return [
                before,
                await invoker.describe_function(arn),
                await invoker.describe_function(f"{arn}:$LATEST"),
            ]

    with ministack() as emulator:
        found = asyncio.run(run(emulator.url))
    assert [each.timeout_s for each in found] == [3.0, 120.0, 120.0]
    assert {each.role_arn for each in found} == {"arn:aws:iam::111122223333:role/orders"}
    # The emulator says Pending while it updates, where Lambda says LastUpdateStatus InProgress.
    assert found[0].trouble == ""
