"""Owns `poller checkpoints`: writes positions down, and puts them into a store, from a file or another consumer's table."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import uvloop

from poller.commands.checkpoint_file import ImportSteps, Kept, read, steps, with_ancestors, written
from poller.commands.shared import FAILED, environment, tell
from poller.config.daemon_plan import daemon_plan
from poller.config.plugin_specs import source_of, store_of
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration, LeaseLost, PortError, ServiceUnavailable
from poller.domain.plan import DaemonPlan, MappingPlan, SourceKind
from poller.domain.records import Epoch, MappingId, Shard, WorkerId
from poller.domain.rows import Lease, MappingRow
from poller.plugins import Environment, Registry, opened
from poller.ports import Store, StreamSource
from poller.rules.workers import liveness, worker_report

LOOK_S = 1.0
NOTHING_WRITTEN = "FILE: holds no checkpoints; give what `poller checkpoints export` has written"
UNKNOWN = (
    "neither the configuration nor the store knows it, so that nothing reads from there; is the UUID right? A mapping of the file "
    "that is to go on there needs it as its UUID"
)


class Foreign(Protocol):
    """Another consumer's checkpoints."""

    async def leases(self, source_arn: str) -> Sequence[Lease]:
        """Shards with their parents and positions, without owners; raises InvalidConfiguration for what cannot be taken over."""
        ...


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What the commands work with."""

    store: Store
    plan: DaemonPlan
    registry: Registry
    env: Environment
    tell: Callable[[str], None]


def export(
    settings: Settings, registry: Registry, *, mapping: str | None, tell_line: Callable[[str], None]
) -> int:
    """Writes the checkpoints of the store's mappings, or of one; returns the exit status."""

    async def work(desk: CommandContext) -> None:
        await _export(desk, mapping)

    return _run(settings, registry, work, tell_line)


def bring(
    settings: Settings, registry: Registry, text: str, *, force: bool, tell_line: Callable[[str], None]
) -> int:
    """Puts what `text` holds into the store; returns the exit status."""

    async def work(desk: CommandContext) -> None:
        given = read(text)
        if not given:
            raise InvalidConfiguration([NOTHING_WRITTEN])
        known = {each.mapping for each in desk.plan.mappings} | {
            row.mapping for row in await desk.store.mappings()
        }
        for found, kept in given.items():
            await bring_one(desk, found, kept, force=force)
            if found not in known:
                desk.tell(f"mapping {found}: {UNKNOWN}")

    return _run(settings, registry, work, tell_line)


def bring_foreign(
    settings: Settings,
    registry: Registry,
    plugin: str,
    given: dict[str, Any],
    *,
    mapping: str | None,
    force: bool,
    tell_line: Callable[[str], None],
) -> int:
    """Takes over another consumer's checkpoints for one stream mapping of the file; returns the exit status."""

    async def work(desk: CommandContext) -> None:
        chosen = _chosen(desk.plan, mapping)
        async with opened(desk.registry, "checkpoints", plugin, given, desk.env) as foreign:
            leases = {each.shard: each for each in await foreign.leases(chosen.source_arn)}
        listed = await _listed(desk, chosen)
        await bring_one(desk, chosen.mapping, Kept(None, with_ancestors(leases, listed)), force=force)

    return _run(settings, registry, work, tell_line)


def _run(
    settings: Settings,
    registry: Registry,
    work: Callable[[CommandContext], Awaitable[None]],
    tell_line: Callable[[str], None],
) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_with_desk(settings, registry, work, tell_line))
    except InvalidConfiguration as error:
        tell(error.problems)
        return FAILED
    except PortError as error:
        tell([error.reason])
        return FAILED
    return 0


async def _with_desk(
    settings: Settings,
    registry: Registry,
    work: Callable[[CommandContext], Awaitable[None]],
    tell_line: Callable[[str], None],
) -> None:
    plan = daemon_plan(settings)
    async with AsyncExitStack() as stack:
        env = environment(settings)
        stack.push_async_callback(env.shared.close)
        store: Store = await stack.enter_async_context(store_of(plan).opened(registry, env))
        await work(CommandContext(store, plan, registry, env, tell_line))


async def _export(desk: CommandContext, mapping: str | None) -> None:
    rows = await desk.store.mappings()
    chosen = [row for row in rows if mapping in (None, row.mapping)]
    if mapping is not None and not chosen:
        known = ", ".join(row.mapping for row in rows) or "none"
        raise InvalidConfiguration([f"--mapping: value {mapping!r}: not in the store, which has {known}"])
    for row in chosen:
        if row.damage:
            raise ServiceUnavailable(row.damage)
        for line in written(row, await desk.store.leases(row.mapping)):
            desk.tell(line)


