"""Whatever a service answers within its model, and a little beyond, an adapter gives a value or a port error."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from adapters.aws.clients import client
from adapters.destinations.events import EventsDestination
from adapters.destinations.function import FunctionDestination
from adapters.destinations.s3 import S3Destination
from adapters.destinations.sns import SnsDestination
from adapters.destinations.sqs import SqsDestination
from adapters.invokers import lambda_api
from adapters.invokers.lambda_api import LambdaInvoker
from adapters.invokers.lambda_calls.settings import LambdaSettings
from adapters.sources.checks import QueueProbe
from adapters.sources.dynamodb_streams import DynamoStream
from adapters.sources.kinesis.consumers import OwnConsumer
from adapters.sources.kinesis.stream import KinesisStream
from adapters.sources.sqs import SqsQueue
from poller.clock import LoopClock
from poller.domain.errors import PortError
from poller.domain.findings import LambdaConsumer
from poller.domain.invocations import FunctionError, Succeeded, TimedOut, Unreachable
from poller.domain.records import MappingId, Position, QueueFacts, Shard, ShardId, Undone
from poller.loop_turns import LoopTurns
from poller.plugins import Environment
from poller.ports import Destination
from poller.testing.destination import notice
from poller.testing.invoker import invocation
from tests.adapters.answers import on_a_loop
from tests.adapters.model_answers import drawn, odd

pytestmark = pytest.mark.usefixtures("account")

ACCOUNT = "eu-west-1:111122223333"
STREAM = f"arn:aws:kinesis:{ACCOUNT}:stream/orders"
TABLE = f"arn:aws:dynamodb:{ACCOUNT}:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = f"arn:aws:sqs:{ACCOUNT}:orders"
FUNCTION = f"arn:aws:lambda:{ACCOUNT}:function:reader"
SHARD = ShardId("shardId-00000000000000000000-00000000")
SEEDS = 60
"""Drawn answers of each operation."""


@dataclass
class Anything:
    """A service that gives every request its present answer; `first` answers operations that come before it."""

    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    first: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body = self.first.get(operation, self.body)
        return web.Response(body=body, headers={"Content-Type": "application/json", **self.headers})


@asynccontextmanager
async def anything() -> AsyncIterator[tuple[Anything, Environment]]:
    service = Anything()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{rest:.*}", service.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    service.url = f"http://{host}:{port}"
    env = Environment(LoopClock(), region="eu-west-1", endpoint_url=service.url)
    try:
        yield service, env
    finally:
        await env.shared.close()
        await runner.cleanup()


class NoPace:
    async def pace(self, key: str) -> None:
        return


type Call = Callable[[], Awaitable[Any]]
type Check = Callable[[Any], bool]


async def kinesis(env: Environment) -> KinesisStream:
    return KinesisStream(await client(env, "kinesis", "eu-west-1"), NoPace(), LoopTurns(), arn=STREAM)


async def table(env: Environment) -> DynamoStream:
    return DynamoStream(await client(env, "dynamodbstreams", "eu-west-1"), NoPace(), LoopTurns(), arn=TABLE)


async def queue(env: Environment) -> SqsQueue:
    api = await client(env, "sqs", "eu-west-1")
    return SqsQueue(api, api, env.clock, arn=QUEUE)


def is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def shards(found: Any) -> bool:
    return all(
        isinstance(each, Shard) and is_text(each.shard_id) and all(map(is_text, each.parents))
        for each in found
    )


def undone(found: Any) -> bool:
    return all(isinstance(each, Undone) and isinstance(each.reason, str) for each in found)


def facts(found: Any) -> bool:
    return isinstance(found, QueueFacts) and found.visibility_timeout_s >= 0


def consumers(found: Any) -> bool:
    return all(
        isinstance(each, LambdaConsumer)
        and all(isinstance(text, str) for text in (each.uuid, each.function_arn, each.state))
        for each in found
    )


async def _kinesis_shards(env: Environment) -> Call:
    return (await kinesis(env)).shards


async def _kinesis_cursor(env: Environment) -> Call:
    stream = await kinesis(env)
    return lambda: stream.cursor(SHARD, Position.horizon())


async def _kinesis_facts(env: Environment) -> Call:
    stream = await kinesis(env)

    async def both() -> tuple[float | None, float | None]:
        return await stream.retention_s(), await stream.created()

    return both


async def _consumer_found(env: Environment) -> Call:
    api = await client(env, "kinesis", "eu-west-1")

    async def found() -> str:
        return await OwnConsumer(api, stream=STREAM, mapping=MappingId("m"), clock=LoopClock()).active()

    return found


async def _table_shards(env: Environment) -> Call:
    return (await table(env)).shards


async def _table_cursor(env: Environment) -> Call:
    stream = await table(env)
    return lambda: stream.cursor(SHARD, Position.horizon())


async def _queue_url(env: Environment) -> Call:
    return lambda: _anew(env)


async def _anew(env: Environment) -> object:
    """Another queue each time, since a URL is asked for once; what comes of it is no queue's attributes."""
    return await (await queue(env)).describe()


async def _queue_facts(env: Environment) -> Call:
    return (await queue(env)).describe


async def _queue_extend(env: Environment) -> Call:
    one = await queue(env)
    return lambda: one.extend(["a", "b"], visibility_s=5)


async def _queue_delete(env: Environment) -> Call:
    one = await queue(env)
    return lambda: one.delete(["a", "b"])


