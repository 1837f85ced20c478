"""Subscriptions over a real connection: they last as long as the service lets them, and leave the other calls their connections."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from adapters import bounded_answers
from adapters.aws import clients
from adapters.sources.kinesis.fan_out import FannedOutStream
from adapters.sources.kinesis.plugin import KinesisSettings, plugin
from poller.domain.records import Position, ShardId
from tests.adapters.answers import environment, on_a_loop
from tests.adapters.sources.test_event_bytes import event, header, message
from tests.adapters.sources.test_fan_out import CONSUMER

pytestmark = pytest.mark.usefixtures("account")

HEAD = {"Content-Type": "application/vnd.amazon.eventstream"}
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "GetShardIterator": {"ShardIterator": "iterator"},
    "GetRecords": {"Records": [], "NextShardIterator": "iterator", "MillisBehindLatest": 0},
    "ListShards": {"Shards": []},
}
FIRST = message(header(b":event-type", b"initial-response") + header(b":message-type", b"event"), b"{}")
PATIENCE_S = 30.0


class Endpoint:
    """Pushes an event every `every_s`, with so much data, and answers other calls. `head` is that of an event stream."""

    def __init__(self, every_s: float, data_bytes: int = 1, head: Mapping[str, str] = HEAD) -> None:
        self.subscribed = 0
        self._every_s, self._data_bytes, self._head = every_s, data_bytes, head

    async def answer(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        await request.read()
        if operation != "SubscribeToShard":
            return web.json_response(ANSWERS[operation])
        self.subscribed += 1
        response = web.StreamResponse(headers=self._head)
        await response.prepare(request)
        await response.write(FIRST)
        for number in range(1, 10_000):
            await response.write(event(number, self._data_bytes))
            await asyncio.sleep(self._every_s)
        return response


@asynccontextmanager
async def opened(endpoint: Endpoint) -> AsyncIterator[FannedOutStream]:
    """The plug-in's source on this endpoint."""
    app = web.Application()
    app.router.add_post("/", endpoint.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with (
            asyncio.timeout(PATIENCE_S),
            environment(f"http://{host}:{port}") as env,
            plugin.open(KinesisSettings(arn=CONSUMER), env) as source,
        ):
            assert isinstance(source, FannedOutStream)
            yield source
    finally:
        await runner.cleanup()


async def read(source: FannedOutStream, shard: ShardId, events: int) -> str:
    """Reads so many events; returns why the shard is polled."""
    pushed = source.pushing()
    cursor = await pushed.cursor(shard, Position.horizon())
    got: list[int] = []
    while len(got) < events:
        page = await pushed.read(shard, cursor, records_max=100)
        got += [int(each.sequence_number) for each in page.records]
        assert page.cursor is not None
        cursor = page.cursor
        if reason := pushed.polled_because(shard):
            return reason
    assert got == list(range(1, events + 1))
    return ""


SHARD = ShardId("shardId-000000000000")


@on_a_loop
async def test_a_subscription_may_last_longer_than_a_body() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_answers, "BODY_S_MAX", 0.3)
        endpoint = Endpoint(0.1)
        async with opened(endpoint) as source:
            assert await read(source, SHARD, 10) == ""
    assert endpoint.subscribed == 1


@on_a_loop
async def test_a_subscription_may_bring_more_than_a_body() -> None:
    endpoint = Endpoint(0.0, 3_000_000)
    async with opened(endpoint) as source:
        assert await read(source, SHARD, 1 + bounded_answers.BODY_BYTES_MAX // 3_000_000) == ""
    assert endpoint.subscribed == 1


@on_a_loop
async def test_an_answer_that_does_not_say_that_it_is_an_event_stream_has_the_limits_of_a_body() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_answers, "BODY_S_MAX", 0.3)
        async with opened(Endpoint(0.1, head={"Content-Type": "application/json"})) as source:
            assert "ClientPayloadError" in await read(source, SHARD, 10)


@on_a_loop
async def test_subscriptions_leave_the_other_calls_their_connections() -> None:
    with pytest.MonkeyPatch.context() as patch:
        defaults = clients.client.__kwdefaults__ or {}
        patch.setattr(clients.client, "__kwdefaults__", defaults | {"connections_max": 2})
        patch.setattr(clients, "CONNECT_S_MAX", 0.5)
        endpoint = Endpoint(0.1)
        async with opened(endpoint) as source:
            for number in range(5):
                assert await read(source, ShardId(f"shardId-{number:012}"), 1) == ""
            assert await source.shards() == []
    assert endpoint.subscribed == 5


BARE = b"data: {}\n\n"


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (b"{}", {"Content-Type": "application/json"}),
        (b"{}", HEAD),
        (b"", HEAD),
        (100 * BARE, {"Content-Type": "text/event-stream"}),
        (100 * BARE, HEAD),
        (FIRST, HEAD),
        (FIRST + 100 * BARE, HEAD),
        (FIRST[:-1], HEAD),
    ],
    ids=[
        "an object, floci 562",
        "an object as a stream",
        "nothing",
        "lines, litellm 31845",
        "lines as a stream",
        "no event, connect 4724",
        "lines behind the first message",
        "a cut first message",
    ],
)
@on_a_loop
async def test_an_answer_that_is_no_stream_of_events_lets_the_shard_be_polled(
    body: bytes, head: Mapping[str, str]
) -> None:
    class Other(Endpoint):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            if request.headers["X-Amz-Target"].endswith("SubscribeToShard"):
                self.subscribed += 1
                return web.Response(body=body, headers=head)
            return await super().answer(request)

    endpoint = Other(0.1)
    async with opened(endpoint) as source:
        pushed = source.pushing()
        cursor = await pushed.cursor(SHARD, Position.horizon())
        for _ in range(3):
            page = await pushed.read(SHARD, cursor, records_max=100)
            assert page.cursor is not None
            cursor = page.cursor
        assert pushed.polled_because(SHARD).startswith("kinesis SubscribeToShard")
    assert endpoint.subscribed == 1
