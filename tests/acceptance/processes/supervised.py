"""Owns how tests run a daemon of several processes, and how they look into it: its processes, its port, its log."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from adapters.demo.emulator import REGION, credentials
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.daemons import alive, children

READY_S_MAX = 120.0
END_S_MAX = 60.0
ANSWER_S_MAX = 12.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Supervised:
    """A supervisor and its processes."""

    running: Running
    port: int

    def processes(self) -> list[int]:
        """The process ids of the workers that run now."""
        return [pid for pid in children(self.running.pid) if alive(pid)]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 if nothing answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=ANSWER_S_MAX) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def probe(self, path: str = "/readyz") -> dict[str, Any]:
        """The body of a probe; empty if nothing answers."""
        status, body = self.get(path)
        found: dict[str, Any] = json.loads(body) if status else {}
        return found

    def metric(self, name: str) -> dict[str, float]:
        """The values of a metric by process, those of further labels added up."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name:
                    process = sample.labels["process"]
                    found[process] = found.get(process, 0.0) + sample.value
        return found

    def until(self, holds: Callable[[], object], what: str, *, within_s: float = READY_S_MAX) -> None:
        """Returns when `holds()`; fails with the end of the log otherwise."""
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s\n{self.running.tail()}"
            time.sleep(LOOK_S)

    def ready(self) -> None:
        """Returns when all processes are ready."""
        self.until(lambda: self.get("/readyz")[0] == 200, "ready")

    def ended(self, *, within_s: float = END_S_MAX) -> int:
        """Waits for the supervisor's end; returns the exit status."""
        status = self.running.process.wait(within_s)
        assert isinstance(status, int)
        return status

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """The JSON lines of the log, all or those of one event."""
        found = []
        for line in self.running.log.read_text().splitlines():
            if line.startswith("{"):
                members = json.loads(line)
                if event in ("", members["event"]):
                    found.append(members)
        return found


@contextmanager
def supervised(
    folder: Path,
    *options: str,
    processes: int = 2,
    env: Mapping[str, str] | None = None,
    **members: Any,
) -> Iterator[Supervised]:
    """Runs `poller run --processes` with these members of the configuration until the block ends. It need not be ready yet."""
    port = free_port()
    document = {
        "region": REGION,
        "listen": f"{HOST}:{port}",
        "store": f"sqlite://{folder}/state.db",
        **members,
    }
    config = folder / "poller.yaml"
    config.write_text(yaml.safe_dump(document))
    root = Path(__file__).parents[3]
    variables = plain_environment() | credentials() | {"PYTHONPATH": f"{root}:{folder}"} | dict(env or {})
    command = [sys.executable, "-m", "poller", "run", "--config", str(config)]
    with running("daemon", [*command, "--processes", str(processes), *options], variables, folder) as process:
        yield Supervised(process, port)
