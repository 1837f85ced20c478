"""Owns the course of a demo: emulator, sources, daemon, load, and the wait until all records are settled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

from adapters.demo.daemon import GRACE_S, Daemon, Launcher, function_server, journal_path
from adapters.demo.dead_letters import DeadLetterCollector
from adapters.demo.emulator import Clients, clients, emulator
from adapters.demo.journal import Reader
from adapters.demo.ledger import Ledger
from adapters.demo.load import Item, Source
from adapters.demo.processes import Unusable
from adapters.demo.report import Blocked, Evidence, Report, make_report
from adapters.demo.resources import RECEIVES_MAX, Resources, create
from adapters.demo.writing import Writer, Written
from poller.domain.status import DaemonStatus, LaneStatus

CHECK_S = 0.3
"""Seconds between two checks of the progress."""

type PrintLine = Callable[[str], None]
"""Prints one line for the user."""
type Show = Callable[[Evidence, Written], None]
"""Shows the present progress."""


@dataclass(slots=True)
class Scene:
    """Everything that exists before a daemon is started."""

    folder: Path
    endpoint: str
    function_url: str
    clients: Clients
    resources: Resources
    written: Written
    evidence: Evidence
    reader: Reader
    collector: DeadLetterCollector

    def launcher(self) -> Launcher:
        """Returns what starts daemons."""
        return Launcher(self.folder, self.resources, endpoint=self.endpoint, function_url=self.function_url)

    def writer(self) -> Writer:
        """Returns what writes the load."""
        return Writer(self.clients, self.resources, self.written)

    async def look(self) -> None:
        """Reads what has happened since the last call."""
        for line in self.reader.fresh():
            self.evidence.ledger.take(line)
        await self.collector.look()
        for source, queue in self.resources.queues.items():
            self.evidence.left[source] = await _depth(self.clients["sqs"], queue.url)


@asynccontextmanager
async def scene(
    folder: Path, load: Mapping[Source, Sequence[Item]], *, receives_max: int = RECEIVES_MAX
) -> AsyncIterator[Scene]:
    """Starts the emulator and the function server and creates the sources; ends everything with the block."""
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(emulator(folder))
        aws = await stack.enter_async_context(clients(endpoint))
        resources = await create(aws, receives_max=receives_max)
        written = Written()
        collector = DeadLetterCollector(aws, resources, written)
        yield Scene(
            folder,
            endpoint,
            await stack.enter_async_context(function_server(folder)),
            aws,
            resources,
            written,
            Evidence(load, Ledger(load), collector.found),
            Reader(journal_path(folder)),
            collector,
        )


async def play(
    folder: Path,
    load: Mapping[Source, Sequence[Item]],
    *,
    timeout_s: float,
    print_line: PrintLine,
    show: Show,
    doing: PrintLine = lambda _: None,
) -> Report:
    """Runs the whole demo; returns the report when all records are settled or the time is over. `doing` gets what takes a while."""
    began = time.monotonic()
    doing("starting an emulator of AWS, and creating a stream, a table and queues")
    async with scene(folder, load) as stage:
        print_line(f"emulator of AWS at {stage.endpoint}; a stream, a table and two queues are there")
        doing("starting the daemon")
        with stage.launcher().launched() as daemon:
            await daemon.ready()
            print_line(
                f"daemon ready, pid {daemon.running.pid}; poller status --url {daemon.url} shows it too"
            )
            problems = await _until_settled(stage, daemon, load, timeout_s=timeout_s, show=show)
            daemon.running.signal(SIGTERM)
            print_line("told the daemon to drain (SIGTERM)")
            status = await daemon.running.ended(GRACE_S + 5)
        await stage.look()
        show(stage.evidence, stage.written)
        if status != 0:
            problems.append(
                f"the daemon ended with exit status {status} instead of 0; {daemon.running.tail()}"
            )
        found = make_report(stage.evidence, seconds=time.monotonic() - began)
        return Report(found.rows, (*problems, *found.problems), found.notes, found.seconds)


async def _until_settled(
    stage: Scene,
    daemon: Daemon,
    load: Mapping[Source, Sequence[Item]],
    *,
    timeout_s: float,
    show: Show,
) -> list[str]:
    """Writes the load and waits until all records are settled; returns the problems with that."""
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as scope:
            writes = [
                scope.create_task(stage.writer().write(items), name=f"write {source}")
                for source, items in load.items()
            ]
            while not (all(task.done() for task in writes) and stage.evidence.complete):
                await asyncio.sleep(CHECK_S)
                await _watch(stage, daemon)
                show(stage.evidence, stage.written)
    except TimeoutError:
        return [f"not everything had settled after {timeout_s:g} s (--timeout)"]
    return []


async def _watch(stage: Scene, daemon: Daemon) -> None:
    await stage.look()
    stage.evidence.counters = await daemon.figures()
    note_blocked(stage.evidence.blocked, await daemon.status(), time.time())
    if (status := daemon.running.exit_status) is not None:
        raise Unusable(f"the daemon ended with exit status {status}\n{daemon.running.tail()}")


def note_blocked(blocked: dict[Source, Blocked], status: DaemonStatus, now: float) -> None:
    """Keeps for each source the longest time for which a status showed it blocked."""
    for mapping in status.mappings:
        lanes = [("", lane) for lane in mapping.lanes]
        lanes += [(f"{shard.shard} ", lane) for shard in mapping.shards for lane in shard.lanes]
        for place, lane in lanes:
            if lane.blocked_since is not None:
                found = _blocked(place, lane, now - lane.blocked_since)
                source = Source(mapping.function)
                if source not in blocked or blocked[source].for_s <= found.for_s:
                    blocked[source] = found


def _blocked(place: str, lane: LaneStatus, for_s: float) -> Blocked:
    keys = ", ".join(sorted({record.key for record in lane.records}))
    return Blocked(for_s, f"{place}{lane.lane}" + (f" by {keys}" if keys else ""), lane.last_error)


async def _depth(sqs: Any, url: str) -> int:
    """Counts the messages in a queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(int(answer["Attributes"][each]) for each in names)
