"""Daemons with few file descriptors: the port answers probes, and the configuration is read again, whoever takes the rest."""

import json
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from poller.commands.run.descriptors import ENOUGH, WANTED, few_descriptors, raise_limit

FILE = "listen: 127.0.0.1:0\nstore: memory://\nmappings: []\n"


@dataclass
class Daemon:
    """A daemon in a process of its own."""

    process: subprocess.Popen[bytes]
    file: Path
    log: Path
    port: int = 0

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log about an event."""
        return [
            found for found in map(json.loads, self.log.read_text().splitlines()) if found["event"] == event
        ]

    def waited(self, event: str) -> dict[str, Any]:
        """The first line about an event, as soon as it is there."""
        deadline = time.monotonic() + 60
        while not (found := self.lines(event)):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return found[0]

    def get(self, path: str) -> str:
        """The body of an answer with status 200, which comes within seconds."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
        return body.decode()


@contextmanager
def daemon(place: Path, limit: int) -> Iterator[Daemon]:
    """A daemon with a soft and a hard limit of descriptors."""
    file, log = place / "poller.yaml", place / "log"
    file.write_text(FILE)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    command = [sys.executable, "-m", "poller", "run", "--config", str(file), "--log-format", "json"]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=limited) as process,
    ):
        try:
            found = Daemon(process, file, log)
            found.port = int(found.waited("daemon_starting")["listen"].rpartition(":")[2])
            yield found
        finally:
            process.terminate()


@contextmanager
def silent(port: int, count: int, addresses: int) -> Iterator[None]:
    """So many connections that never say anything, from so many addresses."""
    with ExitStack() as stack:
        for number in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind((f"127.0.0.{2 + number % addresses}", 0))
            sock.connect(("127.0.0.1", port))
        time.sleep(0.5)
        yield


@pytest.mark.parametrize(("limit", "addresses"), [(256, 4), (64, 1), (64, 16)])
def test_silent_connections_lock_no_probe_out_however_few_descriptors_there_are(
    tmp_path: Path, limit: int, addresses: int
) -> None:
    with daemon(tmp_path, limit) as found:
        assert str(limit) in found.waited("few_descriptors")["message"]
        with silent(found.port, 300, addresses):
            for _ in range(3):
                assert json.loads(found.get("/healthz"))["alive"]
            found.get("/readyz")
            assert "\npoller_http_idle_closed_total " in found.get("/metrics")
            # There are descriptors left to look at the file and to read it.
            found.file.write_text(FILE + "tuning: {grace_s: 5}\n")
            assert found.waited("configuration_reloaded")["ok"]
        assert [line["ok"] for line in found.lines("configuration_reloaded")] == [True]
        assert found.lines("configuration_unread") == []


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ((256, resource.RLIM_INFINITY), WANTED),
        ((1024, 1_048_576), WANTED),
        ((1024, 2000), 2000),
        ((256, 256), 256),
        ((65_536, 1_048_576), 65_536),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), sys.maxsize),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], expected: int
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    assert raise_limit() == expected
    assert given == ([] if expected in {before[0], sys.maxsize} else [(expected, before[1])])


def test_a_system_that_refuses_to_raise_the_limit_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_kind: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 10_240))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 256


@pytest.mark.parametrize(("limit", "lines"), [(64, 1), (ENOUGH - 1, 1), (ENOUGH, 0), (WANTED, 0)])
def test_only_a_low_limit_is_told(limit: int, lines: int) -> None:
    assert len(few_descriptors(limit)) == lines
