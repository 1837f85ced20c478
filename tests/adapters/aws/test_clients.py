"""Owns facts of AWS clients and of the table that maps their errors."""

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiobotocore.utils import AioContainerMetadataFetcher
from aiohttp import web
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from adapters.aws.clients import checked_arn, client, mapped, translate
from poller.domain.arns import Arn
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    InvalidConfiguration,
    PortError,
    PositionTrimmed,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from tests.adapters.answers import TOO_DEEP, Answer, environment, error, ok, on_a_loop, serving, until

pytestmark = pytest.mark.usefixtures("account")


def client_error(code: str, status: int) -> boto.ClientError:
    """What botocore raises for an error answer."""
    return boto.ClientError(
        {
            "Error": {"Code": code, "Message": "words with a secret"},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "r",
                "HostId": "",
                "HTTPHeaders": {},
                "RetryAttempts": 0,
            },
        },
        "GetRecords",
    )


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ProvisionedThroughputExceededException", 400, ServiceThrottled),
        ("LimitExceededException", 400, ServiceThrottled),
        ("ThrottlingException", 400, ServiceThrottled),
        ("RequestThrottled", 403, ServiceThrottled),
        ("AWS.SimpleQueueService.RequestThrottled", 403, ServiceThrottled),
        ("OverLimit", 403, ServiceThrottled),
        ("KMSThrottlingException", 400, ServiceThrottled),
        ("SlowDown", 503, ServiceThrottled),
        ("AccessDenied", 403, AccessDenied),
        ("AccessDeniedException", 400, AccessDenied),
        ("UnrecognizedClientException", 400, AccessDenied),
        ("ExpiredTokenException", 400, AccessDenied),
        ("InvalidSignatureException", 400, AccessDenied),
        ("KMSDisabledException", 400, AccessDenied),
        ("KmsAccessDenied", 400, AccessDenied),
        ("ResourceNotFoundException", 400, ResourceMissing),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, ResourceMissing),
        ("QueueDoesNotExist", 400, ResourceMissing),
        ("NoSuchBucket", 404, ResourceMissing),
        ("ExpiredIteratorException", 400, CursorExpired),
        ("TrimmedDataAccessException", 400, PositionTrimmed),
        ("InternalFailure", 500, ServiceUnavailable),
        ("SomethingNew", 503, ServiceUnavailable),
        ("SomethingNew", 400, ServiceUnavailable),
        ("SomethingNew", 429, ServiceThrottled),
        ("SomethingNew", 403, AccessDenied),
        ("404", 404, ResourceMissing),
    ],
)
def test_a_code_says_what_the_caller_does_next(code: str, status: int, kind: type[PortError]) -> None:
    assert type(translate(client_error(code, status), "kinesis GetRecords")) is kind


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ReadTimeoutError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ConnectionClosedError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.HTTPClientError(error="x"), ServiceUnavailable),
        (boto.SSLError(endpoint_url="http://x", error=OSError()), ServiceUnavailable),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), ServiceUnavailable),
        (ResponseParserError("x"), ServiceUnavailable),
        (aiohttp.ClientPayloadError("x"), ServiceUnavailable),
        (ConnectionResetError(), ServiceUnavailable),
        (TimeoutError(), ServiceUnavailable),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), ServiceUnavailable),
        (RecursionError(), ServiceUnavailable),
        (boto.NoCredentialsError(), AccessDenied),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), AccessDenied),
        (boto.CredentialRetrievalError(provider="x", error_msg="x"), AccessDenied),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_a_client_raises_is_mapped_by_type(raised: Exception, kind: type[PortError]) -> None:
    with pytest.raises(kind) as caught, mapped("sqs ReceiveMessage"):
        raise raised
    assert type(caught.value) is kind
    assert caught.value.__cause__ is raised
    assert caught.value.reason.startswith("sqs ReceiveMessage: ")


def test_a_code_may_mean_something_else_in_one_operation() -> None:
    special = {"InvalidArgumentException": CursorExpired}
    assert type(translate(client_error("InvalidArgumentException", 400), "x", special)) is CursorExpired


