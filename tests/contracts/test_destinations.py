"""What every destination does: what is delivered is there, what is not is told apart; over real servers and files."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.aws.clients import client
from adapters.demo.processes import free_port
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.testing.destination import (
    DELIVERING,
    FAILING,
    MAPPING,
    PAYLOAD,
    DestinationScenario,
    document,
    notice,
)
from tests.contracts.destinations import (
    ARNS,
    ERRORS,
    REGION,
    SERVICES,
    FileWorld,
    ServedWorld,
    Server,
    destination,
    lines,
    on_emulator,
)
from tests.contracts.invokers import environment
from tests.emulators import Emulator, ministack

DOCUMENT = document(1).decode()
KEY = f"aws/lambda/{MAPPING}/shardId-000000000000/2026/01/01/2026-01-01T00.00.09-9b8fa9f0-5a7f-4000-8000-"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """SQS, SNS, S3, EventBridge and Lambda."""
    with ministack() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account of its own in the emulator."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")


@asynccontextmanager
async def clients(emulator: Emulator) -> AsyncIterator[dict[str, Any]]:
    """Clients of the emulator's services."""
    async with environment(region=REGION, endpoint_url=emulator.url) as env:
        yield {name: await client(env, name, REGION) for name in SERVICES}


async def bodies(sqs: Any, queue_url: str, count: int) -> list[str]:
    """What `count` messages of a queue say."""
    found: list[str] = []
    while len(found) < count:
        answer = await sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        assert answer.get("Messages"), f"only {len(found)} of {count} arrived"
        found += [message["Body"] for message in answer["Messages"]]
    return found


def each(scenarios: tuple[DestinationScenario, ...]) -> pytest.MarkDecorator:
    """One test for each scenario."""
    return pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.__name__)


@pytest.mark.parametrize("kind", ["sqs", "sns", "s3", "events"])
@each(DELIVERING)
def test_a_service_of_aws_is_a_destination(
    scenario: DestinationScenario, kind: str, emulator: Emulator
) -> None:
    async def run() -> None:
        async with on_emulator(kind, emulator.url) as world:
            await scenario(world)

    asyncio.run(run())


@each(DELIVERING + FAILING)
def test_a_url_is_a_destination(scenario: DestinationScenario) -> None:
    server = Server()

    async def run() -> None:
        async with server.running() as url, destination("http", f"{url}/failed") as found:
            await scenario(ServedWorld(found, "http", server))

    asyncio.run(run())


@each(DELIVERING)
def test_a_function_is_a_destination(scenario: DestinationScenario) -> None:
    server = Server()

    async def run() -> None:
        async with server.running() as url, destination("lambda", ARNS["lambda"], url) as found:
            await scenario(ServedWorld(found, "lambda", server))

    asyncio.run(run())


@pytest.mark.parametrize("kind", SERVICES)
@each(FAILING)
def test_a_service_of_aws_that_refuses_is_a_destination(scenario: DestinationScenario, kind: str) -> None:
    server = Server()

    async def run() -> None:
        async with server.running() as url, destination(kind, ARNS[kind], url) as found:
            await scenario(ServedWorld(found, kind, server))

    asyncio.run(run())


@each(DELIVERING + FAILING)
def test_a_directory_is_a_destination(scenario: DestinationScenario, tmp_path: Path) -> None:
    directory = tmp_path / "failed"
    directory.mkdir()

    async def run() -> None:
        async with destination("file", directory.as_uri()) as found:
            await scenario(FileWorld(found, directory))

    asyncio.run(run())


def test_a_queue_gets_the_document_as_it_is_and_again_when_it_is_sent_again(emulator: Emulator) -> None:
    async def run() -> list[str]:
        async with clients(emulator) as aws:
            url = (await aws["sqs"].create_queue(QueueName="failed"))["QueueUrl"]
            async with destination("sqs", ARNS["sqs"], emulator.url) as queue:
                await queue.send(notice())
                await queue.send(notice())
            return await bodies(aws["sqs"], url, 2)

    assert asyncio.run(run()) == [DOCUMENT] * 2


def test_a_topic_publishes_the_document_as_its_message(emulator: Emulator) -> None:
    async def run() -> list[str]:
        async with clients(emulator) as aws:
            url = (await aws["sqs"].create_queue(QueueName="subscribed"))["QueueUrl"]
            topic = (await aws["sns"].create_topic(Name="failed"))["TopicArn"]
            queue_arn = "arn:aws:sqs:eu-west-1:111122223333:subscribed"
            await aws["sns"].subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
            async with destination("sns", topic, emulator.url) as found:
                await found.send(notice())
            return await bodies(aws["sqs"], url, 1)

    notification = json.loads(asyncio.run(run())[0])
    assert notification["Type"] == "Notification"
    assert notification["Message"] == DOCUMENT


