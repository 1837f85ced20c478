"""Owns what the functions of a daemon have to do with other workers: their shares of rates, and breakers closed by hand."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from msgspec import structs

from poller.domain.records import WorkerId
from poller.ports import Clock
from poller.rules.workers.function_shares import FunctionShares
from poller.rules.workers.worker_report import WorkerReport

type RateShare = Callable[[], float]
"""Returns this worker's present share of a function's rate: 0 to 1."""


class Sharing(Protocol):
    """The workers that share the functions of a store."""

    def function(self, name: str, *, closed: Callable[[], None]) -> AbstractContextManager[RateShare]:
        """Makes the function one that this worker has open, until the block ends; yields its share of the function's rate.

        `closed` is called when the function's breaker was closed by hand at another worker.
        """
        ...

    def announce_closed(self, name: str) -> None:
        """Makes the other workers close the breaker of this function, within two heartbeats."""
        ...


class AloneWithFunctions:
    """A worker without others: it has the whole rate of each function."""

    @contextmanager
    def function(self, name: str, *, closed: Callable[[], None]) -> Iterator[RateShare]:
        """Makes the function one that this worker has open, until the block ends."""
        yield _whole

    def announce_closed(self, name: str) -> None:
        """Does nothing, because there are no others."""


class FunctionGroup:
    """The functions of this worker in its heartbeats. `fresh` says whether its heartbeats are in time; `beat` asks for one soon."""

    def __init__(
        self, worker: WorkerId, *, clock: Clock, fresh: Callable[[], bool], beat: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._fresh = fresh
        self._beat = beat
        self._shares = FunctionShares(worker)
        self._open: dict[str, Callable[[], None]] = {}
        self._last_number = 0

    @contextmanager
    def function(self, name: str, *, closed: Callable[[], None]) -> Iterator[RateShare]:
        """Makes the function one that this worker has open, until the block ends."""
        assert name not in self._open, "a function is open once in a daemon"
        self._open[name] = closed
        self._shares.join(name)
        self._beat()
        try:
            yield lambda: self._shares.share(name) if self._fresh() else 0.0
        finally:
            del self._open[name]
            self._shares.leave(name)

    def announce_closed(self, name: str) -> None:
        """Makes the other workers close the breaker of this function."""
        # A process that starts again under its worker's name must not begin with numbers that others have seen.
        self._last_number = max(self._last_number + 1, int(self._clock.now() * 1000))
        self._shares.announce_closed(name, number=self._last_number, now=self._clock.monotonic())
        self._beat()

    def added_to(self, report: WorkerReport) -> WorkerReport:
        """The report of the next heartbeat with what it says of functions."""
        claims, closed = self._shares.report(self._clock.monotonic())
        return structs.replace(report, functions=claims, closed=closed) if claims or closed else report

    def written(self, report: WorkerReport) -> None:
        """The store has taken the heartbeat with this report."""
        self._shares.written(report.functions)

    def listed(self, others: Mapping[WorkerId, WorkerReport]) -> None:
        """Takes in the reports of the other live workers."""
        seen = self._shares.listed(others)
        for name in seen.closed:
            self._open[name]()
        if seen.beat_soon:
            self._beat()


def _whole() -> float:
    return 1.0
