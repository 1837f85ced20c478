"""What Lambda gets beside the event: the tenant, the client context, and the sender's trace."""

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.invokers.lambda_api import LambdaInvoker, log_lines, open_lambda, plugin
from adapters.invokers.lambda_calls.queue_events import TRACE_CHARS_MAX, message_groups, trace_header
from adapters.invokers.lambda_calls.settings import (
    CLIENT_CONTEXT_BYTES_MAX,
    TENANT_CHARS_MAX,
    LambdaSettings,
    is_tenant,
)
from poller.domain.findings import Finding, Severity
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Unreachable
from poller.testing.invoker import ARN, invocation
from tests.adapters.answers import environment, on_a_loop
from tests.adapters.aws.test_request_templates import Wire, signature, wire, without_the_library

pytestmark = pytest.mark.usefixtures("account")

PATH = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Aorders/invocations"
DONE = (200, {"X-Amz-Executed-Version": "7"}, b'{"done":true}')
OK = Succeeded(DONE[2], "7")
REFUSED = (400, {"x-amzn-ErrorType": "InvalidParameterValueException"}, b"{}")
ROOT = "Root=1-67891233-abcdef012345678912345678;Parent=463ac35c9f6413ad;Sampled=1"
OTHER_ROOT = ROOT.replace("67891233", "67891234")


def message(group: str | None = None, trace: str | None = None, body: str = "{}") -> dict[str, Any]:
    """One message as events have it."""
    attributes = {"ApproximateReceiveCount": "1", "AWSTraceHeader": trace, "MessageGroupId": group}
    return {
        "messageId": "m",
        "body": body,
        "attributes": {name: text for name, text in attributes.items() if text is not None},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }


def event(*messages: dict[str, Any]) -> dict[str, Any]:
    """An event of a queue."""
    return {"Records": list(messages)}


def written(found: dict[str, Any]) -> bytes:
    """An event as the engine writes it."""
    return json.dumps(found, separators=(",", ":")).encode()


@asynccontextmanager
async def calling(*answers: Any, **settings: Any) -> AsyncIterator[tuple[LambdaInvoker, Wire]]:
    """An invoker with these settings, and the server that it asks."""
    given = LambdaSettings.model_validate({"function": "orders", **settings})
    async with (
        wire(*(answers or (DONE,))) as server,
        environment(server.url) as env,
        open_lambda(given, env) as invoker,
    ):
        yield invoker, server


async def called(content: dict[str, Any], **settings: Any) -> tuple[Outcome, int]:
    """The outcome of one call, and how many requests were made."""
    async with calling(**settings) as (invoker, server):
        return await invoker.invoke(invocation(content)), len(server.asked)


@on_a_loop
async def test_a_fixed_tenant_is_sent_and_signed_with_every_call() -> None:
    async with calling(tenant_id="blue team/7") as (invoker, server):
        assert await invoker.invoke(invocation({"n": 1})) == OK
        with without_the_library():
            assert await invoker.invoke(invocation({"n": 2})) == OK
        assert [each.headers["x-amz-tenant-id"] for each in server.asked] == ["blue team/7"] * 2
        assert "x-amz-tenant-id" in server.asked[1].headers["authorization"]
        signature(server.asked[1], f"{server.url}{PATH}", service="lambda", secret="not-a-secret")


@on_a_loop
async def test_each_message_group_is_a_tenant_of_its_own_also_when_calls_are_repeated() -> None:
    groups = ["blue", "red", "blue", "red"]
    async with calling(tenant_id_from="message_group") as (invoker, server):
        for group in groups[:2]:
            assert await invoker.invoke(invocation(event(message(group)))) == OK
        with without_the_library():
            for group in groups[2:]:
                assert await invoker.invoke(invocation(event(message(group), message(group)))) == OK
        assert [each.headers["x-amz-tenant-id"] for each in server.asked] == groups


