"""Owns the daemon of the demo: its configuration, its process, and the reading of its status and metrics."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from adapters.demo.emulator import REGION, credentials
from adapters.demo.functions import JOURNAL, LIFE, PAUSE_S, Function
from adapters.demo.journal import Journal
from adapters.demo.load import Source
from adapters.demo.processes import HOST, Running, Unusable, free_port, plain_environment, running
from adapters.demo.resources import VISIBILITY_S, Resources
from adapters.private_files import private_opener
from poller.domain.status import DaemonStatus

READY_S_MAX = 30.0
GRACE_S = 10.0
ANSWER_S_MAX = 5.0
PAYMENTS_MAX = 5
"""Messages in one batch. Messages behind poison in a batch go to the dead-letter queue with it."""
BATCH_SIZE = 100
"""The batch size of streams, which is AWS's default."""
LANES_PER_SHARD = 2
"""The parallelization factor of the orders: keys of one shard are processed concurrently."""
EVENT_BYTES_MAX = 6 * 1024 * 1024
LIFE_HEADER = "x-demo-life"
PAUSE_HEADER = "x-demo-pause-s"
UUIDS = {
    source: f"00000000-0000-4000-8000-00000000000{number}" for number, source in enumerate(Source, start=1)
}
_KINDS = '["plain", "poison", "stumble"]'
FILTERS = {
    Source.ORDERS: f'{{"data": {{"kind": {_KINDS}}}}}',
    Source.STOCK: f'{{"dynamodb": {{"NewImage": {{"kind": {{"S": {_KINDS}}}}}}}}}',
    Source.MAILS: f'{{"body": {{"kind": {_KINDS}}}}}',
}


def configuration(
    resources: Resources,
    *,
    endpoint: str,
    listen: str,
    store: Path,
    function_url: str,
    life: int,
    pause_s: float,
    batch_size: int,
) -> dict[str, Any]:
    """Returns the daemon's configuration, as a user would write it."""
    python = {"invoker": "python"}
    return {
        "region": REGION,
        "endpoint_url": endpoint,
        "listen": listen,
        "store": f"sqlite://{store}",
        "functions": {
            "orders": {**python, "handler": "adapters.demo.functions:orders"},
            "mails": {**python, "handler": "adapters.demo.functions:mails", "timeout_s": VISIBILITY_S},
            "payments": {**python, "handler": "adapters.demo.functions:payments", "timeout_s": VISIBILITY_S},
            "stock": {
                "invoker": "http",
                "url": function_url,
                "headers": {LIFE_HEADER: str(life), PAUSE_HEADER: str(pause_s)},
            },
        },
        "mappings": [mapping(source, resources, batch_size=batch_size) for source in Source],
        "tuning": {"idle_poll_s": 0.25, "grace_s": GRACE_S},
    }


def mapping(source: Source, resources: Resources, *, batch_size: int) -> dict[str, Any]:
    """Returns one mapping with AWS's names."""
    found: dict[str, Any] = {
        "UUID": UUIDS[source],
        "FunctionName": source.value,
        "EventSourceArn": resources.sources[source],
    }
    if source in FILTERS:
        found["FilterCriteria"] = {"Filters": [{"Pattern": FILTERS[source]}]}
    if source is not Source.ORDERS:
        found["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
    if source is Source.ORDERS:
        found["ParallelizationFactor"] = LANES_PER_SHARD
    if source is Source.PAYMENTS:
        found["BatchSize"] = PAYMENTS_MAX
    if source.stream:
        found |= {
            "BatchSize": batch_size,
            "StartingPosition": "TRIM_HORIZON",
            "BisectBatchOnFunctionError": True,
            "MaximumRetryAttempts": 4,
            "DestinationConfig": {"OnFailure": {"Destination": resources.destination(source)}},
        }
    return found


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon and its URL."""

    running: Running
    url: str

    async def ready(self) -> None:
        """Waits until every mapping is ready; raises Unusable if that does not happen."""
        await self.running.answers(f"{self.url}/readyz", READY_S_MAX)

    async def status(self) -> DaemonStatus:
        """Reads the status, as `poller status` does; raises Unusable if there is no answer."""
        return msgspec.json.decode(await self._get("/v1/mappings"), type=DaemonStatus)

    async def figures(self) -> dict[Source, dict[str, float]]:
        """Reads the counters of each mapping: names without prefix, followed by a slash and the values of further labels."""
        return counters((await self._get("/metrics")).decode())

    async def _get(self, path: str) -> bytes:
        limit = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(self.url + path) as answer,
            ):
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"the daemon does not answer {path} ({type(error).__name__})"
            raise Unusable(f"{problem}\n{self.running.tail()}") from error


def counters(page: str) -> dict[Source, dict[str, float]]:
    """Returns the counters of each source in a page of metrics."""
    sources = {uuid: source for source, uuid in UUIDS.items()}
    found: dict[Source, dict[str, float]] = {source: {} for source in Source}
    for family in text_string_to_metric_families(page):
        for sample in family.samples if family.type == "counter" else ():
            labels = dict(sample.labels)
            source = sources.get(labels.pop("mapping", ""))
            if source is not None and sample.name.endswith("_total"):
                name = sample.name.removeprefix("poller_").removesuffix("_total")
                found[source]["/".join((name, *labels.values()))] = sample.value
    return found


class Launcher:
    """Starts daemons one after the other on the same store. Each start has the number of a life."""

    def __init__(self, folder: Path, resources: Resources, *, endpoint: str, function_url: str) -> None:
        self._folder = folder
        self._resources = resources
        self._endpoint = endpoint
        self._function_url = function_url
        self._lives = 0

    @property
    def journal(self) -> Path:
        """The journal of the functions."""
        return journal_path(self._folder)

    @contextmanager
    def launched(self, *, pause_s: float = 0.0, batch_size: int = BATCH_SIZE) -> Iterator[Daemon]:
        """Runs a daemon until the block ends. It need not be ready yet.

        Its functions take `pause_s` for each invocation; `batch_size` is that of the streams.
        """
        self._lives += 1
        port = free_port()
        config = self._folder / "poller.yaml"
        document = configuration(
            self._resources,
            endpoint=self._endpoint,
            listen=f"{HOST}:{port}",
            store=self._folder / "state.db",
            function_url=self._function_url,
            life=self._lives,
            pause_s=pause_s,
            batch_size=batch_size,
        )
        with open(config, "w", encoding="utf-8", opener=private_opener) as file:
            yaml.safe_dump(document, file, sort_keys=False)
        own = {JOURNAL: str(journal_path(self._folder)), LIFE: str(self._lives), PAUSE_S: str(pause_s)}
        env = plain_environment() | credentials() | own
        command = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        with running("daemon", command, env, self._folder) as process:
            yield Daemon(process, f"http://{HOST}:{port}")


def journal_path(folder: Path) -> Path:
    """Returns the path of the journal of a demo in `folder`."""
    return folder / "journal.jsonl"


@asynccontextmanager
async def function_server(folder: Path) -> AsyncIterator[str]:
    """Serves the function `stock` over HTTP; yields its URL."""
    journal = Journal(journal_path(folder))

    async def stock(request: web.Request) -> web.Response:
        function = Function(Source.STOCK, journal, int(request.headers[LIFE_HEADER]))
        job = function.begin(await request.json(), request.headers["x-amzn-requestid"])
        await asyncio.sleep(float(request.headers[PAUSE_HEADER]))
        return web.json_response(function.finish(job))

    app = web.Application(client_max_size=EVENT_BYTES_MAX)
    app.router.add_post("/stock", stock)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/stock"
    finally:
        await runner.cleanup()
