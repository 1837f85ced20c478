"""Owns what the destinations' contract suite needs of each kind: where notices go, and how to read them back."""

import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from adapters.aws.clients import client
from adapters.destinations import events, file, function, http, s3, sns, sqs
from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import JsonObject
from poller.plugins import GivenPlugins, opened
from poller.ports import Destination
from poller.testing.destination import MAPPING, PORT_ERRORS
from tests.contracts.invokers import environment, served
from tests.contracts.worlds import fresh_name

REGION = "eu-west-1"
SERVICES = ("sqs", "sns", "s3", "events", "lambda")


@dataclass
class Server:
    """A server that keeps what it gets and answers with `status` and `body`."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    """The bodies of requests that were not refused."""

    async def answer(self, request: web.Request) -> web.Response:
        """Answers any request."""
        body = await request.read()
        self.requests.append((request.path, dict(request.headers), body))
        if self.status < 300:
            self.taken.append(body)
        return web.Response(status=self.status, text=self.body, headers=self.headers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serves; yields the URL."""
        app = web.Application(client_max_size=2**25)
        app.router.add_route("*", "/{path:.*}", self.answer)
        async with served(app) as url:
            yield url


def json_error(server: Server, code: str, status: int) -> None:
    """An error of a JSON service."""
    server.status, server.body = status, json.dumps({"__type": code, "message": "no"})
    server.headers = {"x-amzn-errortype": code, "Content-Type": "application/x-amz-json-1.0"}


def query_error(server: Server, code: str, status: int) -> None:
    """An error of a query service."""
    server.status = status
    server.body = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


def rest_error(server: Server, code: str, status: int) -> None:
    """An error of S3."""
    server.status, server.body = status, f"<Error><Code>{code}</Code><Message>no</Message></Error>"


def status_alone(server: Server, code: str, status: int) -> None:
    """An error of a plain server."""
    del code
    server.status, server.body = status, "no"


ERRORS: dict[str, Callable[[Server, str, int], None]] = {
    "sqs": json_error,
    "sns": query_error,
    "s3": rest_error,
    "events": json_error,
    "lambda": json_error,
    "http": status_alone,
}
REFUSALS: dict[str, dict[type[PortError], tuple[str, int]]] = {
    "sqs": {
        ServiceThrottled: ("RequestThrottled", 403),
        ServiceUnavailable: ("InternalFailure", 500),
        AccessDenied: ("AccessDeniedException", 403),
        ResourceMissing: ("QueueDoesNotExist", 400),
    },
    "sns": {
        ServiceThrottled: ("Throttled", 429),
        ServiceUnavailable: ("InternalError", 500),
        AccessDenied: ("AuthorizationError", 403),
        ResourceMissing: ("NotFound", 404),
    },
    "s3": {
        ServiceThrottled: ("SlowDown", 503),
        ServiceUnavailable: ("InternalError", 500),
        AccessDenied: ("AccessDenied", 403),
        ResourceMissing: ("NoSuchBucket", 404),
    },
    "events": {
        ServiceThrottled: ("ThrottlingException", 400),
        ServiceUnavailable: ("InternalException", 500),
        AccessDenied: ("AccessDeniedException", 400),
        ResourceMissing: ("ResourceNotFoundException", 400),
    },
    "lambda": {
        ServiceThrottled: ("TooManyRequestsException", 429),
        ServiceUnavailable: ("ServiceException", 500),
        AccessDenied: ("AccessDeniedException", 403),
        ResourceMissing: ("ResourceNotFoundException", 404),
    },
    "http": {
        ServiceThrottled: ("", 429),
        ServiceUnavailable: ("", 500),
        AccessDenied: ("", 403),
        ResourceMissing: ("", 404),
    },
}
"""Kind of destination and port error to what its service answers: code and HTTP status."""
ACCEPTED = {
    "sqs": '{"MessageId": "1"}',
    "sns": "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>",
    "s3": "",
    "events": '{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}',
    "lambda": "",
    "http": "",
}
"""Kind of destination to the body of an answer that takes a notice."""
ARNS = {
    "sqs": "arn:aws:sqs:eu-west-1:111122223333:failed",
    "sns": "arn:aws:sns:eu-west-1:111122223333:failed",
    "s3": "arn:aws:s3:::failed",
    "events": "arn:aws:events:eu-west-1:111122223333:event-bus/failed",
    "lambda": "arn:aws:lambda:eu-west-1:111122223333:function:failed",
}
LOOKS = b'"Name"'
"""What stands in a request that looks for a bus, and in no other one."""


PLUGINS = GivenPlugins(
    {("destinations", each.plugin.name): each.plugin for each in (events, file, function, http, s3, sns, sqs)}
)


@asynccontextmanager
async def destination(
    kind: str, arn: str, endpoint: str | None = None, **more: Any
) -> AsyncIterator[Destination]:
    """An open destination of a kind; `more` are settings beside its ARN."""
    async with (
        environment(region=REGION, endpoint_url=endpoint) as env,
        opened(PLUGINS, "destinations", kind, {"arn": arn, **more}, env) as found,
    ):
        yield found


def lines(directory: Path) -> list[Any]:
    """The documents in a file destination."""
    return [json.loads(line) for line in (directory / f"{MAPPING}.jsonl").read_bytes().splitlines()]


class FileWorld:
    """A destination in a directory."""

    with_payload = True
    errors = (ResourceMissing, AccessDenied)

    def __init__(self, found: Destination, directory: Path) -> None:
        self.destination = found
        self._directory = directory
        self._away = directory.with_name("away")

    async def arrived(self, at_least: int) -> Sequence[JsonObject]:
        del at_least
        return lines(self._directory)

    async def fail(self, error: type[PortError]) -> None:
        self._directory.rename(self._away)
        if error is AccessDenied:
            self._directory.symlink_to(self._directory)

    async def heal(self) -> None:
        self._directory.unlink(missing_ok=True)
        self._away.rename(self._directory)


