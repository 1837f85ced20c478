"""Owns `poller dry-run`: it runs the engine with substitutes until everything is read, a limit is reached, or a signal comes."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvloop

from poller.commands.dry_run.choice import DryPlan, choose
from poller.commands.dry_run.ending import SETTLE_S, DryEnd, mapping_finished
from poller.commands.dry_run.lines import EVENT, DryLines, DryResult
from poller.commands.dry_run.positions import StoredPositions, StoreUnread, stored_positions
from poller.commands.dry_run.recorder import UNREACHED, DryNote, Recorder, SourceKey, SourceTally
from poller.commands.dry_run.substitutes import DryRunPlugins
from poller.commands.fitting import print_folded
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.run.early_signals import SIGNALS
from poller.commands.run.report import leaves, problems_of
from poller.commands.shared import environment, nothing_runs
from poller.config.daemon_plan import daemon_plan
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import MappingId, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus
from poller.output.progress_line import ProgressLine, ticking
from poller.plugins import Environment, Registry
from poller.runtime.daemon import Daemon
from poller.runtime.stopping import wait_until

INCOMPLETE = 1
"""Exit status when something could not be read."""
TICK_S = 0.1
END_S_MAX = 10.0
"""How long the engine may take to stop. After that it is cancelled."""
BEGINNING = "dry run: nothing is invoked, written, deleted or sent, and no function is imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunOptions:
    """What the command line asks for. `fresh`: the store is not read. `calls_max` and `seconds_max` end the run."""

    mappings: Sequence[str] = ()
    receive: bool = False
    fresh: bool = False
    calls_max: int = 1000
    seconds_max: float = 60.0
    events: bool = False
    as_json: bool = False


def dry_run(
    settings: Settings,
    registry: Registry,
    options: DryRunOptions,
    *,
    place: str,
    print_line: Callable[[str], None],
    doubts: Sequence[str] = (),
) -> int:
    """Runs and prints; returns the exit status. Problems of settings are printed with their `place`; `doubts` are warnings."""
    warnings = [*doubts, *(f"{place}: {each}" for each in nothing_runs(settings, calls=False))]
    output = DryOutput(print_line, as_json=options.as_json)
    try:
        dry = choose(daemon_plan(settings), options.mappings, receive=options.receive)
    except InvalidConfiguration as error:
        return output.refuse(error.problems)
    output.begin([*warnings, *dry.notes])
    if not dry.chosen:
        output.end(DryLines(()), DryResult(DryEnd.CAUGHT_UP, 0.0, {}, ok=True))
        return 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_with_environment(settings, registry, dry, options, output))
    except StoreUnread as unread:
        output.problem(unread.reason)
        return INCOMPLETE
    except InvalidConfiguration as error:
        return output.refuse(problems_of(error, place=place))
    except BaseExceptionGroup as group:
        for each in leaves(group):
            if isinstance(each, OSError):
                # The output cannot be written.
                raise each from None
        problems = problems_of(group, place=place)
        if not problems:
            raise
        return output.refuse(problems)


class DryOutput:
    """Prints what a dry run says: as JSON all of it on lines of standard output, for people warnings and problems on stderr."""

    def __init__(self, print_line: Callable[[str], None], *, as_json: bool) -> None:
        self._print = print_line
        self.as_json = as_json
        self.progress = ProgressLine(quiet=as_json)

    def print_line(self, line: str) -> None:
        """Prints one line, in the place of the line of progress."""
        self.progress.clear()
        if self.as_json or line.startswith(EVENT):
            self._print(line)
        else:
            print_folded(line, self._print)

    def begin(self, warnings: Sequence[str]) -> None:
        """Says what this is, and what was left out."""
        if not self.as_json:
            self.print_line(BEGINNING)
        self.warn(warnings)

    def warn(self, warnings: Sequence[str]) -> None:
        """Prints warnings."""
        if self.as_json:
            for each in warnings:
                self.print_line(json.dumps({"type": "note", "text": each}))
        elif warnings:
            self.progress.clear()
            print_problems(f"warning: {each}" for each in warnings)

    def problem(self, text: str) -> None:
        """Prints why something could not be read."""
        if self.as_json:
            self.print_line(json.dumps({"type": "problem", "text": text}))
        else:
            self.progress.clear()
            print_problems([text])

    def refuse(self, problems: Sequence[str]) -> int:
        """Prints what is wrong with the configuration; returns the exit status."""
        for each in problems:
            self.problem(each)
        return FAILED

    def end(self, lines: DryLines, result: DryResult) -> None:
        """Prints how it ended."""
        shown = [lines.summary_document(result)] if self.as_json else lines.summary(result)
        for line in shown:
            self.print_line(line)

    def items(self, recorder: Recorder, lines: DryLines) -> None:
        """Prints what was recorded since the last time."""
        items, recorder.items = recorder.items, []
        for item in items:
            if self.as_json:
                self.print_line(lines.document(item))
            elif isinstance(item, DryNote):
                self.progress.clear()
                print_problems([lines.noted(item) if item.problem else f"warning: {lines.noted(item)}"])
            else:
                for line in lines.of(item):
                    self.print_line(line)


async def _with_environment(
    settings: Settings, registry: Registry, dry: DryPlan, options: DryRunOptions, output: DryOutput
) -> int:
    env = environment(settings)
    plan = daemon_plan(settings)
    try:
        output.progress.say("reading where the daemon stands")
        positions = (
            StoredPositions() if options.fresh else await stored_positions(plan, dry.chosen, registry, env)
        )
        run = DryRun(dry, registry, env, options, output)
        with _signals(run.interrupt), output.progress, ticking(output.progress):
            return await run.run(positions)
    finally:
        output.progress.clear()
        await env.shared.close()


@dataclass(slots=True)
class DryRun:
    """One dry run on the present event loop."""

    dry: DryPlan
    registry: Registry
    env: Environment
    options: DryRunOptions
    output: DryOutput
    recorder: Recorder = field(init=False)
    _interrupted: bool = False
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        options = self.options
        self.recorder = Recorder(self.env.clock, options.calls_max, payloads=options.events)

    def interrupt(self) -> None:
        """Ends the run. A second call cancels what still runs."""
        if self._interrupted and self._task is not None:
            self._task.cancel()
        self._interrupted = True
        self.recorder.woken.set()

    async def run(self, positions: StoredPositions) -> int:
        """Runs the engine on `positions`, and prints. Returns the exit status. Raises what the engine raises, in a group."""
        plugins = DryRunPlugins(self.registry, self.recorder, positions)
        daemon = Daemon(
            self.dry.plan, registry=plugins, env=self.env, observer=self.recorder, rng=random.Random()
        )
        lines, clock = DryLines(self.dry.chosen), self.env.clock
        began = clock.monotonic()
        async with asyncio.TaskGroup() as group:
            self._task = group.create_task(daemon.run(), name="engine")
            end = await self._until_over(daemon, lines)
            seconds, status = clock.monotonic() - began, daemon.status()
            daemon.stop()
            _, late = await asyncio.wait([self._task], timeout=END_S_MAX)
            for each in late:
                each.cancel()
        for note in notes_at_end(self.dry.chosen, self.recorder.tallies, status, end):
            self.recorder.add(note)
        self.output.items(self.recorder, lines)
        ok = not self.recorder.problems
        self.output.end(lines, DryResult(end, seconds, self.recorder.tallies, ok))
        return 0 if ok else INCOMPLETE

    async def _until_over(self, daemon: Daemon, lines: DryLines) -> DryEnd:
        """Prints what is recorded until the run is over. Returns why it is."""
        clock, recorder = self.env.clock, self.recorder
        deadline = clock.monotonic() + self.options.seconds_max
        looked, finished_since = clock.monotonic(), None
        while True:
            recorder.woken.clear()
            self.output.items(recorder, lines)
            self.output.progress.say(lines.so_far(recorder.tallies))
            now = clock.monotonic()
            if self._interrupted:
                return DryEnd.SIGNAL
            if self._task is None or self._task.done():
                raise AssertionError("the engine ended before it was asked to")
            if recorder.full:
                return DryEnd.LIMIT
            if now >= deadline:
                return DryEnd.TIME
            if now - looked >= TICK_S:
                looked = now
                finished = all_finished(self.dry.chosen, recorder.tallies, daemon.status(), now)
                finished_since = (finished_since or now) if finished else None
                if finished_since is not None and now - finished_since >= SETTLE_S:
                    return DryEnd.CAUGHT_UP
            await wait_until(recorder.woken, min(TICK_S, deadline - now))


def all_finished(
    chosen: Sequence[MappingPlan],
    tallies: Mapping[SourceKey, SourceTally],
    status: DaemonStatus,
    now: Monotonic,
) -> bool:
    """Whether no mapping has to be waited for."""
    shown = {each.mapping: each for each in status.mappings}
    unopened = _unopened(status)
    found: dict[MappingId, dict[ShardId | None, SourceTally]] = {each.mapping: {} for each in chosen}
    for (mapping, shard), tally in tallies.items():
        found[mapping][shard] = tally
    return all(
        each.mapping in shown
        and mapping_finished(
            shown[each.mapping],
            found[each.mapping],
            queue=each.kind is SourceKind.SQS,
            opened=each.mapping not in unopened,
            window_s=each.batch.window_s,
            now=now,
        )
        for each in chosen
    )


def notes_at_end(
    chosen: Sequence[MappingPlan],
    tallies: Mapping[SourceKey, SourceTally],
    status: DaemonStatus,
    end: DryEnd,
) -> Iterator[DryNote]:
    """The shards, queues and mappings that could not be read, and why."""
    named: set[MappingId] = set()
    for (mapping, shard), tally in tallies.items():
        if tally.problem:
            named.add(mapping)
            yield DryNote(tally.problem, mapping, shard, problem=True)
    for each in status.mappings:
        if each.state is MappingState.BROKEN:
            named.add(each.mapping)
            yield DryNote(f"the engine failed: {each.reason}", each.mapping, problem=True)
    if end is DryEnd.TIME:
        late, unopened = f"it did not answer in time; {UNREACHED}", _unopened(status)
        for plan in chosen:
            if plan.mapping in unopened - named:
                yield DryNote(late, plan.mapping, problem=True)
        for (mapping, shard), tally in tallies.items():
            if shard is not None and not tally.answered and not tally.problem:
                yield DryNote(late, mapping, shard, problem=True)


def _unopened(status: DaemonStatus) -> frozenset[str]:
    """The mappings whose sources have not answered yet. The daemon has a problem `mapping ID ...` for each."""
    words = (problem.split(maxsplit=2) for problem in status.problems if problem.startswith("mapping "))
    return frozenset(each[1].rstrip(":") for each in words)


@contextmanager
def _signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Calls `interrupt` on the loop at each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, interrupt)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
