"""What every destination gets of an asynchronous call that is over; over real servers and files."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from adapters.aws.clients import client
from adapters.demo.processes import free_port
from adapters.destinations import events
from adapters.destinations.file import FileDestination
from adapters.destinations.messages import message_text
from poller.call_queue_ports import CallDestination
from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.functions.call_notices import CallNotice
from poller.ports import Destination
from poller.testing.destination import notice as batch
from tests.contracts.destinations import (
    ACCEPTED,
    ARNS,
    ERRORS,
    LOOKS,
    REFUSALS,
    REGION,
    SERVICES,
    Server,
    destination,
    document_in,
    made,
    sent_on,
)
from tests.contracts.invokers import environment, served
from tests.contracts.worlds import fresh_name
from tests.emulators import Emulator, ministack

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
CALL = "5c1b2f0a-7d1e-4a57-9a55-3b1d0e0f2a11"
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:orders:live"
TIMESTAMP = "2026-12-02T01:02:03.987Z"
PAYLOAD = b'{ "order" : 1.50, "secret": "quoted \xc3\xa4" }'
SECRET = "quoted"
KEY = f"aws/lambda/async/orders/2026/12/02/2026-12-02T01.02.03-{CALL}"


def notice(**more: Any) -> CallNotice:
    """A call that failed."""
    given = {
        "call": CALL,
        "function": "orders",
        "function_arn": FUNCTION,
        "timestamp": TIMESTAMP,
        "detail_type": "Lambda Function Invocation Result - Failure",
        "documents": forms(PAYLOAD),
        "payload": PAYLOAD,
        "error_code": "200",
        "error_message": "ValueError: bad order ä",
    }
    return CallNotice(**{**given, **more})


def forms(payload: bytes) -> tuple[bytes, ...]:
    """The document of a call and its shorter forms."""
    return (
        b'{"version":"1.0","requestPayload":%b,"responsePayload":{"ok":true}}' % payload,
        b'{"version":"1.0","requestPayload":%b,"leftOut":["responsePayload"]}' % payload,
        b'{"version":"1.0","leftOut":["responsePayload","requestPayload"]}',
    )


def text_of(size: int) -> bytes:
    """JSON of so many bytes."""
    return b'"' + b"y" * (size - 2) + b'"'


def taking_calls(found: Destination) -> CallDestination:
    """The destination as one of calls."""
    assert isinstance(found, CallDestination)
    return found


@asynccontextmanager
async def calls(kind: str, arn: str, endpoint: str | None = None) -> AsyncIterator[CallDestination]:
    """An open destination of calls."""
    async with destination(kind, arn, endpoint) as found:
        yield taking_calls(found)


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


class Place:
    """A destination on the emulator, and the queue that gets what it gets."""

    def __init__(self, found: CallDestination, api: dict[str, Any], name: str, queue_url: str) -> None:
        self.destination = found
        self.api = api
        self.name = name
        self._queue_url = queue_url

    async def messages(self, count: int = 1, *, polls_max: int = 12) -> list[Any]:
        """`count` messages of the queue."""
        found: list[Any] = []
        for _ in range(polls_max):
            answer = await self.api["sqs"].receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=5,
                MessageAttributeNames=["All"],
            )
            found += answer.get("Messages", ())
            if len(found) >= count:
                return found
        raise AssertionError(f"only {len(found)} of {count} arrived")

    async def left(self) -> str:
        """How many messages the queue has."""
        names = ["ApproximateNumberOfMessages"]
        answer = await self.api["sqs"].get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=names)
        count: str = answer["Attributes"][names[0]]
        return count


@asynccontextmanager
async def place(kind: str, emulator: Emulator, **queue: str) -> AsyncIterator[Place]:
    """A fresh destination on the emulator; `queue` has attributes of its queue."""
    name = fresh_name()
    async with environment(region=REGION, endpoint_url=emulator.url) as env:
        api = {each: await client(env, each, REGION) for each in SERVICES}
        url = (await api["sqs"].create_queue(QueueName=name, Attributes=queue))["QueueUrl"]
        await made(kind, api, name)
        async with calls(kind, ARNS[kind].replace("failed", name), emulator.url) as found:
            yield Place(found, api, name, url)


def sent(message: Any) -> dict[str, tuple[str, str]]:
    """Type and value of a message's attributes."""
    attributes = message.get("MessageAttributes", {})
    return {name: (each["DataType"], each["StringValue"]) for name, each in attributes.items()}


