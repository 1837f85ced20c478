"""Owns the demo from its first process to its last: emulator, sources, daemon, load, and the wait for all to settle."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

from adapters.demo.daemon import GRACE_S, Daemon, Launcher, function_server, journal_path
from adapters.demo.dead_letters import Gravedigger
from adapters.demo.emulator import Clients, clients, emulator
from adapters.demo.journal import Reader
from adapters.demo.ledger import Ledger
from adapters.demo.load import Item, Source
from adapters.demo.processes import Unusable
from adapters.demo.report import Account, Blocked, Evidence, account
from adapters.demo.resources import RECEIVES_MAX, Resources, create
from adapters.demo.writing import Writer, Written
from poller.domain.status import DaemonStatus, LaneStatus

LOOK_S = 0.3
"""Between two looks at what has happened."""

type Tell = Callable[[str], None]
"""Takes one line for the user."""
type Show = Callable[[Evidence, Written], None]
"""Takes the picture of this moment."""


@dataclass(slots=True)
class Scene:
    """Everything that stands before a daemon is started."""

    folder: Path
    endpoint: str
    function_url: str
    clients: Clients
    resources: Resources
    written: Written
    evidence: Evidence
    reader: Reader
    digger: Gravedigger

    def launcher(self) -> Launcher:
        """What starts daemons on this scene."""
        return Launcher(self.folder, self.resources, endpoint=self.endpoint, function_url=self.function_url)

    def writer(self) -> Writer:
        """What writes the load."""
        return Writer(self.clients, self.resources, self.written)

    async def look(self) -> None:
        """Takes in what came since the last look."""
        for line in self.reader.fresh():
            self.evidence.ledger.take(line)
        await self.digger.look()
        for source, queue in self.resources.queues.items():
            self.evidence.left[source] = await _depth(self.clients["sqs"], queue.url)


@asynccontextmanager
async def scene(
    folder: Path, load: Mapping[Source, Sequence[Item]], *, receives_max: int = RECEIVES_MAX
) -> AsyncIterator[Scene]:
    """Starts emulator and function server, creates the sources; all is gone when the block ends."""
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(emulator(folder))
        aws = await stack.enter_async_context(clients(endpoint))
        resources = await create(aws, receives_max=receives_max)
        written = Written()
        digger = Gravedigger(aws, resources, written)
        yield Scene(
            folder,
            endpoint,
            await stack.enter_async_context(function_server(folder)),
            aws,
            resources,
            written,
            Evidence(load, Ledger(load), digger.found),
            Reader(journal_path(folder)),
            digger,
        )


async def play(
    folder: Path, load: Mapping[Source, Sequence[Item]], *, timeout_s: float, tell: Tell, show: Show
) -> Account:
    """The whole demo; returns the account of what was known when all had settled or time was up."""
    began = time.monotonic()
    async with scene(folder, load) as stage:
        tell(f"emulator of AWS at {stage.endpoint}; a stream, a table and two queues are there")
        with stage.launcher().launched() as daemon:
            await daemon.ready()
            tell(f"daemon ready, pid {daemon.running.pid}; poller status --url {daemon.url} shows it too")
            problems = await _until_settled(stage, daemon, load, timeout_s=timeout_s, show=show)
            daemon.running.signal(SIGTERM)
            tell("told the daemon to drain (SIGTERM)")
            status = await daemon.running.ended(GRACE_S + 5)
        await stage.look()
        show(stage.evidence, stage.written)
        if status != 0:
            problems.append(
                f"the daemon ended with exit status {status} instead of 0; {daemon.running.tail()}"
            )
        found = account(stage.evidence, seconds=time.monotonic() - began)
        return Account(found.rows, (*problems, *found.problems), found.notes, found.seconds)


async def _until_settled(
    stage: Scene,
    daemon: Daemon,
    load: Mapping[Source, Sequence[Item]],
    *,
    timeout_s: float,
    show: Show,
) -> list[str]:
    """Writes the load and watches until all has settled; returns what went wrong with that."""
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as scope:
            writes = [
                scope.create_task(stage.writer().write(items), name=f"write {source}")
                for source, items in load.items()
            ]
            while not (all(task.done() for task in writes) and stage.evidence.complete):
                await asyncio.sleep(LOOK_S)
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
    """Keeps for each source the longest blockade that a status has shown."""
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
    """Messages in a queue, those in flight too."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(int(answer["Attributes"][each]) for each in names)