async def bring_one(desk: CommandContext, mapping: MappingId, kept: Kept, *, force: bool) -> None:
    """Puts one mapping's positions into the store; raises InvalidConfiguration for what must not be set."""
    stored = {lease.shard: lease for lease in await desk.store.leases(mapping)}
    owners = {lease.owner for lease in stored.values() if lease.owner is not None}
    busy = await alive(desk, owners) if owners else frozenset()
    todo = steps(kept.leases, stored, busy=busy, force=force)
    if todo.refused:
        raise InvalidConfiguration([f"mapping {mapping}: {each}" for each in todo.refused])
    await _make_row(desk.store, mapping, kept.fixed or desk.env.clock.now())
    await _carry_out(desk.store, mapping, todo)
    moved, back = len(todo.seed) + len(todo.advance), len(todo.rewind)
    desk.tell(f"mapping {mapping}: {moved} shards set, {back} put back, {todo.same} there already")


async def _make_row(store: Store, mapping: MappingId, fixed: Epoch) -> None:
    """The mapping's row; shards that it does not know yet are such as came later, and begin at the horizon."""
    row = await store.create(MappingRow(mapping, fixed, seeded=True))
    if not row.seeded:
        await store.update(replace(row, seeded=True))


async def _carry_out(store: Store, mapping: MappingId, todo: ImportSteps) -> None:
    """Every write is fenced: a worker that takes a shard meanwhile keeps it, and the import says so."""
    me = WorkerId(f"import-{uuid.uuid4()}")
    await store.seed(mapping, todo.seed)
    lost = []
    for lease, checkpoint in todo.advance:
        try:
            taken = await store.take(mapping, lease, owner=me)
            await store.save(mapping, taken, checkpoint)
            await store.release(mapping, taken)
        except LeaseLost as error:
            lost.append(f"mapping {mapping}: {error.reason}; import again when no worker runs")
    for lease, checkpoint in todo.rewind:
        try:
            await store.drop(mapping, lease)
        except LeaseLost as error:
            lost.append(f"mapping {mapping}: {error.reason}; import again when no worker runs")
            continue
        # The epoch goes on: what a worker of before still sends is refused.
        await store.seed(mapping, [replace(lease, checkpoint=checkpoint, owner=None, epoch=lease.epoch + 1)])
    if lost:
        raise InvalidConfiguration(lost)


async def alive(desk: CommandContext, owners: Collection[WorkerId]) -> frozenset[WorkerId]:
    """Those of `owners` that live: seen to beat, or not seen dead for the lease time. Returns as soon as that is known."""
    clock, lease_s = desk.env.clock, desk.plan.tuning.lease_s
    sightings: liveness.Sightings = {}
    first: dict[WorkerId, int] = {}
    while True:
        asked = clock.monotonic()
        rows = [row for row in await desk.store.workers() if row.worker in owners]
        rows = [row for row in rows if not desk.env.process.gone(worker_report.read(row.facts).process)]
        sightings = liveness.observed(sightings, rows, asked=asked, answered=clock.monotonic())
        for row in rows:
            first.setdefault(row.worker, row.counter)
        beating = frozenset(row.worker for row in rows if row.counter != first[row.worker])
        unknown = sightings.keys() - liveness.dead(sightings, lease_s=lease_s) - beating
        if not unknown:
            return beating
        await asyncio.sleep(min(LOOK_S, desk.plan.tuning.heartbeat_s))


def _chosen(plan: DaemonPlan, mapping: str | None) -> MappingPlan:
    """The only stream mapping of the file, or the one that was named."""
    streams = [each for each in plan.mappings if each.kind is not SourceKind.SQS]
    named = [each for each in streams if mapping in (None, each.mapping)]
    if len(named) != 1:
        known = ", ".join(f"{each.mapping} ({each.source_arn})" for each in streams) or "none"
        raise InvalidConfiguration([f"--mapping: name one of the file's stream mappings: {known}"])
    return named[0]


async def _listed(desk: CommandContext, chosen: MappingPlan) -> Sequence[Shard]:
    async with source_of(chosen).opened(desk.registry, desk.env) as source:
        stream: StreamSource = source
        return await stream.shards()