def test_a_queue_gets_the_document_as_it_is(emulator: Emulator) -> None:
    async def run() -> Any:
        async with place("sqs", emulator) as found:
            await found.destination.send_call(notice(), dead_letter=False)
            return await found.messages()

    [message] = asyncio.run(run())
    assert message["Body"].encode() == forms(PAYLOAD)[0]
    assert sent(message) == {}


@pytest.mark.parametrize("error", ["ValueError: bad order ä", ""])
def test_a_dead_letter_queue_gets_the_payload_with_the_error_in_attributes(
    error: str, emulator: Emulator
) -> None:
    async def run() -> Any:
        async with place("sqs", emulator) as found:
            await found.destination.send_call(notice(error_message=error), dead_letter=True)
            return await found.messages()

    [message] = asyncio.run(run())
    assert message["Body"].encode() == PAYLOAD
    said = {"ErrorMessage": ("String", error)} if error else {}
    assert sent(message) == {"RequestID": ("String", CALL), "ErrorCode": ("Number", "200"), **said}


def test_a_topic_gets_the_document_or_the_payload_with_attributes(emulator: Emulator) -> None:
    async def run() -> list[Any]:
        async with place("sns", emulator) as found:
            await found.destination.send_call(notice(), dead_letter=False)
            document = await found.messages()
            await found.destination.send_call(notice(), dead_letter=True)
            return [json.loads(each["Body"]) for each in [*document, *await found.messages()]]

    document, dead = asyncio.run(run())
    assert document["Message"].encode() == forms(PAYLOAD)[0]
    assert "MessageAttributes" not in document
    assert dead["Message"].encode() == PAYLOAD
    assert dead["MessageAttributes"] == {
        "RequestID": {"Type": "String", "Value": CALL},
        "ErrorCode": {"Type": "Number", "Value": "200"},
        "ErrorMessage": {"Type": "String", "Value": "ValueError: bad order ä"},
    }


def test_a_bucket_gets_one_object_a_call_with_the_whole_document(emulator: Emulator) -> None:
    async def run() -> tuple[list[str], Any, bytes]:
        async with place("s3", emulator) as found:
            for _ in range(2):
                await found.destination.send_call(notice(), dead_letter=False)
            listed = await found.api["s3"].list_objects_v2(Bucket=found.name)
            object_ = await found.api["s3"].get_object(Bucket=found.name, Key=KEY)
            return [each["Key"] for each in listed["Contents"]], object_, await object_["Body"].read()

    keys, object_, body = asyncio.run(run())
    assert keys == [KEY]
    assert object_["ContentType"] == "application/octet-stream"
    assert body == forms(PAYLOAD)[0]


def test_a_bus_gets_an_event_of_lambda_about_the_function(emulator: Emulator) -> None:
    async def run() -> tuple[Any, str]:
        async with place("events", emulator) as found:
            await found.destination.send_call(notice(), dead_letter=False)
            return json.loads((await found.messages())[0]["Body"]), found.name

    event, name = asyncio.run(run())
    assert event["source"] == "lambda"
    assert event["detail-type"] == "Lambda Function Invocation Result - Failure"
    assert event["resources"] == [ARNS["events"].replace("failed", name), FUNCTION]
    assert event["detail"] == json.loads(forms(PAYLOAD)[0])