def test_a_bucket_gets_one_object_a_notice_with_the_event_in_it(emulator: Emulator) -> None:
    async def run() -> tuple[list[str], Any, bytes]:
        async with clients(emulator) as aws:
            place = {"LocationConstraint": REGION}
            await aws["s3"].create_bucket(Bucket="failed", CreateBucketConfiguration=place)
            async with destination("s3", ARNS["s3"], emulator.url) as bucket:
                for number in (1, 1, 2):
                    await bucket.send(notice(number))
            listed = await aws["s3"].list_objects_v2(Bucket="failed")
            found = await aws["s3"].get_object(Bucket="failed", Key=f"{KEY}{1:012d}")
            return [each["Key"] for each in listed["Contents"]], found, await found["Body"].read()

    keys, found, body = asyncio.run(run())
    assert keys == [f"{KEY}{1:012d}", f"{KEY}{2:012d}"]
    assert found["ContentType"] == "application/octet-stream"
    assert list(json.loads(body)) == ["requestContext", "version", "payload", "timestamp", "x"]
    assert json.loads(body)["payload"] == PAYLOAD.decode()


def test_a_file_gets_a_line_a_notice_with_the_event_in_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with destination("file", tmp_path.as_uri()) as directory, asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(directory.send(notice(number, payload=b'{"x":"' + b"y" * 100_000 + b'"}')))

    asyncio.run(run())
    assert len(lines(tmp_path)) == 20
    assert all(len(line["payload"]) == 100_008 for line in lines(tmp_path))


def test_a_line_that_a_crash_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        async with destination("file", tmp_path.as_uri()) as directory:
            await directory.send(notice())

    path = tmp_path / f"{MAPPING}.jsonl"
    path.write_bytes(b'{"requestContext":')
    asyncio.run(run())
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"requestContext":'
    assert json.loads(whole)["payload"] == PAYLOAD.decode()


def test_a_url_gets_the_document_with_the_event_and_the_id_of_the_notice() -> None:
    server = Server(status=204)

    async def run() -> None:
        async with server.running() as url, destination("http", f"{url}/failed?x=1") as found:
            await found.send(notice())

    asyncio.run(run())
    [(path, headers, body)] = server.requests
    assert path == "/failed"
    assert headers["Idempotency-Key"] == notice().notice_id
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["payload"] == PAYLOAD.decode()


NAMED = {**dict.fromkeys(SERVICES, "failed"), "http": "127.0.0.1"}
"""How an error names the destination that did not take the notice."""
AWS_ERRORS = [
    ("sqs", "AWS.SimpleQueueService.NonExistentQueue", 400, ResourceMissing),
    ("sqs", "QueueDoesNotExist", 400, ResourceMissing),
    ("sqs", "RequestThrottled", 403, ServiceThrottled),
    ("sqs", "AccessDeniedException", 403, AccessDenied),
    ("sqs", "InternalFailure", 500, ServiceUnavailable),
    ("sqs", "InvalidParameterValue", 400, ServiceUnavailable),
    ("sns", "NotFound", 404, ResourceMissing),
    ("sns", "Throttled", 429, ServiceThrottled),
    ("sns", "AuthorizationError", 403, AccessDenied),
    ("sns", "KMSAccessDenied", 400, AccessDenied),
    ("sns", "InternalError", 500, ServiceUnavailable),
    ("s3", "NoSuchBucket", 404, ResourceMissing),
    ("s3", "SlowDown", 503, ServiceThrottled),
    ("s3", "AccessDenied", 403, AccessDenied),
    ("s3", "InternalError", 500, ServiceUnavailable),
    ("events", "ResourceNotFoundException", 400, ResourceMissing),
    ("events", "ThrottlingException", 400, ServiceThrottled),
    ("events", "AccessDeniedException", 400, AccessDenied),
    ("events", "NotAuthorizedForSourceException", 400, AccessDenied),
    ("events", "InternalException", 500, ServiceUnavailable),
    ("lambda", "ResourceNotFoundException", 404, ResourceMissing),
    ("lambda", "TooManyRequestsException", 429, ServiceThrottled),
    ("lambda", "AccessDeniedException", 403, AccessDenied),
    ("lambda", "ServiceException", 500, ServiceUnavailable),
    ("lambda", "InvalidRequestContentException", 400, ServiceUnavailable),
]


