"""Owns `poller checkpoints`: exports positions, and imports them into a store from a file or another consumer's table."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import uvloop

from poller.commands.checkpoint_file import ImportSteps, Kept, mapping_lines, read, steps, with_ancestors
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import environment
from poller.config.daemon_plan import daemon_plan
from poller.config.plugin_specs import source_of, store_of
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration, LeaseLost, PortError
from poller.domain.plan import DaemonPlan, MappingPlan, SourceKind
from poller.domain.records import Epoch, MappingId, Shard, WorkerId
from poller.domain.rows import REPLAY_PREFIX, Lease, MappingRow
from poller.domain.wording.numbers_of import inflected, number_of
from poller.output.progress_line import ProgressLine, ticking
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
        """Shards with their parents and positions, without owners. Raises InvalidConfiguration if a checkpoint cannot be taken over."""
        ...


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What the commands need: the open store, the plan, how to print a line, and how to say how far it is."""

    store: Store
    plan: DaemonPlan
    registry: Registry
    env: Environment
    print_line: Callable[[str], None]
    say: Callable[[str], None] = lambda _: None


def export(
    settings: Settings, registry: Registry, *, mapping: str | None, print_line: Callable[[str], None]
) -> int:
    """Prints the checkpoints of all mappings in the store, or of one. Returns the exit status."""

    async def work(context: CommandContext) -> None:
        await _export(context, mapping)

    return _run(settings, registry, work, print_line)


def import_file(
    settings: Settings, registry: Registry, text: str, *, force: bool, print_line: Callable[[str], None]
) -> int:
    """Imports the checkpoints in `text` into the store; returns the exit status."""

    async def work(context: CommandContext) -> None:
        given = read(text)
        if not given:
            raise InvalidConfiguration([NOTHING_WRITTEN])
        known = {each.mapping for each in context.plan.mappings} | {
            row.mapping for row in await context.store.mappings()
        }
        for number, (found, kept) in enumerate(given.items()):
            context.say(
                f"imported {number_of(number, 'mapping', of=len(given))}, now {found} with {number_of(len(kept.leases), 'shard')}"
            )
            await import_mapping(context, found, kept, force=force)
            if found not in known:
                context.print_line(f"mapping {found}: {UNKNOWN}")

    return _run(settings, registry, work, print_line)


def import_foreign(
    settings: Settings,
    registry: Registry,
    plugin: str,
    given: dict[str, Any],
    *,
    mapping: str | None,
    force: bool,
    print_line: Callable[[str], None],
) -> int:
    """Imports another consumer's checkpoints for one stream mapping of the configuration file; returns the exit status."""

    async def work(context: CommandContext) -> None:
        chosen = _chosen(context.plan, mapping)
        context.say(f"reading checkpoints of {chosen.source_arn}")
        async with opened(context.registry, "checkpoints", plugin, given, context.env) as foreign:
            leases = {each.shard: each for each in await foreign.leases(chosen.source_arn)}
        listed = await _listed(context, chosen)
        await import_mapping(context, chosen.mapping, Kept(None, with_ancestors(leases, listed)), force=force)

    return _run(settings, registry, work, print_line)


def _run(
    settings: Settings,
    registry: Registry,
    work: Callable[[CommandContext], Awaitable[None]],
    print_line: Callable[[str], None],
) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_with_context(settings, registry, work, print_line))
    except InvalidConfiguration as error:
        print_problems(error.problems)
        return FAILED
    except PortError as error:
        print_problems([error.reason])
        return FAILED
    return 0


async def _with_context(
    settings: Settings,
    registry: Registry,
    work: Callable[[CommandContext], Awaitable[None]],
    print_line: Callable[[str], None],
) -> None:
    plan = daemon_plan(settings)
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(ProgressLine())
        stack.enter_context(ticking(progress))
        progress.say(f"opening {plan.store}")
        env = environment(settings)
        stack.push_async_callback(env.shared.close)
        store: Store = await stack.enter_async_context(store_of(plan).opened(registry, env))

        def print_below(line: str) -> None:
            progress.clear()
            print_line(line)

        await work(CommandContext(store, plan, registry, env, print_below, progress.say))