def test_a_reason_repeats_no_words_of_the_service() -> None:
    reason = translate(client_error("AccessDenied", 403), "kinesis GetRecords").reason
    assert reason == "kinesis GetRecords: AccessDenied (HTTP 403)"


def test_a_bug_passes_the_table() -> None:
    with pytest.raises(ZeroDivisionError), mapped("kinesis GetRecords"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error("ThrottlingException"), ServiceThrottled),
        (error("QueueDoesNotExist", query="AWS.SimpleQueueService.NonExistentQueue"), ResourceMissing),
        (Answer(b"<html>bad gateway</html>", 502), ServiceUnavailable),
        (Answer(b"", 503), ServiceUnavailable),
        (Answer(b'{"Messages":[{"MessageId":"1","Body":"x', 200), ServiceUnavailable),
        (Answer(b"", 200), ServiceUnavailable),
        (Answer(b"[]", 200), ServiceUnavailable),
        (Answer(b'{"Messages":[{"Body":"\xff\xfe"}]}', 200), ServiceUnavailable),
        (Answer(b'{"Messages":[{"MessageId":"1"}]}', 200, cut=20), ServiceUnavailable),
        (TOO_DEEP, ServiceUnavailable),
        (replace(TOO_DEEP, status=400), ServiceUnavailable),
    ],
    ids=[
        "throttled",
        "query code",
        "html",
        "empty error",
        "truncated",
        "empty body",
        "not an object",
        "bad utf-8",
        "connection lost",
        "too deep",
        "too deep error",
    ],
)
@on_a_loop
async def test_a_bad_answer_is_never_an_empty_success(answer: Answer, kind: type[PortError]) -> None:
    async with serving({"ReceiveMessage": [answer]}) as service, environment(service.url) as env:
        sqs = await client(env, "sqs", "eu-west-1")
        with pytest.raises(kind) as caught, mapped("sqs ReceiveMessage"):
            await sqs.receive_message(QueueUrl=f"{service.url}/q")
        assert type(caught.value) is kind
        assert service.operations() == ["ReceiveMessage"], "the client itself does not retry"


@on_a_loop
async def test_nobody_listening_is_unavailable() -> None:
    async with environment("http://127.0.0.1:1") as env:
        kinesis = await client(env, "kinesis", "eu-west-1")
        with pytest.raises(ServiceUnavailable), mapped("kinesis ListShards"):
            await kinesis.list_shards(StreamName="s")


@on_a_loop
async def test_no_credentials_are_an_access_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with environment("http://127.0.0.1:1") as env:
        kinesis = await client(env, "kinesis", "eu-west-1")
        with pytest.raises(AccessDenied, match="NoCredentialsError"), mapped("kinesis ListShards"):
            await kinesis.list_shards(StreamName="s")


@on_a_loop
async def test_a_client_is_shared_by_service_region_and_purpose() -> None:
    async with environment("http://127.0.0.1:1") as env:
        first = await client(env, "sqs", "eu-west-1")
        assert await client(env, "sqs", None) is first
        assert await client(env, "sqs", "eu-central-1") is not first
        assert await client(env, "sqs", "eu-west-1", purpose="long polls") is not first


