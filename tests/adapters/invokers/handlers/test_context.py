"""The context of Python functions: every attribute of Lambda's own, with its type, and a place for a function's own ones."""

import copy
import inspect
from typing import Any

import pytest
from awslambdaric.lambda_context import LambdaContext

from adapters.invokers.handlers.context import FunctionContext, context_of
from poller.domain.invocations import EncodedEvent, Invocation
from poller.testing.invoker import ARN, REQUEST_ID


@pytest.fixture
def context() -> FunctionContext:
    call = Invocation(ARN, REQUEST_ID, EncodedEvent(b"{}"), 5.0)
    return context_of(call, function="orders", memory_mb=256, stream="s-1")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The context that awslambdaric makes of the same call."""
    variables = {
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/orders",
        "AWS_LAMBDA_LOG_STREAM_NAME": "s-1",
        "AWS_LAMBDA_FUNCTION_NAME": "orders",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return LambdaContext(REQUEST_ID, None, None, 0, ARN)


def names(context: object) -> set[str]:
    return {name for name, _ in inspect.getmembers(context) if not name.startswith("_")}


def test_it_has_every_attribute_that_lambda_s_has_with_the_same_value(
    context: FunctionContext, aws: Any
) -> None:
    assert names(context) >= names(aws)
    for name in names(aws):
        ours, theirs = getattr(context, name), getattr(aws, name)
        if not callable(theirs) and name != "identity":
            assert (name, ours) == (name, theirs)
    assert vars(context).keys() >= vars(aws).keys() - {"_w3c_fields"}


def test_nobody_s_identity_has_lambda_s_members(context: FunctionContext, aws: Any) -> None:
    assert names(context.identity) == names(aws.identity)
    assert context.identity.cognito_identity_id is None
    assert context.identity.cognito_identity_pool_id is None


def test_methods_take_what_lambda_s_take(context: FunctionContext, aws: Any) -> None:
    for name in ("log", "w3c", "get_remaining_time_in_millis"):
        theirs = inspect.signature(getattr(aws, name)).parameters
        assert inspect.signature(getattr(context, name)).parameters.keys() == theirs.keys()
    assert context.w3c() == aws.w3c()


def test_it_reads_like_lambda_s(context: FunctionContext, aws: Any) -> None:
    assert repr(context) == repr(aws)


def test_a_function_may_keep_things_in_it(context: FunctionContext) -> None:
    context.tenant = "t-1"  # type: ignore[attr-defined]
    assert copy.copy(context).tenant == "t-1"  # type: ignore[attr-defined]
    assert vars(context)["aws_request_id"] == REQUEST_ID


def test_the_time_that_is_left_is_never_negative() -> None:
    call = Invocation(ARN, REQUEST_ID, EncodedEvent(b"{}"), 0.0)
    assert context_of(call, function="f", memory_mb=1, stream="s").get_remaining_time_in_millis() == 0


def test_a_log_message_is_a_line(context: FunctionContext, capsys: pytest.CaptureFixture[str]) -> None:
    context.log("hello")
    context.log(7)
    assert capsys.readouterr().out == "hello\n7\n"