async def _lambda_consumers(env: Environment) -> Call:
    probe = QueueProbe(await queue(env), await client(env, "lambda", "eu-west-1"), arn=QUEUE)
    return probe.lambda_consumers


async def _function_facts(env: Environment) -> Call:
    invoker = LambdaInvoker(LambdaSettings(function="reader"), env)
    return lambda: invoker.describe_function(FUNCTION)


async def _sqs_notice(env: Environment) -> Call:
    one = SqsDestination(await client(env, "sqs", "eu-west-1"), f"{env.endpoint_url}/1/failed", QUEUE)
    return lambda: one.send(notice())


TARGETS: dict[tuple[str, str], tuple[Callable[[Environment], Awaitable[Call]], Check]] = {
    ("kinesis", "ListShards"): (_kinesis_shards, shards),
    ("kinesis", "GetShardIterator"): (_kinesis_cursor, lambda cursor: cursor != "0;"),
    ("kinesis", "DescribeStreamSummary"): (
        _kinesis_facts,
        lambda found: all(each is None or isinstance(each, float) for each in found),
    ),
    ("kinesis", "DescribeStreamConsumer"): (
        _consumer_found,
        lambda found: is_text(found) and found.startswith("arn:"),
    ),
    ("dynamodbstreams", "DescribeStream"): (_table_shards, shards),
    ("dynamodbstreams", "GetShardIterator"): (_table_cursor, lambda cursor: cursor != "0;"),
    ("sqs", "GetQueueUrl"): (_queue_url, facts),
    ("sqs", "GetQueueAttributes"): (_queue_facts, facts),
    ("sqs", "ChangeMessageVisibilityBatch"): (_queue_extend, undone),
    ("sqs", "DeleteMessageBatch"): (_queue_delete, undone),
    ("sqs", "SendMessage"): (_sqs_notice, lambda found: found is None),
    ("lambda", "ListEventSourceMappings"): (_lambda_consumers, consumers),
    ("lambda", "GetFunctionConfiguration"): (_function_facts, lambda found: found.timeout_s > 0),
}
NO_OBJECTS: tuple[Any, ...] = ([], None, "text", 5)
FIRST = {"GetQueueUrl": json.dumps({"QueueUrl": "http://127.0.0.1/1/orders"}).encode()}


@pytest.mark.parametrize("name", TARGETS, ids=" ".join)
def test_every_answer_within_a_model_is_a_value_or_a_port_error(
    name: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_pacer(_: Environment) -> NoPace:
        return NoPace()

    monkeypatch.setattr(lambda_api, "shared_pacer", no_pacer)
    make, holds = TARGETS[name]
    answers = list(odd(*name))
    answers += [(f"seed {seed}", drawn(*name, random.Random(seed))) for seed in range(SEEDS)]
    answers += [("not an object", value) for value in NO_OBJECTS]

    async def main() -> None:
        async with anything() as (service, env):
            service.first = {key: body for key, body in FIRST.items() if key != name[1]}
            call = await make(env)
            for what, answer in answers:
                service.body = json.dumps(answer).encode()
                try:
                    async with asyncio.timeout(10):
                        found = await call()
                except PortError:
                    continue
                except Exception as error:
                    raise AssertionError(f"{what}: {answer!r}"[:2000]) from error
                assert holds(found), f"{what}: {answer!r} became {found!r}"

    asyncio.run(main())


ODD_BODIES = (
    b"",
    b" ",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"text",
    b"\xff\xfe",
    b"<",
    b"<a/>",
    b"<a><b></a>",
    b"[" * 20_000,
)


@on_a_loop
async def test_whatever_a_function_answers_is_an_outcome() -> None:
    async with anything() as (service, env):
        invoker = LambdaInvoker(LambdaSettings(function="reader"), env)
        for error in (None, "", "Unhandled", "Handled", "SOMETHING_NEW"):
            for version in (None, "", "$LATEST", "7", "SOMETHING_NEW"):
                given = {"X-Amz-Function-Error": error, "X-Amz-Executed-Version": version}
                service.headers = {name: value for name, value in given.items() if value is not None}
                for body in (
                    *ODD_BODIES,
                    b'{"errorType":null,"errorMessage":5}',
                    b'{"errorMessage":["a"],"stackTrace":5}',
                ):
                    service.body = body
                    outcome = await invoker.invoke(invocation({}, arn=FUNCTION))
                    assert isinstance(outcome, Succeeded | FunctionError | TimedOut | Unreachable), body
                    if isinstance(outcome, Succeeded | FunctionError):
                        assert outcome.executed_version == (version or "$LATEST")
                    assert bool(error) is not isinstance(outcome, Succeeded), (error, body, outcome)


@pytest.mark.parametrize("kind", ["sns", "s3", "events", "lambda"])
def test_whatever_stands_in_the_answer_to_a_notice_it_is_delivered_or_a_port_error(kind: str) -> None:
    async def main() -> None:
        async with anything() as (service, env):
            api = await client(env, kind, "eu-west-1")
            bus = f"arn:aws:events:{ACCOUNT}:event-bus/failed"
            destinations: dict[str, Destination] = {
                "sns": SnsDestination(api, f"arn:aws:sns:{ACCOUNT}:failed"),
                "s3": S3Destination(api, "failed"),
                "events": EventsDestination(api, bus, env.clock),
                "lambda": FunctionDestination(api, FUNCTION),
            }
            destination = destinations[kind]
            for body in ODD_BODIES:
                service.body = body
                try:
                    await destination.send(notice())
                except PortError:
                    continue

    asyncio.run(main())
