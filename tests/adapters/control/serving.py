"""Owns how tests run the control server: over real sockets, on either loop, with a client for it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
import uvloop
import yarl

from adapters.control.openapi.document import document
from adapters.control.pressure import Limits
from adapters.control.server import ControlServer, open_server
from adapters.control.settings import ApiSettings, ServerSettings
from poller.domain.functions.calls import FunctionCaller
from poller.domain.mapping_api import FunctionControl, MappingControl, TagControl
from poller.domain.operations import OperationControl
from poller.domain.peeking.answers import PeekControl
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.sizing.fleet_size import FleetScaling, Pressure, WorkerPressure
from poller.domain.status import (
    DaemonStatus,
    ErrorDocument,
    FaultyRecord,
    LaneStatus,
    MappingStatus,
    ShardStatus,
    UnknownWorker,
)
from poller.domain.supervision.processes import Processes
from poller.domain.telemetry.history import HistorySource
from poller.domain.telemetry.observers import Observer
from poller.plugins import Environment
from poller.ports import Clock, Exposition
from poller.refused_requests import Strangers
from poller.testing.telemetry_events import MAPPING, QUEUE, QUEUE_ARN, STREAM_ARN, SetClock

PATIENCE_S = 60.0
LANE = LaneStatus(
    lane="3",
    state="waiting",
    attempts=4,
    blocked_since=Epoch(1_700_000_000.5),
    next_try=Epoch(1_700_000_030.0),
    last_error="ValueError: no",
    error=ErrorDocument(errorType="ValueError", errorMessage="no", stackTrace=("  File a", "    b")),
    records=(FaultyRecord(identifier="495", key="a", arrived=Epoch(1_699_999_000.25)),),
    records_count=1,
    retained_until=Epoch(1_700_085_400.25),
)
STREAM = MappingStatus(
    mapping=MAPPING,
    function="orders",
    source_arn=STREAM_ARN,
    state=MappingState.ENABLED,
    shards=(
        ShardStatus(
            shard=ShardId("shardId-0"),
            state="failing",
            position="AFTER:494",
            behind_ms=1500,
            owner="w",
            lanes=(LANE,),
        ),
    ),
)
QUEUED = MappingStatus(
    mapping=QUEUE, function="orders", source_arn=QUEUE_ARN, state=MappingState.BROKEN, reason="bug", pollers=2
)
SCALING = FleetScaling(
    wanted_workers=3,
    workers=2,
    workers_max=8,
    complete=True,
    reason="w: a shard is behind",
    pressures=(
        WorkerPressure(worker="v", pressure=Pressure.STEADY, shards=4),
        WorkerPressure(worker="w", pressure=Pressure.BUSY, shards=4, reason="a shard is behind"),
    ),
)
STATUS = DaemonStatus(worker="w", mappings=(STREAM, QUEUED), ready=True, alive=True)

type LoopFactory = Callable[[], asyncio.AbstractEventLoop]

on_both_loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def on_loop[T](loop_factory: LoopFactory, running: Coroutine[Any, Any, T]) -> T:
    """Runs on a new loop of this kind."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(running)


@dataclass
class View:
    """A status that tests set."""

    now: DaemonStatus = STATUS
    refreshed: int = 0
    scaling: FleetScaling | None = SCALING

    def status(self) -> DaemonStatus:
        return self.now

    async def fleet(
        self, *, only: str = "", mapping: MappingId | None = None, ask: bool = True
    ) -> DaemonStatus:
        if only not in {"", self.now.worker}:
            raise UnknownWorker([self.now.worker])
        return replace(self.status(), only=only)

    async def refresh(self) -> None:
        self.refreshed += 1

    async def fleet_size(self) -> FleetScaling | None:
        return self.scaling


@dataclass
class Page:
    """An exposition with a fixed page."""

    body: bytes
    content_type: str = "text/plain; version=0.0.4; charset=utf-8"

    def exposition(self) -> tuple[bytes, str]:
        return self.body, self.content_type


@dataclass
class Running:
    """A server that serves, and a client for it."""

    server: ControlServer
    client: aiohttp.ClientSession
    view: View

    @property
    def url(self) -> str:
        return f"http://{self.server.address}"

    async def get(self, path: str, **more: Any) -> tuple[int, Any, Any]:
        return await self.ask("GET", path, **more)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        """Status, body (parsed if it is JSON) and headers."""
        status, body, headers = await self.exact(method, path, **more)
        json_body = headers.get("Content-Type") == "application/json" and body
        return status, json.loads(body) if json_body else body, headers

    async def exact(self, method: str, path: str, **more: Any) -> tuple[int, bytes, Any]:
        """Status, body to the byte, and headers."""
        url = yarl.URL(self.url + path, encoded=True)
        async with self.client.request(method, url, **more) as response:
            # The stream of updates does not end by itself.
            endless = response.content_type == "text/event-stream"
            return response.status, b"" if endless else await response.read(), response.headers

    async def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the server closes."""
        reader, writer = await asyncio.open_connection(self.server.address.host, self.server.address.port)
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@dataclass
class Setting:
    """How the server under test is set."""

    view: View = field(default_factory=View)
    expositions: tuple[Exposition, ...] = ()
    listen: str = "127.0.0.1:0"
    loop_factory: LoopFactory = asyncio.SelectorEventLoop
    api: ApiSettings = field(default_factory=lambda: ApiSettings(allowed_hosts=("h",)))
    """`h` is short for requests that tests write by hand."""
    control: MappingControl | None = None
    tags: TagControl | None = None
    operations: OperationControl | None = None
    observer: Observer | None = None
    peeking: PeekControl | None = None
    functions: FunctionControl | None = None
    calls: FunctionCaller | None = None
    history: HistorySource | None = None
    processes: Processes | None = None
    clock: Clock = field(default_factory=SetClock)
    patience_s: float = PATIENCE_S
    strangers: Strangers = field(default_factory=Strangers)
    limits: Limits = field(default_factory=Limits)


def serving[T](use: Callable[[Running], Awaitable[T]], setting: Setting | None = None) -> T:
    """Runs `use` against a server, then cancels the server."""
    given = setting or Setting()
    settings = ServerSettings(listen=given.listen, api=given.api)

    async def run() -> T:
        async with open_server(settings, Environment(clock=given.clock, strangers=given.strangers)) as server:
            server.limits = given.limits
            async with asyncio.timeout(given.patience_s), asyncio.TaskGroup() as tasks:
                served = tasks.create_task(
                    server.serve(
                        given.view,
                        given.expositions,
                        given.control,
                        given.tags,
                        given.observer,
                        given.operations,
                        peeking=given.peeking,
                        functions=given.functions,
                        calls=given.calls,
                        history=given.history,
                        processes=given.processes,
                    ),
                    name="serve",
                )
                await server.bound()
                async with aiohttp.ClientSession() as client:
                    result = await use(Running(server, client, given.view))
                served.cancel()
            return result

    return on_loop(given.loop_factory, run())


def validate(value: Any, schema: str) -> None:
    """Raises if `value` is not what the document's schema says."""
    components = document()["components"]
    jsonschema_rs.validate({"$ref": f"#/components/schemas/{schema}", "components": components}, value)