def test_a_function_gets_the_document_as_its_payload(emulator: Emulator) -> None:
    async def run() -> Any:
        async with place("lambda", emulator) as found:
            await found.destination.send_call(notice(), dead_letter=False)
            return sent_on("lambda", json.loads((await found.messages())[0]["Body"]))

    assert asyncio.run(run()) == json.loads(forms(PAYLOAD)[0])


def test_a_file_gets_a_line_a_call_whatever_breaks_the_payload_has(tmp_path: Path) -> None:
    async def run() -> None:
        async with calls("file", tmp_path.as_uri()) as found:
            await found.send_call(notice(), dead_letter=False)
            await found.send_call(notice(documents=forms(b'{\r\n"a":\n"b\\n"}')), dead_letter=False)

    asyncio.run(run())
    first, second = (tmp_path / "orders.async.jsonl").read_bytes().splitlines()
    assert first == forms(PAYLOAD)[0]
    assert json.loads(second)["requestPayload"] == {"a": "b\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["orders.async.jsonl"]


def test_a_url_gets_the_document_and_the_id_of_the_call() -> None:
    server = Server(status=204)

    async def run() -> None:
        async with server.running() as url, calls("http", f"{url}/failed") as found:
            await found.send_call(notice(), dead_letter=False)

    asyncio.run(run())
    [(_, headers, body)] = server.requests
    assert headers["Idempotency-Key"] == CALL
    assert headers["Content-Type"] == "application/json"
    assert body == forms(PAYLOAD)[0]


@pytest.mark.parametrize("kind", ["s3", "events", "lambda", "http"])
def test_what_takes_no_dead_letters_says_so_and_gets_nothing(kind: str) -> None:
    server = Server()

    async def run() -> None:
        async with server.running() as url, calls(kind, ARNS.get(kind, url), url) as found:
            await found.send_call(notice(), dead_letter=True)

    with pytest.raises(ServiceUnavailable, match="takes no dead letters; as the dead-letter target name a"):
        asyncio.run(run())
    assert server.requests == []


def test_a_directory_takes_no_dead_letters(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="takes no dead letters"):
        asyncio.run(FileDestination(tmp_path).send_call(notice(), dead_letter=True))
    assert list(tmp_path.iterdir()) == []


def test_an_event_has_its_bus_by_its_arn_and_the_detail_byte_by_byte() -> None:
    server = Server(body=ACCEPTED["events"])

    async def run() -> None:
        async with server.running() as url, calls("events", ARNS["events"], url) as found:
            await found.send_call(notice(), dead_letter=False)

    asyncio.run(run())
    [look, put] = [json.loads(body) for _, _, body in server.requests]
    assert look == {"Name": ARNS["events"]}
    assert put == {
        "Entries": [
            {
                "EventBusName": ARNS["events"],
                "Source": "lambda",
                "DetailType": "Lambda Function Invocation Result - Failure",
                "Resources": [ARNS["events"], FUNCTION],
                "Detail": forms(PAYLOAD)[0].decode(),
            }
        ]
    }


@pytest.mark.parametrize("qualifier", ["", ":live", ":7", ":$LATEST"])
def test_a_function_is_called_asynchronously_with_its_qualifier(qualifier: str) -> None:
    server = Server(status=202)

    async def run() -> None:
        async with server.running() as url, calls("lambda", ARNS["lambda"] + qualifier, url) as found:
            await found.send_call(notice(), dead_letter=False)

    asyncio.run(run())
    paths = [unquote(path) for path, _, _ in server.requests]
    assert paths == [f"/2015-03-31/functions/{ARNS['lambda']}{qualifier}/invocations"]
    [(_, headers, body)] = server.requests
    assert headers["X-Amz-Invocation-Type"] == "Event"
    assert body == forms(PAYLOAD)[0]


LIMITS = {"sqs": 2**20, "sns": 2**18, "events": 2**20 - 500, "lambda": 2**20}
"""Bytes of a document that each takes, or a few less."""


@pytest.mark.parametrize("kind", LIMITS)
def test_a_document_that_is_too_large_is_sent_without_its_answer_then_without_payloads(kind: str) -> None:
    server = Server(body=ACCEPTED[kind])
    small, large = forms(text_of(LIMITS[kind] - 70)), forms(text_of(2**21))
    middle = (b" " * 2**21, *small)

    async def run() -> list[str | bytes]:
        async with server.running() as url, calls(kind, ARNS[kind], url) as found:
            for documents in (small, middle, large):
                await found.send_call(notice(documents=documents), dead_letter=False)
        taken = [each for each in server.taken if LOOKS not in each]
        return [document_in(kind, body) for body in taken]

    first, second, third = asyncio.run(run())
    as_bytes = [each if isinstance(each, bytes) else each.encode() for each in (first, second, third)]
    assert as_bytes == [small[0], small[0], large[-1]]


def test_a_queue_with_a_lower_limit_gets_the_longest_form_that_it_takes(emulator: Emulator) -> None:
    async def run() -> list[str]:
        async with place("sqs", emulator, MaximumMessageSize="1024") as found:
            documents = (b'"' + b"x" * 2000 + b'"', forms(text_of(900))[1], forms(b"1")[2])
            await found.destination.send_call(notice(documents=documents), dead_letter=False)
            return [each["Body"] for each in await found.messages()]

    assert [each.encode() for each in asyncio.run(run())] == [forms(text_of(900))[1]]


def test_a_dead_letter_that_is_refused_is_an_error_with_its_size_and_stays_whole(emulator: Emulator) -> None:
    async def run() -> str:
        async with place("sqs", emulator, MaximumMessageSize="1024") as found:
            with pytest.raises(
                ServiceUnavailable, match=r"InvalidParameterValue.*the payload has 1025 bytes"
            ):
                await found.destination.send_call(notice(payload=text_of(1025)), dead_letter=True)
            return await found.left()

    assert asyncio.run(run()) == "0"


def test_a_dead_letter_for_which_a_topic_has_no_room_has_fewer_attributes(emulator: Emulator) -> None:
    """The emulator counts attributes, as SNS does. Three payloads leave less and less room for them."""

    async def run() -> list[Any]:
        async with place("sns", emulator) as found:
            bodies = []
            for room in (2000, 200, 10):
                dead = notice(payload=text_of(2**18 - room), error_message="e" * 1000)
                await found.destination.send_call(dead, dead_letter=True)
                bodies += [json.loads(each["Body"]) for each in await found.messages()]
            return bodies

    all_, some, none = asyncio.run(run())
    assert sorted(all_["MessageAttributes"]) == ["ErrorCode", "ErrorMessage", "RequestID"]
    assert sorted(some["MessageAttributes"]) == ["ErrorCode", "RequestID"]
    assert "MessageAttributes" not in none
    assert [len(each["Message"]) for each in (all_, some, none)] == [2**18 - room for room in (2000, 200, 10)]


def test_a_payload_of_the_queues_limit_is_sent_at_once_without_attributes() -> None:
    server = Server(body=ACCEPTED["sqs"])

    async def run() -> None:
        async with server.running() as url, calls("sqs", ARNS["sqs"], url) as found:
            await found.send_call(notice(payload=text_of(2**20)), dead_letter=True)

    asyncio.run(run())
    [(_, _, body)] = server.requests
    assert "MessageAttributes" not in json.loads(body)
    assert json.loads(body)["MessageBody"].encode() == text_of(2**20)


ODD = '{"a":"\ufffe \uffff \x7f"}'.encode()


@pytest.mark.parametrize("dead_letter", [False, True])
def test_characters_that_sqs_refuses_arrive_escaped(dead_letter: bool, emulator: Emulator) -> None:
    async def run() -> Any:
        async with place("sqs", emulator) as found:
            odd = notice(payload=ODD, documents=forms(ODD), error_message="bad \ufffe")
            await found.destination.send_call(odd, dead_letter=dead_letter)
            return await found.messages()

    [message] = asyncio.run(run())
    assert json.loads(message["Body"]) == json.loads(ODD if dead_letter else forms(ODD)[0])
    assert (sent(message).get("ErrorMessage") == ("String", r"bad \ufffe")) is dead_letter


@pytest.mark.parametrize(
    ("payload", "body"),
    [(b"", "{}"), (b" ", " "), (b"no \x00 JSON", r"no \u0000 JSON"), (b"\xff\xfe", "\ufffd\ufffd")],
)
def test_a_payload_that_is_no_json_still_arrives(payload: bytes, body: str, emulator: Emulator) -> None:
    async def run() -> Any:
        async with place("sqs", emulator) as found:
            await found.destination.send_call(notice(payload=payload), dead_letter=True)
            return await found.messages()

    assert [each["Body"] for each in asyncio.run(run())] == [body]


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_every_json_is_a_message_with_the_same_meaning(value: Any) -> None:
    written = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    text = message_text(written)
    assert json.loads(text) == json.loads(written)
    assert all(each in "\t\n\r" or (each >= " " and each not in "\ufffe\uffff") for each in text)


@pytest.mark.parametrize("kind", [*SERVICES, "http"])
@pytest.mark.parametrize("error", [ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing])
def test_each_refusal_is_the_error_that_says_what_to_do(kind: str, error: type[PortError]) -> None:
    server = Server()
    code, status = REFUSALS[kind][error]
    ERRORS[kind](server, code, status)

    async def run() -> None:
        async with server.running() as url, calls(kind, ARNS.get(kind, url), url) as found:
            await found.send_call(notice(), dead_letter=kind in ("sqs", "sns"))

    with pytest.raises(error) as raised:
        asyncio.run(run())
    assert type(raised.value) is error
    assert SECRET not in raised.value.reason


@pytest.mark.parametrize("kind", SERVICES)
def test_a_missing_target_in_the_emulator_is_missing(kind: str, emulator: Emulator) -> None:
    async def run() -> None:
        async with calls(kind, f"{ARNS[kind]}-nowhere", emulator.url) as found:
            await found.send_call(notice(), dead_letter=False)

    with pytest.raises(ResourceMissing, match=" to failed-nowhere: "):
        asyncio.run(run())


@pytest.mark.parametrize("kind", [*SERVICES, "http"])
def test_a_target_that_nobody_serves_is_unavailable(kind: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    async def run() -> None:
        async with calls(kind, ARNS.get(kind, url), url) as found:
            await found.send_call(notice(), dead_letter=False)

    with pytest.raises(ServiceUnavailable, match=r" to (failed|127\.0\.0\.1): "):
        asyncio.run(run())


TAKEN: Any = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}


class Bus:
    """EventBridge with an answer for each operation, which counts what it is asked."""

    def __init__(self, *, look: tuple[int, Any], put: Callable[[int], Any] = lambda _: TAKEN) -> None:
        self._look = look
        self._put = put
        self.asked: list[str] = []
        self.details: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Answers any request."""
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        self.asked.append(operation)
        if operation == "PutEvents":
            self.details.append((await request.json())["Entries"][0]["Detail"])
            return web.json_response(self._put(len(self.details)))
        status, body = self._look
        return web.json_response(body, status=status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serves; yields the URL."""
        app = web.Application(client_max_size=2**25)
        app.router.add_route("*", "/{path:.*}", self.answer)
        async with served(app) as url:
            yield url


def told(bus: Bus, times: int = 1) -> None:
    """Sends so many calls to a bus."""

    async def run() -> None:
        async with bus.running() as url, calls("events", ARNS["events"], url) as found:
            for _ in range(times):
                await found.send_call(notice(), dead_letter=False)

    asyncio.run(run())


def failed(code: str) -> Any:
    """The answer to an event that was not taken."""
    return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": SECRET}]}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (failed("ThrottlingException"), ServiceThrottled),
        (failed("InternalFailure"), ServiceUnavailable),
        (failed("AccessDeniedException"), AccessDenied),
        (failed("NotAuthorizedForSourceException"), AccessDenied),
        (failed("NotAuthorizedForDetailTypeException"), AccessDenied),
        (failed("ResourceNotFoundException"), ResourceMissing),
        (failed("Unheard\nOf"), ServiceUnavailable),
        ({"FailedEntryCount": 1, "Entries": [{"EventId": "1"}]}, ServiceUnavailable),
        ({"FailedEntryCount": 0, "Entries": []}, ServiceUnavailable),
        ({"FailedEntryCount": 0, "Entries": [{}]}, ServiceUnavailable),
        ({"FailedEntryCount": 0}, ServiceUnavailable),
        ({}, ServiceUnavailable),
    ],
    ids=str,
)
def test_an_event_that_was_not_taken_is_an_error_although_the_request_succeeded(
    answer: Any, error: type[PortError]
) -> None:
    bus = Bus(look=(200, {}), put=lambda _: answer)
    with pytest.raises(error, match=r"^events PutEvents to failed: ") as raised:
        told(bus)
    assert type(raised.value) is error
    assert SECRET not in raised.value.reason


