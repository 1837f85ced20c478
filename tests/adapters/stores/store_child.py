"""Owns processes that work on a SQLite store: `save FILE WORKER` and `put FILE WORKER` until they are killed, `take FILE WORKER` once,
or `finish FILE WORKER`.

Run as a program without these words, it reads them line by line, and forks a process for each: so many processes need not import
all modules anew. It says `pid N` before the process begins, and `end` when it has ended.
"""

import asyncio
import os
import random
import sys
from itertools import count

from adapters.stores.sqlite.store import SqliteSettings, plugin
from poller.call_queue_ports import HasCallQueue
from poller.clock import LoopClock
from poller.domain.errors import LeaseLost, RowChanged
from poller.domain.functions.queued_calls import CallId, QueuedCall
from poller.domain.operations import OperationState, PartResult
from poller.domain.records import Epoch, Position, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.plugins import Environment
from poller.ports import Store
from poller.rules.operations import lifecycle
from poller.testing.stores.store_steps import ORDERS


def acknowledge(line: str) -> None:
    """Writes one line at once: what was written before a SIGKILL stays in the pipe."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


async def keep_saving(store: Store, held: Lease) -> None:
    """Saves ever higher positions of one shard and says so after each."""
    for number in count(held.checkpoint.position.sequence + 1):
        await store.save(ORDERS, held, Checkpoint(Position.after(str(number)), b"%d" % number))
        acknowledge(f"{held.shard} {number}")


async def save(store: Store, worker: WorkerId) -> None:
    """Takes all shards and saves them at the same time, so that saves share transactions."""
    held = [await store.take(ORDERS, lease, owner=worker) for lease in await store.leases(ORDERS)]
    async with asyncio.TaskGroup() as group:
        for each in held:
            group.create_task(keep_saving(store, each))


async def take(store: Store, worker: WorkerId) -> None:
    """Tries to take every shard at the epoch of the beginning and names those that it got."""
    for lease in await store.leases(ORDERS):
        try:
            await store.take(ORDERS, Lease(lease.shard, (), lease.checkpoint), owner=worker)
        except LeaseLost:
            continue
        acknowledge(lease.shard)


async def finish(store: Store, worker: WorkerId) -> None:
    """Finishes whatever parts of the only open operation are missing, and names those whose results were its own."""
    while operations := await store.operations():
        (there,) = operations
        part = random.choice(lifecycle.missing(there))
        result = PartResult(state=OperationState.DONE, result=worker)
        try:
            await store.change(lifecycle.finish_part(there, part, result, now=Epoch(9.0)))
        except RowChanged:
            continue
        acknowledge(part)


async def put(store: Store, worker: WorkerId) -> None:
    """Puts calls, two at a time, and says so after each; claims one of them now and then."""
    assert isinstance(store, HasCallQueue)
    queue, now = store.call_queue, Epoch(1_700_000_000.0)

    async def one(name: str) -> None:
        await queue.put(
            QueuedCall(call=CallId(name), function="orders", arn="arn", payload=b"{}", accepted=now, due=now)
        )
        acknowledge(name)

    for number in count():
        async with asyncio.TaskGroup() as group:
            group.create_task(one(f"call-{number}-a"))
            group.create_task(one(f"call-{number}-b"))
        if number % 10 == 0:
            await queue.claim("orders", now=now, owner=worker, gone=(), held=(), calls_max=1)


async def main(job: str, path: str, worker: str) -> None:
    """Opens the store as a daemon does, with synchronous=FULL."""
    async with plugin.open(SqliteSettings(url=f"sqlite://{path}"), Environment(LoopClock())) as store:
        await {"save": save, "take": take, "finish": finish, "put": put}[job](store, WorkerId(worker))


def serve() -> None:
    """Until its standard input ends; runs one process at a time, and has no thread and no loop of its own."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            acknowledge(f"pid {os.getpid()}")
            asyncio.run(main(*line.split()))
            os._exit(0)
        os.waitpid(child, 0)
        acknowledge("end")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(main(*sys.argv[1:]))
    else:
        serve()
