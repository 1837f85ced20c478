"""Owns what a running mapping works with: its plan, its open ports, and the daemon's clock, random numbers and observer."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

from poller.domain.plan import MappingPlan, Tuning
from poller.domain.records import WorkerId
from poller.domain.telemetry.observers import Observer
from poller.loop_turns import LoopTurns
from poller.ports import Clock, Store
from poller.rules.backoff import wait_s
from poller.runtime.invoking import Function
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.workers.membership import Alone, Workers

_UUID_VERSION = 4 << 76 | 2 << 62
"""The bits of version and variant in the text of a random UUID; the next line has all other bits."""
_UUID_RANDOM = (1 << 128) - 1 & ~(15 << 76) & ~(3 << 62)


def _nothing() -> None:
    """Nobody follows operations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingContext:
    """The context of a mapping, as far as it is the same for streams and queues."""

    plan: MappingPlan
    worker: WorkerId
    function: Function
    store: Store
    clock: Clock
    rng: Random
    observer: Observer
    tuning: Tuning
    turns: LoopTurns = field(default_factory=LoopTurns)
    workers: Workers | None = None
    """The workers that share the mapping's work; None if there are no others."""
    operated: bool = False
    """Whether operators' pauses are followed. If so, nothing is called before `apply_pauses` has told the mapping which are in force."""
    memory: MemoryPool = field(default_factory=MemoryPool)
    """The bytes that the daemon may hold."""
    read_pauses: Callable[[], None] = _nothing
    """Asks for a new read of the pauses. The next `apply_pauses` has those of a read that begins after this call."""

    @property
    def workers_or_alone(self) -> Workers:
        """The workers that share the mapping's work, or this worker as the only one."""
        return self.workers or Alone(self.worker)

    @property
    def limit_s(self) -> float:
        """How long one call of the function may take now."""
        return self.function.limit_s(self.plan.function_arn)

    @property
    def longest_s(self) -> float:
        """How long a call that begins now normally takes at most, including the start of the function."""
        return self.function.longest_s(self.plan.function_arn)

    @property
    def role_arn(self) -> str:
        """The function's role: the configured one, else the one of its service; empty if it is not known."""
        facts = None if self.plan.role_arn else self.function.facts(self.plan.function_arn)
        return self.plan.role_arn if facts is None else facts.role_arn

    def new_id(self) -> str:
        """A random UUID, for a request id or the id of a notice."""
        return uuid_text(self.rng.getrandbits(128))

    def port_wait_s(self, tries: int) -> float:
        """Seconds to wait after `tries` failed calls of a port in a row."""
        return wait_s(self.tuning.port_backoff, tries, self.rng)


def uuid_text(bits: int) -> str:
    """The text of a random UUID (version 4) of 128 random bits: as `uuid.UUID` makes it, in a fifth of the time."""
    text = f"{bits & _UUID_RANDOM | _UUID_VERSION:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def common(parts: MappingContext) -> dict[str, Any]:
    """The fields of a context by name, to make the context of a stream or a queue from them."""
    return {each.name: getattr(parts, each.name) for each in fields(MappingContext)}