def test_a_detail_that_eventbridge_cannot_read_is_followed_by_one_without_payloads() -> None:
    bus = Bus(
        look=(200, {}), put=lambda count: TAKEN if count == len(forms(b"1")) else failed("MalformedDetail")
    )
    told(bus)
    assert [each.encode() for each in bus.details] == list(forms(PAYLOAD))


def test_a_throttled_event_is_not_shortened() -> None:
    bus = Bus(look=(200, {}), put=lambda _: failed("ThrottlingException"))
    with pytest.raises(ServiceThrottled):
        told(bus)
    assert [each.encode() for each in bus.details] == [forms(PAYLOAD)[0]]


NO_BUS = (400, {"__type": "ResourceNotFoundException", "message": "no"})
DENIED = (400, {"__type": "AccessDeniedException", "message": "no"})


def test_a_bus_that_does_not_exist_gets_no_event_although_eventbridge_would_take_it() -> None:
    bus = Bus(look=NO_BUS)
    with pytest.raises(ResourceMissing, match="events DescribeEventBus to failed: ResourceNotFoundException"):
        told(bus)
    assert bus.details == []


@pytest.mark.parametrize("look", [DENIED, (500, {}), (200, {"Arn": ARNS["events"]})], ids=str)
def test_a_bus_that_is_there_or_cannot_be_looked_at_gets_events_and_is_looked_for_once(look: Any) -> None:
    bus = Bus(look=look)
    told(bus, times=3)
    assert bus.asked == ["DescribeEventBus", "PutEvents", "PutEvents", "PutEvents"]


def test_a_bus_is_looked_for_again_after_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK_AGAIN_S", 0.0)
    bus = Bus(look=(200, {"Arn": ARNS["events"]}))
    told(bus, times=2)
    assert bus.asked == ["DescribeEventBus", "PutEvents"] * 2


def test_a_batch_on_a_bus_is_an_event_of_its_own_type() -> None:
    server = Server(body=ACCEPTED["events"])

    async def run() -> None:
        async with server.running() as url, destination("events", ARNS["events"], url) as found:
            await found.send(batch())
            await found.send(replace(batch(), payload=text_of(2**21)))

    asyncio.run(run())
    [_, first, second] = [json.loads(body) for _, _, body in server.requests]
    [entry] = first["Entries"]
    assert entry["DetailType"] == "Lambda Event Source Mapping Result - Failure"
    assert json.loads(entry["Detail"])["payload"] == batch().payload.decode()
    assert json.loads(second["Entries"][0]["Detail"])["payloadOmitted"] == {"sizeBytes": 2**21}