@on_a_loop
async def test_a_message_without_a_group_goes_to_the_fixed_tenant() -> None:
    async with calling(tenant_id_from="message_group", tenant_id="rest") as (invoker, server):
        assert await invoker.invoke(invocation(event(message()))) == OK
        assert await invoker.invoke(invocation(event(message("blue")))) == OK
        assert [each.headers["x-amz-tenant-id"] for each in server.asked] == ["rest", "blue"]


@pytest.mark.parametrize(
    ("group", "error_type"),
    [(None, "Function.TenantIdMissing"), ("a%b", "Function.TenantIdInvalid")],
    ids=["none", "not allowed"],
)
@on_a_loop
async def test_a_message_without_a_usable_group_fails_by_itself_and_calls_nobody(
    group: str | None, error_type: str
) -> None:
    outcome, requests = await called(event(message(group)), tenant_id_from="message_group")
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == error_type
    assert requests == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (event(message("blue"), message("red")), "2 message groups in one event"),
        (event(message("blue"), message()), "2 message groups in one event"),
        ({"Records": [{"eventSource": "aws:kinesis", "kinesis": {}}]}, "the event is not of a queue"),
        ({}, "the event is not of a queue"),
    ],
    ids=["two groups", "a group and none", "a stream", "another event"],
)
@on_a_loop
async def test_an_event_that_is_not_for_one_tenant_calls_nobody_and_uses_up_no_receive(
    content: dict[str, Any], reason: str
) -> None:
    outcome, requests = await called(content, tenant_id_from="message_group", tenant_id="rest")
    assert isinstance(outcome, Unreachable)
    assert outcome.reason.startswith(
        f"functions.orders.tenant_id_from: {reason}, and a call is for one tenant; write "
    )
    assert requests == 0


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({}, "a function with tenant isolation needs tenant_id or tenant_id_from"),
        (
            {"tenant_id": "blue"},
            "has the function tenant isolation? only then may tenant_id or tenant_id_from be set",
        ),
    ],
    ids=["none given", "one given"],
)
@on_a_loop
async def test_a_tenant_that_lambda_refuses_is_unreachable_with_the_remedy(
    settings: dict[str, Any], remedy: str
) -> None:
    async with calling(REFUSED, **settings) as (invoker, _):
        reason = f"lambda Invoke: InvalidParameterValueException (HTTP 400); {remedy}"
        assert await invoker.invoke(invocation({})) == Unreachable(reason)


def configuration(mode: str | None) -> tuple[int, dict[str, str], bytes]:
    """An answer of GetFunctionConfiguration."""
    tenancy = {} if mode is None else {"TenancyConfig": {"TenantIsolationMode": mode}}
    return 200, {}, json.dumps({"Timeout": 3, "State": "Active", **tenancy}).encode()


FINDINGS: list[tuple[dict[str, Any], str | None, Any, list[Finding]]] = [
    ({}, None, (204, {}, b""), []),
    ({"tenant_id": "blue"}, "PER_TENANT", (204, {}, b""), [Finding("tenant isolation", Severity.OK)]),
    (
        {},
        "PER_TENANT",
        REFUSED,
        [
            Finding(
                "tenant isolation",
                Severity.PROBLEM,
                f"{ARN} has tenant isolation, so that each call needs a tenant",
                "write tenant_id or tenant_id_from at functions.orders",
            )
        ],
    ),
    (
        {"tenant_id_from": "message_group"},
        None,
        REFUSED,
        [
            Finding(
                "tenant isolation",
                Severity.PROBLEM,
                f"{ARN} has no tenant isolation, so that Lambda refuses calls for a tenant",
                "remove tenant_id and tenant_id_from at functions.orders",
            )
        ],
    ),
]


