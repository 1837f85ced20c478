"""Owns PgBouncer as a real process in front of a PostgreSQL server: its configuration, its start and its end.

Like the server it refuses to run as root.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from adapters.demo.processes import free_port
from tests.emulators import HOST, LOG_TAIL_CHARS, NotReady
from tests.postgres import NOBODY, POLL_S, READY_S_MAX, Postgres, home

PROGRAM = "POLLER_TEST_PGBOUNCER"
"""The environment variable that names another PgBouncer than the one of the system."""
SYSTEM_PATH = f"{os.defpath}:/usr/sbin:/usr/local/sbin"
MISSING = (
    "the tests of PgBouncer need one: install it (on Debian: apt-get install --no-install-recommends pgbouncer), "
    f"or name it in {PROGRAM}"
)


@dataclass(slots=True)
class Pooler:
    """A PgBouncer: its port, its folder, and its process while it runs."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        whose: dict[str, Any] = {}
        if os.geteuid() == 0:
            whose = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program(), str(self.folder / "pgbouncer.ini")],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **whose,
            )
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                time.sleep(POLL_S)
        raise NotReady(f"PgBouncer did not start: {self.log()}")

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def connect(self) -> "psycopg.Connection[Any]":
        """A connection through it, which commits each statement."""
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user="postgres",
            dbname="postgres",
            autocommit=True,
            prepare_threshold=None,
        )

    def log(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(errors="replace")[-LOG_TAIL_CHARS:]


def program() -> str:
    """The path of PgBouncer. Raises NotReady, with the remedy, where there is none."""
    found = os.environ.get(PROGRAM) or shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    )
    if found is None:
        raise NotReady(MISSING)
    return found


@contextmanager
def pgbouncer(server: Postgres, *, connections: int) -> Iterator[Pooler]:
    """A running PgBouncer in transaction mode that has so many connections to the server."""
    with home() as folder:
        pooler = Pooler(free_port(), folder)
        lines = (
            "[databases]",
            f"* = host={HOST} port={server.port} user=postgres",
            "[pgbouncer]",
            f"listen_addr = {HOST}",
            f"listen_port = {pooler.port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {connections}",
            "server_login_retry = 0.2",
        )
        (folder / "pgbouncer.ini").write_text("".join(f"{line}\n" for line in lines))
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.kill()