async def _export(context: CommandContext, mapping: str | None) -> None:
    # A replay under way is no mapping that could be imported elsewhere.
    rows = [row for row in await context.store.mappings() if not row.mapping.startswith(REPLAY_PREFIX)]
    chosen = [row for row in rows if mapping in (None, row.mapping)]
    if mapping is not None and not chosen:
        known = ", ".join(row.mapping for row in rows) or "none"
        raise InvalidConfiguration([f"--mapping: value {mapping!r}: not in the store, which has {known}"])
    for number, row in enumerate(chosen):
        context.say(f"exported {number_of(number, 'mapping', of=len(chosen))}")
        if not row.damage:
            for line in mapping_lines(row, await context.store.leases(row.mapping)):
                context.print_line(line)
    if damages := [row.damage for row in chosen if row.damage]:
        # The others are exported all the same, since they may be needed in a hurry.
        raise InvalidConfiguration([f"not exported: {each}" for each in damages])


async def import_mapping(context: CommandContext, mapping: MappingId, kept: Kept, *, force: bool) -> None:
    """Imports one mapping's positions into the store. Raises InvalidConfiguration if a position must not be set."""
    stored = {lease.shard: lease for lease in await context.store.leases(mapping)}
    owners = {lease.owner for lease in stored.values() if lease.owner is not None}
    if owners:
        context.say(
            f"mapping {mapping}: looking which of {number_of(len(owners), 'worker')} {inflected(len(owners), 'is', 'are')} alive"
        )
    busy = await alive(context, owners) if owners else frozenset()
    todo = steps(kept.leases, stored, busy=busy, force=force)
    if todo.refused:
        raise InvalidConfiguration([f"mapping {mapping}: {each}" for each in todo.refused])
    await _make_row(context.store, mapping, kept.fixed or context.env.clock.now())
    await _carry_out(context.store, mapping, todo)
    moved, back = len(todo.seed) + len(todo.advance), len(todo.rewind)
    context.print_line(
        f"mapping {mapping}: {number_of(moved, 'shard')} set, {back} put back, {todo.same} there already"
    )


async def _make_row(store: Store, mapping: MappingId, fixed: Epoch) -> None:
    """Makes the mapping's row. It is marked as seeded, so that shards without a lease count as later ones and begin at the horizon."""
    row = await store.create(MappingRow(mapping, fixed, seeded=True))
    if not row.seeded:
        await store.update(replace(row, seeded=True))


async def _carry_out(store: Store, mapping: MappingId, todo: ImportSteps) -> None:
    """Carries out the steps. Every write is fenced: if a worker takes a shard meanwhile, it keeps the shard, and the import reports it."""
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
        # The epoch is raised, so that late writes of an earlier owner are refused.
        await store.seed(mapping, [replace(lease, checkpoint=checkpoint, owner=None, epoch=lease.epoch + 1)])
    if lost:
        raise InvalidConfiguration(lost)


async def alive(context: CommandContext, owners: Collection[WorkerId]) -> frozenset[WorkerId]:
    """The owners that are alive: their heartbeat moved, or it has not stood still for the lease time. Returns as soon as this is known."""
    clock, lease_s = context.env.clock, context.plan.tuning.lease_s
    sightings: liveness.Sightings = {}
    first: dict[WorkerId, int] = {}
    while True:
        asked = clock.monotonic()
        rows = [row for row in await context.store.workers() if row.worker in owners]
        rows = [row for row in rows if not context.env.process.gone(worker_report.decode(row.facts).process)]
        sightings = liveness.observe(sightings, rows, asked=asked, answered=clock.monotonic())
        for row in rows:
            first.setdefault(row.worker, row.counter)
        beating = frozenset(row.worker for row in rows if row.counter != first[row.worker])
        unknown = sightings.keys() - liveness.dead(sightings, lease_s=lease_s) - beating
        if not unknown:
            return beating
        await asyncio.sleep(min(LOOK_S, context.plan.tuning.heartbeat_s))


def _chosen(plan: DaemonPlan, mapping: str | None) -> MappingPlan:
    """The stream mapping with this id, or the only one of the file."""
    streams = [each for each in plan.mappings if each.kind is not SourceKind.SQS]
    named = [each for each in streams if mapping in (None, each.mapping)]
    if len(named) != 1:
        known = ", ".join(f"{each.mapping} ({each.source_arn})" for each in streams) or "none"
        raise InvalidConfiguration([f"--mapping: name one of the file's stream mappings: {known}"])
    return named[0]


async def _listed(context: CommandContext, chosen: MappingPlan) -> Sequence[Shard]:
    async with source_of(chosen).opened(context.registry, context.env) as source:
        stream: StreamSource = source
        return await stream.shards()