@on_a_loop
async def test_an_endpoint_comes_from_the_aws_variables_when_settings_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving({"ListShards": [ok(Shards=[])]}) as service, environment(None) as env:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", service.url)
        kinesis = await client(env, "kinesis", "eu-west-1")
        assert (await kinesis.list_shards(StreamName="s"))["Shards"] == []


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-central-1"}, "eu-central-1"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1"),
        ({"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-north-1"}, "eu-central-1"),
    ],
)
@on_a_loop
async def test_a_region_comes_from_the_aws_variables_when_settings_have_none(
    variables: dict[str, str], region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with environment("http://127.0.0.1:1") as env:
        for service in ("dynamodb", "sqs"):
            found = await client(replace(env, region=None), service, None)
            assert found.meta.region_name == region


@pytest.mark.parametrize("url", ["not a url", "127.0.0.1:4566"])
@on_a_loop
async def test_an_endpoint_that_is_none_is_a_configuration_problem(url: str) -> None:
    async with environment(url) as env:
        with pytest.raises(InvalidConfiguration) as caught:
            await client(env, "sqs", "eu-west-1")
    (problem,) = caught.value.problems
    assert repr(url) in problem
    assert "set region and endpoint_url" in problem


@on_a_loop
async def test_a_cancelled_call_leaves_no_connection_behind() -> None:
    async with (
        serving({"ReceiveMessage": [Answer(silent=True), ok()]}) as service,
        environment(service.url) as env,
    ):
        sqs = await client(env, "sqs", "eu-west-1")
        async with asyncio.TaskGroup() as group:
            call = group.create_task(sqs.receive_message(QueueUrl="http://q"), name="poll")
            await service.waiting.wait()
            call.cancel()
        assert call.cancelled()
        await until(lambda: service.open_requests == 0)
        assert "Messages" not in await sqs.receive_message(QueueUrl="http://q")


def test_an_arn_has_six_parts() -> None:
    arn = Arn.parse("arn:aws-cn:dynamodb:cn-north-1:111122223333:table/t/stream/2026-01-01T00:00:00.000")
    assert (arn.partition, arn.service, arn.region) == ("aws-cn", "dynamodb", "cn-north-1")
    assert (arn.account, arn.resource) == ("111122223333", "table/t/stream/2026-01-01T00:00:00.000")
    with pytest.raises(ValueError, match="not an ARN"):
        Arn.parse("arn:aws:sqs")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "orders",
        "arn:aws:sqs:eu-west-1:111122223333:orders",
        "arn:aws:kinesis:eu-west-1:1111:stream/orders",
        "arn:aws:kinesis::111122223333:stream/orders",
    ],
)
def test_a_wrong_arn_is_reported_with_what_to_write(text: str) -> None:
    form = "the ARN of a stream; write arn:…"
    with pytest.raises(ValueError, match=f"^is not {form}$"):
        checked_arn(text, service="kinesis", resource="stream/[a-z]+", form=form)


@pytest.mark.parametrize("blanks", [" {}", "{} ", "{}\n", "\t{}\r\n"])
def test_an_arn_with_blanks_around_it_is_reported_so(blanks: str) -> None:
    text = blanks.format("arn:aws:kinesis:eu-west-1:111122223333:stream/orders")
    with pytest.raises(ValueError, match=r"^has blanks around it; remove them$"):
        checked_arn(
            text, service="kinesis", resource="stream/[a-z]+", form="the ARN of a stream; write arn:…"
        )


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 503},
        {"status": 500, "text": "{}"},
        {"text": "not json"},
        {"text": '{"Message": "no role"}'},
        {"text": "[]"},
        {"text": "null"},
        {"text": '{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t", "Expiration": 7}'},
        {"text": '{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t", "Expiration": "soon"}'},
        {"text": '{"AccessKeyId": 1, "SecretAccessKey": null, "Token": [], "Expiration": null}'},
    ],
    ids=str,
)
def test_a_hiccup_of_the_credentials_service_is_no_mistake_of_the_configuration(
    refusal: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AioContainerMetadataFetcher, "SLEEP_TIME", 0.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    healthy: list[bool] = []
    given = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "s", "Token": "t"}

    async def credentials(_request: web.Request) -> web.Response:
        if healthy:
            return web.json_response({**given, "Expiration": "2099-01-01T00:00:00Z"})
        return web.Response(**refusal)

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/creds", credentials)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/creds")
            async with serving({"ListShards": [ok(Shards=[])]}) as service, environment(service.url) as env:
                with pytest.raises(ServiceUnavailable, match="credentials"):
                    await client(env, "kinesis", "eu-west-1")
                healthy.append(True)
                kinesis = await client(env, "kinesis", "eu-west-1")
                assert (await kinesis.list_shards(StreamName="s"))["Shards"] == []
        finally:
            await runner.cleanup()

    asyncio.run(main())