@pytest.mark.parametrize(("kind", "code", "status", "error"), AWS_ERRORS)
def test_each_refusal_of_aws_is_the_error_that_says_what_to_do(
    kind: str, code: str, status: int, error: type[PortError]
) -> None:
    server = Server()
    ERRORS[kind](server, code, status)

    async def run() -> None:
        async with server.running() as url, destination(kind, ARNS[kind], url) as found:
            await found.send(notice())

    with pytest.raises(error) as raised:
        asyncio.run(run())
    assert f" to {NAMED[kind]}: " in raised.value.reason
    assert "quoted" not in raised.value.reason


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, ServiceUnavailable),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, ResourceMissing),
        (410, ResourceMissing),
        (413, ServiceUnavailable),
        (429, ServiceThrottled),
        (500, ServiceUnavailable),
        (503, ServiceUnavailable),
    ],
)
def test_each_status_of_a_url_is_the_error_that_says_what_to_do(status: int, error: type[PortError]) -> None:
    server = Server(status=status, headers={"Location": "/elsewhere"})

    async def run() -> None:
        async with server.running() as url, destination("http", f"{url}/failed?token=hidden") as found:
            await found.send(notice())

    with pytest.raises(error) as raised:
        asyncio.run(run())
    assert "hidden" not in raised.value.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", [*SERVICES, "http"])
def test_a_destination_that_nobody_serves_is_unavailable(kind: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    async def run() -> None:
        async with destination(kind, ARNS.get(kind, url), url) as found:
            await found.send(notice())

    with pytest.raises(ServiceUnavailable, match=f" to {NAMED[kind]}: "):
        asyncio.run(run())


@pytest.mark.parametrize("kind", SERVICES)
def test_a_missing_target_in_the_emulator_is_missing(kind: str, emulator: Emulator) -> None:
    async def run() -> None:
        async with destination(kind, f"{ARNS[kind]}-nowhere", emulator.url) as found:
            await found.send(notice())

    with pytest.raises(ResourceMissing, match=f" to {NAMED[kind]}-nowhere: "):
        asyncio.run(run())


@contextmanager
def files_of_bytes(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("directory", "error"),
    [("nowhere", ResourceMissing), (".", ServiceUnavailable), ("/sys/kernel", AccessDenied)],
)
def test_each_fault_of_the_disk_is_the_error_that_says_what_to_do(
    directory: str, error: type[PortError], tmp_path: Path
) -> None:
    async def run() -> None:
        async with destination("file", (tmp_path / directory).as_uri()) as found:
            with files_of_bytes(64):
                await found.send(notice())

    with pytest.raises(error):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "arn", "remedy"),
    [
        ("sqs", "arn:aws:sqs:eu-west-1:111122223333:failed.fifo", "name a standard one"),
        ("sqs", "arn:aws:sns:eu-west-1:111122223333:failed", "write arn:aws:sqs:REGION:ACCOUNT:NAME"),
        ("sns", "arn:aws:sns:eu-west-1:111122223333:failed.fifo", "name a standard one"),
        ("sns", "arn:aws:s3:::failed", "write arn:aws:sns:REGION:ACCOUNT:NAME"),
        ("s3", "arn:aws:s3:::failed/with/key", "write arn:aws:s3:::NAME"),
        ("s3", "arn:aws:sqs:eu-west-1:111122223333:failed", "write arn:aws:s3:::NAME"),
        (
            "events",
            "arn:aws:events:eu-west-1:111122223333:rule/failed",
            "write arn:aws:events:REGION:ACCOUNT:event-bus/NAME",
        ),
        ("events", "arn:aws:events:eu-west-1:111122223333:event-bus/aws.partner/x/y", "event-bus/NAME"),
        (
            "lambda",
            "arn:aws:lambda:eu-west-1:111122223333:function:",
            "write arn:aws:lambda:REGION:ACCOUNT:function:NAME",
        ),
        ("lambda", "arn:aws:lambda:eu-west-1:111122223333:function:f:a:b", "with or without a qualifier"),
        ("file", "file://relative/dir", "write file:///path/of/directory"),
        ("http", "ftp://host/x", "write http://host:port/path"),
    ],
)
def test_a_wrong_arn_is_refused_with_field_value_and_remedy(kind: str, arn: str, remedy: str) -> None:
    async def run() -> None:
        async with destination(kind, arn):
            raise AssertionError("opened")

    with pytest.raises(InvalidConfiguration) as raised:
        asyncio.run(run())
    [problem] = raised.value.problems
    assert problem.startswith(f"destinations {kind}: arn: ")
    assert arn in problem
    assert remedy in problem


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    async def run() -> None:
        async with destination("http", "https://user:geheim@host/x"):
            raise AssertionError("opened")

    with pytest.raises(InvalidConfiguration) as raised:
        asyncio.run(run())
    assert "geheim" not in str(raised.value)
