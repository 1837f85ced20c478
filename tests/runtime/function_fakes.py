"""Owns a function on a service of its own, as Lambda is: it has a time limit, and a run goes on when nobody waits for it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from poller.domain.errors import PortError
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import Invocation, Outcome, Succeeded, TimedOut
from tests.virtual import virtual_clock


@dataclass(frozen=True, slots=True)
class Run:
    """One run: when it began, when it ends or ended."""

    began: float
    ends: float


@dataclass
class OwnLimit:
    """An invoker of one function that takes `takes_s`, and that its service ends after `facts.timeout_s`.

    `trouble` is what looks at the function raise, whenever it is set.
    """

    facts: FunctionFacts = FunctionFacts(timeout_s=60.0)
    takes_s: float = 0.0
    trouble: PortError | None = None
    answer: Callable[[], Outcome] = lambda: Succeeded(b"")
    runs: list[Run] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    looks: list[tuple[float, str]] = field(default_factory=list)
    given_up: list[float] = field(default_factory=list)
    """When the caller gave a call up that still ran."""

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        self.looks.append((_now(), function_arn))
        if self.trouble is not None:
            raise self.trouble
        return self.facts

    async def invoke(self, invocation: Invocation) -> Outcome:
        assert invocation.open_ended, "the caller knows when it ends"
        began, limit_s = _now(), self.facts.timeout_s
        self.payloads.append(invocation.payload)
        self.runs.append(Run(began, began + min(self.takes_s, limit_s)))
        try:
            await asyncio.sleep(self.runs[-1].ends - began)
        except asyncio.CancelledError:
            self.given_up.append(_now())
            raise
        return TimedOut(invocation.timeout_s) if self.takes_s >= limit_s else self.answer()

    @property
    def overlapping(self) -> bool:
        """Whether one run began while another went on."""
        return any(late.began < early.ends for early, late in zip(self.runs, self.runs[1:], strict=False))


def _now() -> float:
    return virtual_clock().monotonic()