class ServedWorld:
    """A destination over a server of its own, which can refuse as the service does."""

    errors = PORT_ERRORS

    def __init__(self, found: Destination, kind: str, server: Server, *, with_payload: bool = False) -> None:
        self.destination = found
        self.with_payload = with_payload or kind not in ("sqs", "sns")
        self._kind = kind
        self._server = server
        server.body = ACCEPTED[kind]

    async def arrived(self, at_least: int) -> Sequence[JsonObject]:
        del at_least
        taken = [each for each in self._server.taken if self._kind != "events" or LOOKS not in each]
        return [json.loads(document_in(self._kind, body)) for body in taken]

    async def fail(self, error: type[PortError]) -> None:
        code, status = REFUSALS[self._kind][error]
        ERRORS[self._kind](self._server, code, status)

    async def heal(self) -> None:
        self._server.status, self._server.body, self._server.headers = 200, ACCEPTED[self._kind], {}


def document_in(kind: str, body: bytes) -> str | bytes:
    """The document in the body of a request of this kind."""
    match kind:
        case "sqs":
            return str(json.loads(body)["MessageBody"])
        case "sns":
            return parse_qs(body.decode())["Message"][0]
        case "events":
            return str(json.loads(body)["Entries"][0]["Detail"])
        case _:
            return body


class QueueWorld:
    """An SQS queue on an emulator; or a topic or bus whose messages or events come to a queue."""

    def __init__(
        self, found: Destination, sqs: Any, queue_url: str, *, kind: str = "sqs", with_payload: bool = False
    ) -> None:
        self.destination = found
        self.with_payload = with_payload
        self._sqs = sqs
        self._queue_url = queue_url
        self._kind = kind
        self._found: list[JsonObject] = []

    async def arrived(self, at_least: int) -> Sequence[JsonObject]:
        while len(self._found) < at_least:
            answer = await self._sqs.receive_message(
                QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=5
            )
            assert answer.get("Messages"), f"only {len(self._found)} of {at_least} arrived"
            for message in answer["Messages"]:
                self._found.append(sent_on(self._kind, json.loads(message["Body"])))
        return self._found


def sent_on(kind: str, body: Any) -> Any:
    """The document in what a queue gets from a destination of this kind."""
    match kind:
        case "sns":
            return json.loads(body["Message"])
        case "events":
            return body["detail"]
        case "lambda":
            return body["requestPayload"]
        case _:
            return body


class BucketWorld:
    """A bucket on an emulator."""

    with_payload = True

    def __init__(self, found: Destination, s3: Any, bucket: str) -> None:
        self.destination = found
        self._s3 = s3
        self._bucket = bucket

    async def arrived(self, at_least: int) -> Sequence[JsonObject]:
        del at_least
        listed = await self._s3.list_objects_v2(Bucket=self._bucket)
        return [await self._document(each["Key"]) for each in listed["Contents"]]

    async def _document(self, key: str) -> JsonObject:
        found = await self._s3.get_object(Bucket=self._bucket, Key=key)
        document: JsonObject = json.loads(await found["Body"].read())
        return document


async def made(kind: str, api: dict[str, Any], name: str) -> None:
    """Makes a destination of this kind and name that sends on what it gets to the queue of the same name."""
    queue_arn = ARNS["sqs"].replace("failed", name)
    match kind:
        case "sns":
            await api["sns"].create_topic(Name=name)
            arn = ARNS["sns"].replace("failed", name)
            await api["sns"].subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn)
        case "s3":
            place = {"LocationConstraint": REGION}
            await api["s3"].create_bucket(Bucket=name, CreateBucketConfiguration=place)
        case "events":
            await api["events"].create_event_bus(Name=name)
            pattern = json.dumps({"source": ["lambda"]})
            await api["events"].put_rule(Name=name, EventBusName=name, EventPattern=pattern)
            targets = [{"Id": "1", "Arn": queue_arn}]
            await api["events"].put_targets(Rule=name, EventBusName=name, Targets=targets)
        case "lambda":
            await api["lambda"].create_function(
                FunctionName=name,
                Runtime="python3.13",
                Role="arn:aws:iam::111122223333:role/orders",
                Handler="app.act",
                Code={"ZipFile": archive("def act(event, context):\n    raise ValueError\n")},
            )
            await api["lambda"].put_function_event_invoke_config(
                FunctionName=name,
                MaximumRetryAttempts=0,
                DestinationConfig={"OnFailure": {"Destination": queue_arn}},
            )


def archive(code: str) -> bytes:
    """The package of a function with one module, `app`."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as zipped:
        zipped.writestr("app.py", code)
    return found.getvalue()


@asynccontextmanager
async def on_emulator(
    kind: str, url: str, *, with_payload: bool = False
) -> AsyncIterator[QueueWorld | BucketWorld]:
    """A fresh destination of a kind on an emulator of AWS's services. A queue or topic gets events only `with_payload`."""
    name = fresh_name()
    async with environment(region=REGION, endpoint_url=url) as env:
        api = {each: await client(env, each, REGION) for each in SERVICES}
        arn = ARNS[kind].replace("failed", name)
        queue_url = (await api["sqs"].create_queue(QueueName=name))["QueueUrl"]
        await made(kind, api, name)
        more = {"include_payload": True} if with_payload else {}
        async with destination(kind, arn, url, **more) as found:
            if kind == "s3":
                yield BucketWorld(found, api["s3"], name)
            else:
                payload = with_payload or kind == "events"
                yield QueueWorld(found, api["sqs"], queue_url, kind=kind, with_payload=payload)
