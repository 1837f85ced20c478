"""Owns the store on a PostgreSQL server whose disk is full: a small file system in memory."""

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.records import Position
from poller.domain.rows import Checkpoint, Lease
from poller.testing.stores.store_steps import LADDER, ORDERS, only, taken
from tests.adapters.stores.postgresql.openings import REPEATS_MAX, at, until_it_succeeds
from tests.postgres import NOBODY, Postgres, home, made_in

DISK_MB = 160
"""Enough for a new server and its log."""
MEMO_BYTES = 200_000
PAGE_BYTES = 8192


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory; the test is skipped where this user may not mount one."""
    with home() as folder:
        size = f"size={megabytes}m,mode=0700,uid={NOBODY},gid={NOBODY}"
        if (
            os.geteuid()
            or subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False).returncode
        ):
            pytest.skip("only root may make a small file system")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_refuses_writes_and_heals_without_losing_any() -> None:
    async def scenario(server: Postgres) -> None:
        filler = server.data / "filler"
        async with at(server.url()) as store:
            held = await taken(store)
            saved = wanted = Checkpoint(LADDER[2], b"before")
            refused: list[PortError] = []
            await store.save(ORDERS, held, saved)
            _fill(filler)
            for number in range(REPEATS_MAX):
                wanted = Checkpoint(Position.after(str(1000 + number)), os.urandom(MEMO_BYTES))
                try:
                    await store.save(ORDERS, held, wanted)
                except PortError as error:
                    refused.append(error)
                    break
                saved = wanted
            assert refused, "the disk is full"
            assert all(isinstance(each, ServiceUnavailable) for each in refused)
            filler.unlink()

            async def leases() -> Sequence[Lease]:
                if server.process is not None and server.process.poll() is not None:
                    # Without room for its log the server ends itself.
                    await asyncio.to_thread(server.start)
                return await store.leases(ORDERS)

            (stored,), _ = await until_it_succeeds(leases)
            assert stored.checkpoint in (saved, wanted), "no returned write is lost"
            await until_it_succeeds(lambda: store.save(ORDERS, held, wanted))
            assert (await only(store)).checkpoint == wanted

    with small_disk(DISK_MB) as folder, made_in(folder) as server:
        server.start()
        asyncio.run(scenario(server))


def _fill(path: Path) -> None:
    """Writes until there is no room for another page."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE_BYTES))
