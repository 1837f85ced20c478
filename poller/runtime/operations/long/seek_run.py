"""Owns a seek: its plan is stored, then all workers hold the shards back, and the worker that has claimed it moves each when it is free.

Whatever happens in between, the next worker goes on with the stored plan. A shard that is moved twice is moved to the same place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from poller.domain.errors import PortError
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.records import SHARD_END, Position, ShardId
from poller.domain.wording.numbers_of import number_of
from poller.rules.operations import lifecycle
from poller.rules.streams.lineage import descendants
from poller.rules.streams.operations.seeking import LATEST, Direction, SeekRefused, ShardMove, goal
from poller.runtime.operations.long.long_run import NOT_RUNNING, LongRun, SeekPlan, SeekStep, noted, waits
from poller.runtime.stopping import unless_stopped

STEP_S = 0.5
"""The interval at which it is looked whether shards are free."""
FOLLOW_S = 2.5
"""The time that all workers have to read of a seek before shards are moved. One that has not could take a shard that was moved."""
LINES_MAX = 50
"""Shards whose moves a dry run lists, and that wait."""
_MOVES = "moves"


def held_back(operations: Sequence[Operation]) -> frozenset[ShardId]:
    """The shards of one mapping that open seeks are about to move."""
    return frozenset(
        move.shard for each in operations if each.request.action is Action.SEEK for move in moves_of(each)
    )


def moves_of(operation: Operation) -> tuple[ShardMove, ...]:
    """The moves of a seek as they were stored; none before its plan was made."""
    found = operation.notes.get(_MOVES)
    if not isinstance(found, Mapping):
        return ()
    return tuple(
        ShardMove(ShardId(shard), Position.decode(before), Position.decode(to))
        for shard, (before, to) in sorted(found.items())
    )


async def seek(run: LongRun) -> PartResult | None:
    """Carries out a seek, and returns what came of it. None: somebody else goes on with it, or it is over."""
    operation = run.current()
    if operation is None:
        return None
    planned = moves_of(operation)
    if not planned:
        await _read(run)
        if (rival := _rival(run, planned=False)) is not None:
            return _refused(rival)
        found = await _plan(run, operation)
        if not isinstance(found, tuple):
            return found
        planned = found
        run.changed()
        if await run.stop.sleep(FOLLOW_S):
            return None
    step = SeekStep({}, {})
    tries = absent = 0
    while not step.done:
        try:
            await run.operations.read()
            mapping = run.mapping()
            if run.stop.requested or (now := run.current()) is None:
                return None
            if "moved" not in now.progress and (rival := _rival(run, planned=True)) is not None:
                return _refused(rival)
            if mapping is not None and mapping.seekable is not None:
                step = await mapping.seekable.step(planned, step.moved, run.stop)
                await _show(
                    run, sum(move.shard in step.moved for move in planned), len(planned), step.waiting
                )
            elif mapping is None:
                absent += 1
                await run.in_vain(absent, NOT_RUNNING)
            tries = 0
        except PortError:
            tries += 1
        if not step.done and await run.stop.sleep(max(STEP_S, run.delay_s(tries) if tries else 0)):
            return None
    return PartResult(
        state=OperationState.DONE,
        result=f"{number_of(len(planned), 'shard')} moved to {operation.request.members['to']}",
    )


async def _read(run: LongRun) -> None:
    """Reads the open operations, as often as it takes until a stop."""
    tries = 0
    while not run.stop.requested:
        try:
            await run.operations.read()
        except PortError:
            tries += 1
            await run.stop.sleep(run.delay_s(tries))
        else:
            return


def _rival(run: LongRun, *, planned: bool) -> OperationId | None:
    """Another open seek of the mapping, because of which this one must not go on; `planned`: with the plan that it has.

    Two workers may each accept a seek at the same moment. A plan tells what is left out only while nobody else moves the shards. So a plan
    is not made while another seek has one or came before, and it is not carried out if another seek has one by then, too. Each
    plan is stored before the others are read, so that at most one of them is carried out.
    """
    operation = run.current()
    if operation is None or operation.request.members.get("dry_run"):
        return None
    for other in (run.operations.known or {}).values():
        if other.mapping != operation.mapping or other.request.action is not Action.SEEK:
            continue
        if other.operation == operation.operation or other.request.members.get("dry_run"):
            continue
        earlier = (other.created, other.operation) < (operation.created, operation.operation)
        if moves_of(other) or (earlier and not planned):
            return other.operation
    return None


def _refused(rival: OperationId) -> PartResult:
    text = f"seek {rival} of this mapping was asked at the same time; look at what it did, then ask again"
    return PartResult(state=OperationState.FAILED, result=text)


async def _plan(run: LongRun, operation: Operation) -> PartResult | tuple[ShardMove, ...] | None:
    """The moves, after they were stored; or the result of a seek that moves nothing."""
    try:
        plan = await _made(run, operation)
    except SeekRefused as refused:
        return PartResult(state=OperationState.FAILED, result=str(refused))
    if plan is None:
        return None
    members = operation.request.members
    plan = _without_idle(plan, members["to"])
    lines = [_line(move, plan.skipping.get(move.shard, "")) for move in plan.moves]
    if members.get("dry_run"):
        await run.change(partial(noted, plan=lines[:LINES_MAX]))
        return PartResult(state=OperationState.DONE, result=f"would move {'; '.join(lines) or 'nothing'}")
    if not plan.moves:
        return PartResult(state=OperationState.DONE, result="there is no shard to move")
    if plan.skipping and not members.get("skip"):
        shard, first = next(iter(plan.skipping.items()))
        text = (
            f'shard {shard} would leave out {first} and all up to there; add "skip": true to leave them out'
        )
        return PartResult(state=OperationState.FAILED, result=text)
    kept = {move.shard: [move.before.encode(), move.to.encode()] for move in plan.moves}
    stored = await run.change(partial(noted, moves=kept))
    return None if stored is None else moves_of(stored)


def _without_idle(plan: SeekPlan, to: str | float) -> SeekPlan:
    """A plan without the shards that are at LATEST anyway. If they come from shards that move, they stand where they are meanwhile.

    The moment of the operation is that of a worker's clock, and records get their time from another one. So a move of a shard with nothing to
    leave out could leave out what arrives meanwhile. A shard that has ended gets nothing any more, and its children need not wait for it again.
    """
    if to != LATEST:
        return plan
    staying = {
        move.shard
        for move in plan.moves
        if move.before == SHARD_END
        or (move.direction is Direction.FORWARD and move.shard not in plan.skipping)
    }
    moving = {move.shard for move in plan.moves} - staying
    below = descendants(plan.parents, moving)
    kept = (move if move.shard in moving else replace(move, to=move.before) for move in plan.moves)
    return replace(plan, moves=tuple(move for move in kept if move.shard in moving | below))


async def _made(run: LongRun, operation: Operation) -> SeekPlan | None:
    """The plan; None if a stop came first. Raises SeekRefused."""
    members, target = operation.request.members, operation.request.target
    to = goal(members["to"], now=operation.created)
    chosen = [ShardId(each) for each in members.get("shards", ())]
    if target.shard is not None:
        chosen.append(target.shard)
    tries = 0
    while run.current() is not None:
        mapping = run.mapping()
        if mapping is not None:
            if mapping.seekable is None:
                raise SeekRefused("a queue has no positions")
            try:
                # It reads, and no more, so that it can be given up at any time.
                plan = await unless_stopped(run.stop, mapping.seekable.plan(to, tuple(dict.fromkeys(chosen))))
                if plan is not None:
                    await waits(run)
                return plan
            except PortError as error:
                tries += 1
                await run.in_vain(tries, f"the stream cannot be read: {error.reason}")
        else:
            tries += 1
            await run.in_vain(tries, NOT_RUNNING)
        if await run.stop.sleep(max(STEP_S, run.delay_s(tries))):
            return None
    return None


async def _show(run: LongRun, moved: int, shards: int, waiting: Mapping[ShardId, str]) -> None:
    """Stores how far it is, and which workers still have shards."""
    lines = [f"shard {shard} is still read by {owner}" for shard, owner in sorted(waiting.items())][
        :LINES_MAX
    ]

    def shown(operation: Operation) -> Operation:
        counted = lifecycle.count(operation, {"shards": shards, "moved": moved})
        return noted(counted, waiting=lines) if operation.notes.get("waiting", []) != lines else counted

    await run.change(shown)


def _line(move: ShardMove, skipped: str) -> str:
    if skipped:
        way = f"forward, leaving out {skipped} and all up to there"
    elif move.direction is Direction.FORWARD:
        # Two positions of different kinds do not tell which way it is. That nothing is left out was looked up.
        way = "leaving out nothing"
    else:
        way = str(move.direction)
    return f"shard {move.shard} {move} ({way})"