@pytest.mark.parametrize(("settings", "mode", "dry_run", "found"), FINDINGS)
@on_a_loop
async def test_a_check_compares_the_function_s_isolation_with_the_settings(
    settings: dict[str, Any], mode: str | None, dry_run: Any, found: list[Finding]
) -> None:
    async with calling(dry_run, configuration(mode), **settings) as (invoker, server):
        findings = [*await invoker.probe_function(ARN)]
        assert [each for each in findings if each.check == "tenant isolation"] == found
        assert all(each.grade is Severity.OK for each in findings if each.check != "tenant isolation")
        tenant = {"tenant_id": "blue"}.get(next(iter(settings), "")) or ("poller-check" if settings else None)
        assert server.asked[0].headers.get("x-amz-tenant-id") == tenant


@on_a_loop
async def test_a_client_context_is_sent_as_base64_of_json() -> None:
    context = {"custom": {"stage": "live", "größe": 3}, "client": {"app_title": "orders"}}
    async with calling(client_context=context) as (invoker, server):
        assert await invoker.invoke(invocation({"n": 1})) == OK
        with without_the_library():
            assert await invoker.invoke(invocation({"n": 2})) == OK
        for each in server.asked:
            assert json.loads(base64.b64decode(each.headers["x-amz-client-context"])) == context
        signature(server.asked[1], f"{server.url}{PATH}", service="lambda", secret="not-a-secret")


@on_a_loop
async def test_a_changed_client_context_is_not_the_one_that_was_repeated() -> None:
    async with wire(DONE) as server, environment(server.url) as env:
        for stage in ("test", "live"):
            given = LambdaSettings(function="orders", client_context={"custom": {"stage": stage}})
            async with open_lambda(given, env) as invoker:
                assert await invoker.invoke(invocation({})) == OK
        sent = [json.loads(base64.b64decode(each.headers["x-amz-client-context"])) for each in server.asked]
        assert [each["custom"]["stage"] for each in sent] == ["test", "live"]


@on_a_loop
async def test_a_trace_header_is_passed_on_by_the_library_and_by_repeated_calls_each_with_its_own() -> None:
    traces = [ROOT, OTHER_ROOT, None, ROOT]
    async with calling() as (invoker, server):
        for position, trace in enumerate(traces):
            content = invocation(event(message(trace=trace)))
            if position == 0:
                assert await invoker.invoke(content) == OK
            else:
                with without_the_library():
                    assert await invoker.invoke(content) == OK
        assert [each.headers.get("x-amzn-trace-id") for each in server.asked] == traces
        for each in server.asked:
            assert "x-amzn-trace-id" not in each.headers["authorization"]
            signature(each, f"{server.url}{PATH}", service="lambda", secret="not-a-secret")


TRACES: list[tuple[str, dict[str, Any], str | None]] = [
    ("one message", event(message(trace=ROOT)), ROOT),
    (
        "the same twice, and a message without one",
        event(message(trace=ROOT), message(), message(trace=ROOT)),
        ROOT,
    ),
    ("two traces", event(message(trace=ROOT), message(trace=OTHER_ROOT)), None),
    ("no trace", event(message()), None),
    ("a body that looks like one", event(message(body=f'{{"AWSTraceHeader":"{ROOT}"}}')), None),
    ("a line break", event(message(trace="Root=1\r\nX-Amz-Tenant-Id: red")), None),
    ("a letter outside ASCII", event(message(trace="Root=ä")), None),
    ("an empty text", event(message(trace="")), None),
    ("the longest", event(message(trace="a" * TRACE_CHARS_MAX)), "a" * TRACE_CHARS_MAX),
    ("one that is too long", event(message(trace="a" * (TRACE_CHARS_MAX + 1))), None),
    ("a lone surrogate beside it", event(message(trace=ROOT, body="\ud800")), ROOT),
    (
        "a stream's record",
        {"Records": [{"eventSource": "aws:dynamodb", "attributes": {"AWSTraceHeader": ROOT}}]},
        None,
    ),
    (
        "odd members",
        {"Records": [{"eventSource": "aws:sqs", "attributes": {"AWSTraceHeader": ROOT}}, 7]},
        None,
    ),
]


