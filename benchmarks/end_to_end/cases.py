"""Owns the cases: a source, an invoker and a batch size, and what the daemon's cost is to be beside the bare loop's."""

import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.subjects import STREAMS, mapping

INVOKERS = ("python", "processes", "process", "http", "lambda")
"""A function inside the daemon, child processes of `isolation: process`, awslambdaric, a server on loopback, and Invoke."""
CHILDREN = ("processes", "process")
"""Invokers whose functions are processes of the daemon."""
SIZES = (1, 10, 100)
FIFO_SIZE_MAX = 10
SHARDS = 32
"""A shard is read at most 4.4 times a second, so these have room for 140,000 records a second."""
POLLERS = 10
PROCESSES = 8
TO_BARE = 0.7
TO_RUNTIME = 1 / 1.3
"""The aim for `process`: at most 1.3 times what awslambdaric costs behind a driver that does no more than it must."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured."""

    kind: str
    invoker: str
    size: int

    @property
    def name(self) -> str:
        """As `--case` takes it."""
        return f"{self.kind}/{self.invoker}/{self.size}"

    @property
    def target(self) -> float | None:
        """The bare loop's cost divided by the daemon's is to be at least this. Inside the process the bare loop calls a function and no more."""
        if self.invoker == "python":
            return None
        return TO_RUNTIME if self.invoker == "process" else TO_BARE

    @property
    def workers(self) -> int:
        """How many loops of the bare process run at once."""
        return SHARDS if self.kind in STREAMS else POLLERS

    def mapping(self) -> dict[str, object]:
        """The daemon's mapping. A queue's batch of more than one receive needs a window."""
        wide = self.kind == "sqs" and self.size > FIFO_SIZE_MAX
        window: dict[str, object] = {"MaximumBatchingWindowInSeconds": 1} if wide else {}
        return mapping(self.kind) | {"BatchSize": self.size} | window


CASES = tuple(
    Case(kind, invoker, size)
    for kind in ("kinesis", "sqs", "fifo")
    for invoker in INVOKERS
    for size in SIZES
    if kind != "fifo" or size <= FIFO_SIZE_MAX
)


def chosen(patterns: list[str]) -> list[Case]:
    """The cases whose name matches one of these patterns, such as `sqs/http/*`; all without patterns."""
    return [each for each in CASES if not patterns or any(fnmatchcase(each.name, one) for one in patterns)]


def function(invoker: str, url: str, *, timed: bool) -> dict[str, object]:
    """The settings of the daemon's function; `url` is that of the server behind `http`."""
    word = "timed" if timed else "nothing"
    at_once = f"benchmarks.function.{word}_at_once"
    match invoker:
        case "python":
            return {"invoker": "python", "handler": f"benchmarks.function:{word}"}
        case "processes":
            return {
                "invoker": "python",
                "handler": at_once,
                "isolation": "process",
                "processes": PROCESSES,
            }
        case "process":
            return {
                "invoker": "process",
                "command": [sys.executable, "-m", "awslambdaric", at_once],
                "processes": PROCESSES,
            }
        case "http":
            return {"invoker": "http", "url": url}
        case _:
            return {"invoker": "lambda"}
