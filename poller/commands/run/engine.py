"""Owns what `poller run` needs of its parts: the daemon, the control server, and what changes mappings while they run."""

import random
from collections.abc import Sequence
from typing import Protocol

from poller.config.field_types import Address
from poller.domain.functions.calls import FunctionCaller
from poller.domain.mapping_api import FunctionControl, MappingControl, TagControl
from poller.domain.operations import OperationControl
from poller.domain.peeking.answers import PeekControl
from poller.domain.plan import DaemonPlan
from poller.domain.status import StatusView
from poller.domain.supervision.processes import Processes
from poller.domain.telemetry.history import HistorySource
from poller.domain.telemetry.observers import Observer
from poller.plugins import Environment, Registry
from poller.ports import Exposition
from poller.runtime.reload import Reloadable


class Changing(MappingControl, TagControl, PeekControl, Protocol):
    """Changes mappings while they run, and shows records of their sources."""

    @property
    def functions(self) -> FunctionControl:
        """What operators may do with functions."""
        ...

    @property
    def calls(self) -> FunctionCaller:
        """What calls functions for the Invoke API."""
        ...


class Engine(Reloadable, StatusView, Protocol):
    """The daemon as this command sees it."""

    @property
    def control(self) -> Changing | None:
        """What changes its mappings; None if they cannot be changed."""
        ...

    @property
    def operations(self) -> OperationControl | None:
        """What takes operations on what runs; None if there can be none."""
        ...

    async def run(self) -> None:
        """Returns when everything has drained after `stop`."""
        ...

    @property
    def grace_s(self) -> float:
        """How long running invocations have after `stop`."""
        ...

    def stop(self) -> None:
        """Takes nothing new, finishes, saves, and lets `run` return."""
        ...


class Control(Protocol):
    """The control server."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        ...

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
        observer: Observer | None = None,
        operations: OperationControl | None = None,
        *,
        peeking: PeekControl | None = None,
        functions: FunctionControl | None = None,
        calls: FunctionCaller | None = None,
        history: HistorySource | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Serves until cancelled; raises OSError when it cannot listen."""
        ...


class MakeEngine(Protocol):
    """Builds the daemon; `poller.runtime.daemon.Daemon` is one."""

    def __call__(
        self,
        plan: DaemonPlan,
        *,
        registry: Registry,
        env: Environment,
        observer: Observer,
        rng: random.Random,
    ) -> Engine:
        """An engine that has not started anything."""
        ...