@pytest.mark.parametrize(("content", "trace"), [row[1:] for row in TRACES], ids=[row[0] for row in TRACES])
def test_a_trace_is_passed_on_if_all_that_an_event_has_is_the_same_header(
    content: dict[str, Any], trace: str | None
) -> None:
    assert trace_header(written(content)) == trace


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=4))
def test_the_groups_of_an_event_are_those_of_its_messages(groups: list[str | None]) -> None:
    assert message_groups(written(event(*map(message, groups)))) == set(groups)


@given(st.text(max_size=300))
def test_what_counts_as_a_tenant_id_is_what_lambda_s_model_allows(text: str) -> None:
    model = botocore.session.get_session().get_service_model("lambda").shape_for("TenantId").metadata
    allowed = re.fullmatch(model["pattern"], text) is not None and model["min"] <= len(text) <= model["max"]
    assert is_tenant(text) == (allowed and text == text.strip())
    assert model["max"] == TENANT_CHARS_MAX


def problems(**settings: Any) -> str:
    """What is wrong with these settings."""
    with pytest.raises(ValidationError) as caught:
        LambdaSettings.model_validate({"function": "orders", **settings})
    (found,) = caught.value.errors()
    assert found["loc"][0] == next(iter(settings))
    return str(found["msg"]).removeprefix("Value error, ")


def test_a_client_context_that_is_too_long_is_refused_with_its_length() -> None:
    room = CLIENT_CONTEXT_BYTES_MAX // 4 * 3 - len('{"a":""}')
    LambdaSettings(function="orders", client_context={"a": "x" * room})
    text = problems(client_context={"a": "x" * (room + 1)})
    assert text == "has 3584 bytes as base64; Lambda takes 3583, make it shorter"


@pytest.mark.parametrize("value", ["custom", ["custom"], 7], ids=["text", "list", "number"])
def test_a_client_context_that_is_no_table_is_refused(value: object) -> None:
    assert problems(client_context=value).startswith("not a table; write names and values")


@pytest.mark.parametrize("value", [float("nan"), b"x", object()], ids=["no number", "bytes", "object"])
def test_a_client_context_with_what_json_does_not_have_is_refused(value: object) -> None:
    assert (
        problems(client_context={"a": value})
        == "has a value that JSON has not, such as a date; put it in quotes"
    )


@pytest.mark.parametrize("text", ["", " blue", "blue ", "a%b", "a\r\nb", "ä", "x" * 257])
def test_a_tenant_id_that_lambda_would_refuse_is_refused(text: str) -> None:
    assert problems(tenant_id=text).startswith("not a tenant id of Lambda; ")


def test_the_plug_in_looks_at_the_mappings_of_its_functions() -> None:
    assert plugin.misfits is not None


@on_a_loop
async def test_a_client_s_context_and_log_pass_through() -> None:
    log = base64.b64encode(b"START RequestId: x\nhello\nEND RequestId: x\nREPORT RequestId: x\n").decode()
    answer = (200, {**DONE[1], "X-Amz-Log-Result": log}, DONE[2])
    own = base64.b64encode(b'{"custom":{"who":"client"}}').decode()
    async with calling(answer, client_context={"custom": {"who": "settings"}}) as (invoker, server):
        call = replace(invocation({"n": 1}), client_context=own, log_tail=True)
        with invoker._env.function_log.tail(call.request_id) as tail:
            assert await invoker.invoke(call) == OK
        assert tail.text() == "hello\n"
        assert server.asked[0].headers["x-amz-client-context"] == own
        assert server.asked[0].headers["x-amz-log-type"] == "Tail"
        assert await invoker.invoke(replace(call, client_context="")) == OK
        assert server.asked[1].headers["x-amz-client-context"] != own


@pytest.mark.parametrize("text", [None, "", "%%%", "x"])
def test_a_log_that_cannot_be_read_has_no_lines(text: str | None) -> None:
    assert log_lines(text) == []
