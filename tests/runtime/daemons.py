"""Owns what tests of whole daemons on virtual time need: sources, functions and a store behind plug-ins, and a script beside."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

from adapters.stores.memory import MemoryStore
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan, Tuning
from poller.domain.policies import Backoff
from poller.domain.records import MappingId, WorkerId
from poller.domain.rows import MappingState
from poller.domain.telemetry.mapping_events import MappingChanged
from poller.plugins import Environment, GivenPlugins, Plugin
from poller.runtime.daemon import Daemon
from tests.runtime.fakes import FakeDestination, FakeFunction, FakeStream, Seen
from tests.runtime.function_fakes import OwnLimit
from tests.runtime.pacers import FakePacer
from tests.runtime.queues.queue_fakes import Handler, Service
from tests.virtual import run_virtual, virtual_clock

ACCOUNT = "eu-west-1:111122223333"
FAILED = f"arn:aws:sqs:{ACCOUNT}:failed"
STEADY = Tuning(port_backoff=Backoff(base_s=0.0, cap_s=0.0))
"""Ports are tried again at once, so that times in tests are the loop's own."""


class AnySettings(BaseModel):
    """Whatever the daemon hands to a plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass
class Site:
    """What a daemon finds outside. `opening` has troubles of the next openings of a part, by ARN, name or URL."""

    sources: dict[str, FakeStream | Service] = field(default_factory=dict)
    functions: dict[str, FakeFunction | Handler | OwnLimit] = field(default_factory=dict)
    destinations: dict[str, FakeDestination] = field(default_factory=dict)
    notices: dict[str, Any] = field(default_factory=dict)
    """Places of notices, by their ARN or URL."""
    store: MemoryStore = field(default_factory=MemoryStore)
    known_functions: set[str] = field(default_factory=set)
    """ARNs of functions that the default invoker says exist."""
    opening: dict[str, list[Exception]] = field(default_factory=dict)
    opening_s: dict[str, float] = field(default_factory=dict)
    """How long the openings of a part take, by ARN, name or URL."""
    open_now: list[str] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    resources: Any = None
    """The next daemon's way to custom resources."""

    def daemon(self, plan: DaemonPlan, *, store: Any = None, seed: int = 7) -> Daemon:
        """A daemon that has not started."""
        makers: dict[tuple[str, str], Callable[[Mapping[str, Any]], tuple[str, Any]]] = {
            ("pacers", "throttle"): lambda _: ("pacer", FakePacer()),
            ("resources", "kubernetes"): partial(_given, self.resources),
            ("stores", "memory"): lambda _: ("memory", store or self.store),
            ("invokers", "fake"): self._function,
            ("invokers", "own"): self._function,
            ("invokers", "lambda"): self._function,
            ("invokers", "asked"): lambda given: (given["function"], Asked(self)),
            ("destinations", "sqs"): lambda given: (given["arn"], self.destinations[given["arn"]]),
            **{
                ("notices", kind): lambda given: (given["place"], self.notices[given["place"]])
                for kind in ("sqs", "s3", "file")
            },
            **{
                ("sources", kind): lambda given: (given["arn"], self.sources[given["arn"]])
                for kind in ("kinesis", "dynamodb", "sqs")
            },
        }
        return Daemon(
            plan,
            registry=GivenPlugins({key: self._plugin(key[1], make) for key, make in makers.items()}),
            env=Environment(clock=virtual_clock()),
            observer=self.seen,
            rng=Random(seed),
        )

    def states(self, mapping: MappingId) -> list[MappingState]:
        """The states that observers were told of one mapping, in order."""
        return [event.state for event in self.seen.of(MappingChanged) if event.mapping == mapping]

    def _function(self, given: Mapping[str, Any]) -> tuple[str, Any]:
        """The fake of one version, `NAME:VERSION`, if the site has one; else the function's."""
        version = f"{given['function']}:{given['function_version']}"
        key = version if version in self.functions else given["function"]
        return key, self.functions[key]

    def _plugin(self, name: str, make: Callable[[Mapping[str, Any]], tuple[str, Any]]) -> Plugin[Any, Any]:
        @asynccontextmanager
        async def opening(settings: AnySettings, _: Environment) -> AsyncIterator[Any]:
            key, port = make(settings.model_extra or {})
            if (takes_s := self.opening_s.get(key)) is not None:
                await asyncio.sleep(takes_s)
            if troubles := self.opening.get(key):
                raise troubles.pop(0)
            self.open_now.append(key)
            try:
                yield port
            finally:
                self.open_now.remove(key)

        return Plugin(name, AnySettings, opening, own_limits=name in ("own", "lambda"))


def _given(port: object, _: Mapping[str, Any]) -> tuple[str, Any]:
    return "resources", port


class Asked(FakeFunction):
    """An invoker that knows which functions exist."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site

    async def exists(self, function_arn: str) -> bool:
        """Whether the site knows the function."""
        return function_arn in self._site.known_functions


def daemon_plan(
    *mappings: MappingPlan,
    functions: Mapping[str, FunctionPlan] | None = None,
    worker: str = "worker-1",
    tuning: Tuning = STEADY,
    **changes: Any,
) -> DaemonPlan:
    """A plan of these mappings; every function is a fake unless given."""
    names = {mapping.function for mapping in mappings} | {"reader"}
    found = {name: FunctionPlan(name=name, invoker="fake") for name in names} | dict(functions or {})
    return replace(
        DaemonPlan(
            worker=WorkerId(worker),
            store="memory",
            functions=found,
            mappings=mappings,
            default_invoker="asked",
            tuning=tuning,
        ),
        **changes,
    )


type Script = Callable[[Daemon], Awaitable[None]]


def play(daemon: Callable[[], Daemon], script: Script, *beside: Callable[[], Daemon]) -> None:
    """Runs daemons on virtual time; when the script with the first of them has ended, all are stopped and drained."""

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            daemons = [make() for make in (daemon, *beside)]
            for each in daemons:
                scope.create_task(each.run(), name="daemon")
            await script(daemons[0])
            for each in daemons:
                each.stop()

    run_virtual(main())


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


async def until(holds: Callable[[], bool], *, within_s: float = 60.0, step_s: float = 0.05) -> float:
    """Waits until something holds; returns how many virtual seconds that took."""
    began = now()
    while not holds():
        assert now() - began < within_s, "did not come true in time"
        await asyncio.sleep(step_s)
    return now() - began
