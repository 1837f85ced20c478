"""Notices of queues and topics with their event: inline while it fits, then as an object or with its size; over real servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.aws.clients import client
from adapters.destinations import sns, sqs
from adapters.destinations.payloads import inline
from poller.domain.errors import AccessDenied, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.invocations import object_key, with_payload
from poller.domain.records import JsonObject
from poller.testing.destination import DELIVERING, FAILING, DestinationScenario, document, notice
from tests.contracts.destinations import (
    ACCEPTED,
    ARNS,
    REGION,
    ServedWorld,
    Server,
    destination,
    on_emulator,
)
from tests.contracts.invokers import environment, served
from tests.emulators import Emulator, ministack

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
"""The HTTP library doubts bodies of more than 1 MiB that are in memory. The daemon does not show such warnings."""

LIMITS = {"sqs": sqs.MESSAGE_BYTES_MAX, "sns": sns.MESSAGE_BYTES_MAX}
KINDS = pytest.mark.parametrize("kind", ["sqs", "sns"])
PREFIX = "s3://large/events"
REFUSALS = {"sqs": "InvalidParameterValue", "sns": "InvalidParameter"}
"""The codes of a message that is longer than the queue's or topic's own limit."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """SQS, SNS and S3."""
    with ministack() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account of its own in the emulator."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")


def event(size: int) -> bytes:
    """An event of so many bytes, without a quotation mark that the document would escape but its own six."""
    return b'{"x":"' + b"y" * (size - 8) + b'"}'


@dataclass
class Services:
    """A queue or topic that refuses long messages, and a bucket, which keep what they get in the order in which it came."""

    kind: str
    message_bytes_max: int
    bucket_status: int = 200
    bucket_code: str = ""
    message_status: int = 200
    came: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    refused: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answers any request of the three services."""
        body = await request.read()
        if request.method == "PUT":
            return self._put(request.path, body)
        text = (
            str(json.loads(body)["MessageBody"])
            if self.kind == "sqs"
            else parse_qs(body.decode())["Message"][0]
        )
        if self.message_status != 200:
            return self._refusal("InternalFailure", self.message_status)
        if len(text.encode()) > self.message_bytes_max:
            self.refused += 1
            return self._refusal(REFUSALS[self.kind], 400)
        self.came.append("message")
        self.messages.append(text)
        return web.Response(text=ACCEPTED[self.kind])

    def _put(self, path: str, body: bytes) -> web.Response:
        if self.bucket_status != 200:
            text = f"<Error><Code>{self.bucket_code}</Code><Message>no</Message></Error>"
            return web.Response(status=self.bucket_status, text=text)
        self.came.append("object")
        self.objects[path] = body
        return web.Response()

    def _refusal(self, code: str, status: int) -> web.Response:
        if self.kind == "sns":
            text = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
            return web.Response(status=status, text=text)
        document = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "no"})
        return web.Response(status=status, text=document, headers={"x-amzn-errortype": code})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serves; yields the URL."""
        app = web.Application(client_max_size=2**25)
        app.router.add_route("*", "/{path:.*}", self.answer)
        async with served(app) as url:
            yield url

    def document(self) -> JsonObject:
        """The one document that has arrived."""
        [text] = self.messages
        found: JsonObject = json.loads(text)
        return found


def services(kind: str, **more: Any) -> Services:
    """Services whose queue or topic has the limit of the service itself."""
    return Services(**{"kind": kind, "message_bytes_max": LIMITS[kind], **more})


def send(found: Services, payload: bytes, *, times: int = 1, prefix: str | None = PREFIX) -> None:
    """Sends one notice with this event, so many times."""

    async def run() -> None:
        more = {"include_payload": True, "payload_prefix": prefix}
        async with found.running() as url, destination(found.kind, ARNS[found.kind], url, **more) as target:
            for _ in range(times):
                await target.send(notice(payload=payload))

    asyncio.run(run())


KEY = f"events/{object_key(notice())}"
EVENTS = pytest.mark.parametrize("scenario", DELIVERING, ids=lambda scenario: scenario.__name__)


@KINDS
@EVENTS
def test_a_service_of_aws_with_events_is_a_destination(
    scenario: DestinationScenario, kind: str, emulator: Emulator
) -> None:
    async def run() -> None:
        async with on_emulator(kind, emulator.url, with_payload=True) as world:
            await scenario(world)

    asyncio.run(run())


@KINDS
@pytest.mark.parametrize("scenario", FAILING, ids=lambda scenario: scenario.__name__)
def test_a_service_of_aws_with_events_that_refuses_is_a_destination(
    scenario: DestinationScenario, kind: str
) -> None:
    server = Server()

    async def run() -> None:
        async with (
            server.running() as url,
            destination(kind, ARNS[kind], url, include_payload=True) as found,
        ):
            await scenario(ServedWorld(found, kind, server, with_payload=True))

    asyncio.run(run())


@KINDS
@pytest.mark.parametrize(
    "more", [{}, {"include_payload": False}, {"include_payload": False, "payload_prefix": PREFIX}]
)
def test_without_the_setting_the_document_is_aws_own_bytes(kind: str, more: dict[str, Any]) -> None:
    found = services(kind)

    async def run() -> None:
        async with found.running() as url, destination(kind, ARNS[kind], url, **more) as target:
            await target.send(notice(payload=event(2_000_000)))

    asyncio.run(run())
    assert found.messages == [document(1).decode()]
    assert found.came == ["message"]


@KINDS
@pytest.mark.parametrize("prefix", [None, PREFIX])
def test_an_event_that_fits_is_the_member_payload_as_in_the_objects_of_s3(
    kind: str, prefix: str | None
) -> None:
    found = services(kind)
    send(found, b'{"Records":[{"body":"\xc3\xa4 \\"x\\""}]}', prefix=prefix)
    assert list(found.document()) == ["requestContext", "version", "payload", "timestamp", "x"]
    assert found.messages == [
        with_payload(notice(payload=b'{"Records":[{"body":"\xc3\xa4 \\"x\\""}]}')).decode()
    ]
    assert found.objects == {}


@KINDS
@pytest.mark.parametrize("over", [0, 1])
def test_the_whole_message_in_bytes_decides_whether_an_event_fits(kind: str, over: int) -> None:
    found = services(kind)
    around = len(with_payload(notice(payload=event(100)))) - 100
    send(found, event(LIMITS[kind] - around + over))
    assert found.refused == 0
    assert found.came == (["object", "message"] if over else ["message"])
    assert ("payload" in found.document()) is not bool(over)
    assert over or len(found.messages[0].encode()) == LIMITS[kind]


@KINDS
def test_a_large_event_is_an_object_that_is_there_before_the_notice_names_it(kind: str) -> None:
    found = services(kind)
    large = event(2_000_000)
    send(found, large)
    assert found.came == ["object", "message"]
    told = found.document()
    assert list(told) == ["requestContext", "version", "payloadObject", "timestamp", "x"]
    assert told["payloadObject"] == {"bucket": "large", "key": KEY, "sizeBytes": 2_000_000}
    assert found.objects == {f"/large/{KEY}": with_payload(notice(payload=large))}


@KINDS
def test_a_large_event_without_a_prefix_is_left_out_and_the_document_says_how_large_it_is(kind: str) -> None:
    found = services(kind)
    send(found, event(2_000_000), prefix=None)
    told = found.document()
    assert list(told) == ["requestContext", "version", "payloadOmitted", "timestamp", "x"]
    assert told["payloadOmitted"] == {"sizeBytes": 2_000_000}


@KINDS
@pytest.mark.parametrize(("prefix", "member"), [(PREFIX, "payloadObject"), (None, "payloadOmitted")])
def test_a_queue_or_topic_with_a_lower_limit_of_its_own_gets_the_notice_without_the_event(
    kind: str, prefix: str | None, member: str
) -> None:
    found = services(kind, message_bytes_max=4096)
    send(found, event(5000), prefix=prefix)
    assert found.refused == 1
    assert found.document()[member]["sizeBytes"] == 5000


@KINDS
def test_a_repeated_notice_writes_to_the_same_key(kind: str) -> None:
    found = services(kind)
    send(found, event(2_000_000), times=3)
    assert list(found.objects) == [f"/large/{KEY}"]
    assert len(set(found.messages)) == 1
    assert len(found.messages) == 3


BUCKET_ERRORS = [
    (403, "AccessDenied", AccessDenied),
    (404, "NoSuchBucket", ResourceMissing),
    (500, "InternalError", ServiceUnavailable),
    (400, "InvalidRequest", ServiceUnavailable),
]


@KINDS
@pytest.mark.parametrize(("status", "code", "error"), BUCKET_ERRORS)
def test_an_object_that_cannot_be_written_is_a_failure_of_the_destination_and_sends_nothing(
    kind: str, status: int, code: str, error: type[PortError]
) -> None:
    found = services(kind, bucket_status=status, bucket_code=code)
    with pytest.raises(error) as raised:
        send(found, event(2_000_000))
    assert raised.value.reason == f"s3 PutObject to large: {code} (HTTP {status})"
    assert found.came == []


@KINDS
def test_a_bucket_that_cannot_be_written_does_not_hold_up_events_that_fit(kind: str) -> None:
    found = services(kind, bucket_status=403, bucket_code="AccessDenied")
    send(found, event(1000))
    assert found.document()["payload"] == event(1000).decode()


@KINDS
def test_a_fault_of_the_service_is_no_reason_to_leave_the_event_out(kind: str) -> None:
    found = services(kind, message_status=500)
    with pytest.raises(ServiceUnavailable):
        send(found, event(1000))
    assert found.came == []


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("s3://large", f"/large/{object_key(notice())}"),
        ("s3://large/", f"/large/{object_key(notice())}"),
        ("s3://large/a/b=c/", f"/large/a/b=c/{object_key(notice())}"),
    ],
)
def test_a_prefix_stands_before_the_key_that_s3_destinations_use(prefix: str, path: str) -> None:
    found = services("sqs")
    send(found, event(2_000_000), prefix=prefix)
    assert list(found.objects) == [path]


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet='\ufffe\uffff\\"\x00\x7fä😀'), bytes_max=st.integers(200, 600))
def test_a_message_has_only_what_sqs_takes_and_the_whole_event(text: str, bytes_max: int) -> None:
    payload = json.dumps({"x": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        payload.decode()
    except UnicodeDecodeError:
        payload = json.dumps({"x": text}).encode()
    message = inline(notice(payload=payload), bytes_max)
    if message is None:
        assert len(with_payload(notice(payload=payload))) > bytes_max - 6 * len(text)
        return
    assert len(message.encode()) <= bytes_max
    assert all(letter >= " " and letter not in "\ufffe\uffff" for letter in message)
    assert json.loads(message)["payload"] == payload.decode()


def test_an_object_on_an_emulator_has_the_whole_document(emulator: Emulator) -> None:
    large = event(6_000_000)

    async def run() -> tuple[JsonObject, bytes]:
        async with environment(region=REGION, endpoint_url=emulator.url) as env:
            s3 = await client(env, "s3", REGION)
            await s3.create_bucket(Bucket="large", CreateBucketConfiguration={"LocationConstraint": REGION})
            queue = await client(env, "sqs", REGION)
            url = (await queue.create_queue(QueueName="failed"))["QueueUrl"]
            more = {"include_payload": True, "payload_prefix": PREFIX}
            async with destination("sqs", ARNS["sqs"], emulator.url, **more) as target:
                await target.send(notice(payload=large))
            [message] = (await queue.receive_message(QueueUrl=url, WaitTimeSeconds=5))["Messages"]
            place = json.loads(message["Body"])["payloadObject"]
            found = await s3.get_object(Bucket=place["bucket"], Key=place["key"])
            return place, await found["Body"].read()

    place, body = asyncio.run(run())
    assert place == {"bucket": "large", "key": KEY, "sizeBytes": 6_000_000}
    assert json.loads(body)["payload"] == large.decode()
