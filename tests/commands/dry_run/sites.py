"""Owns what tests of dry runs need: sources and a daemon's store behind plug-ins, of which nothing may be called but reads."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from adapters.stores.memory import MemoryStore
from adapters.stores.memory import plugin as memory
from poller.commands.dry_run.choice import choose
from poller.commands.dry_run.command import DryOutput, DryRun, DryRunOptions
from poller.commands.dry_run.positions import StoredPositions, stored_positions
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan, Tuning
from poller.domain.records import MappingId, WorkerId
from poller.domain.rows import Lease, MappingRow
from poller.plugins import Environment, GivenPlugins, Plugin
from tests.runtime.fakes import FakeStream
from tests.runtime.queues.queue_fakes import Service
from tests.virtual import run_virtual, virtual_clock


class Given(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class View:
    """The read-only view of a store."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def mappings(self) -> Sequence[MappingRow]:
        return await self._store.mappings()

    async def leases(self, mapping: MappingId) -> Sequence[Lease]:
        return await self._store.leases(mapping)


@dataclass
class DrySite:
    """What a dry run finds outside. Opening a function, a destination or the store fails the test."""

    sources: dict[str, FakeStream | Service] = field(default_factory=dict)
    store: MemoryStore = field(default_factory=MemoryStore)
    view: object = None
    opening: list[Exception] = field(default_factory=list)
    """What the next openings of a source raise."""
    runs: list[DryRun] = field(default_factory=list)

    def registry(self) -> GivenPlugins:
        forbidden = [("invokers", "fake"), ("destinations", "sqs")]
        return GivenPlugins(
            {
                **{key: Plugin(key[1], Given, _forbidden) for key in forbidden},
                ("stores", "memory"): memory,
                ("stores", "real"): Plugin("real", Given, _forbidden, look=self._look),
                **{
                    ("sources", kind): Plugin(kind, Given, self._open)
                    for kind in ("kinesis", "dynamodb", "sqs")
                },
            }
        )

    @asynccontextmanager
    async def _look(self, settings: Given, env: Environment) -> AsyncIterator[object]:
        yield self.view or View(self.store)

    @asynccontextmanager
    async def _open(self, settings: Given, env: Environment) -> AsyncIterator[Any]:
        if self.opening:
            raise self.opening.pop(0)
        yield self.sources[(settings.model_extra or {})["arn"]]


@asynccontextmanager
async def _forbidden(settings: Given, env: Environment) -> AsyncIterator[Any]:
    yield pytest.fail("a dry run opened a part that has an effect")


@dataclass
class Played:
    """What a dry run printed, its exit status, and how many virtual seconds it took."""

    status: int
    lines: list[str]
    seconds: float

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The documents of one type."""
        return [each for each in self.documents if each["type"] == kind]

    @property
    def calls(self) -> list[tuple[int, str, str]]:
        """Records, first and last identifier of each call."""
        return [(each["records"], each["first"], each["last"]) for each in self.of("call")]


def plan_of(*mappings: MappingPlan) -> DaemonPlan:
    """The plan of a daemon with these mappings, on the site's store."""
    names = {each.function for each in mappings}
    return DaemonPlan(
        worker=WorkerId("daemon"),
        store="real",
        functions={name: FunctionPlan(name=name, invoker="fake") for name in names},
        mappings=mappings,
        tuning=Tuning(),
    )


def play(site: DrySite, *mappings: MappingPlan, as_json: bool = True, **options: Any) -> Played:
    """A dry run of these mappings on virtual time."""
    given = DryRunOptions(as_json=as_json, **options)
    lines: list[str] = []

    async def main() -> tuple[int, float]:
        plan, env, registry = plan_of(*mappings), Environment(clock=virtual_clock()), site.registry()
        dry = choose(plan, given.mappings, receive=given.receive)
        positions = (
            StoredPositions() if given.fresh else await stored_positions(plan, dry.chosen, registry, env)
        )
        run = DryRun(dry, registry, env, given, DryOutput(lines.append, as_json=as_json))
        site.runs.append(run)
        status = await run.run(positions)
        return status, virtual_clock().monotonic()

    status, seconds = run_virtual(main())
    return Played(status, lines, seconds)
