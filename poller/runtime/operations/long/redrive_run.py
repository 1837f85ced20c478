"""Owns the run of a redrive: it opens the place of the notices, and stores how far it is."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from poller.domain.errors import AccessDenied, InvalidConfiguration, PortError, ResourceMissing
from poller.domain.operations import Operation, OperationState, PartResult
from poller.domain.wording.numbers_of import number_of
from poller.rules.operations import lifecycle
from poller.rules.operations.redriving import RedriveTally
from poller.runtime.operations.long.long_run import (
    NOT_RUNNING,
    LongOperable,
    LongRun,
    OpenPlace,
    noted,
    waits,
)
from poller.runtime.operations.long.redriving import READ_MAX, TRIES_MAX, NoticeKept, Redrive
from poller.runtime.stopping import Reason

SHOW_S = 1.0
"""How often the counts are stored."""
HOLD_SPARE_S = 60.0
WAIT_S = 1.0
REMEDY = "see that the place exists and that the daemon may read it, then ask again"


async def redrive(run: LongRun) -> PartResult | None:
    """Carries out a redrive, and returns what came of it. None: somebody else goes on with it, or it is over."""
    tries = 0
    while (operation := run.current()) is not None:
        mapping = run.mapping()
        if mapping is not None:
            try:
                found = await _with_mapping(run, operation, mapping)
                if found is not None:
                    return found
            except InvalidConfiguration as error:
                text = f"from: {'; '.join(error.problems)}"
                return PartResult(state=OperationState.FAILED, result=text)
            except NoticeKept as error:
                return PartResult(state=OperationState.FAILED, result=f"a notice stays: {error.reason}")
            except PortError as error:
                text = f"from: the notices cannot be read: {error.reason}; {REMEDY}"
                return PartResult(state=OperationState.FAILED, result=text)
        else:
            tries += 1
            await run.in_vain(tries, NOT_RUNNING)
        if await run.stop.sleep(WAIT_S):
            return None
    return None


async def _with_mapping(run: LongRun, operation: Operation, mapping: LongOperable) -> PartResult | None:
    """Redrives with one run of the mapping. None: a stop came first, of this worker or of the mapping, which may start again."""
    with mapping.use.entered() as ended, run.stop.child() as stop, ended.passing_to(stop):
        return None if stop.requested else await _with_place(replace(run, stop=stop), operation, mapping)


async def _with_place(run: LongRun, operation: Operation, mapping: LongOperable) -> PartResult | None:
    members = operation.request.members
    per_s = members.get("messages_per_s")
    # A notice must stay hidden until it was called.
    hold_s = READ_MAX * mapping.longest_s() + HOLD_SPARE_S
    look = bool(members.get("dry_run"))
    async with AsyncExitStack() as opened:
        place = await _opened(
            run,
            lambda: opened.enter_async_context(
                mapping.opened_place(members["from"], run.opener, hold_s=hold_s, look=look)
            ),
        )
        if place is None:
            return None
        shown = _Shown(run)
        redriving = Redrive(
            place.redrivable,
            place.notices,
            run.stop,
            clock=run.clock,
            wait_s=run.delay_s,
            held=run.held,
            changed=shown.changed,
            waits=partial(waits, run),
            tally=RedriveTally.of(operation.progress),
            hold_s=hold_s,
        )
        limit = members.get("limit")
        if look:
            tally, lines = await redriving.look(limit=limit)
            if run.stop.requested:
                return None
            await run.change(partial(noted, plan=lines))
            stay = f"; {tally.refused} could not be called" if tally.refused else ""
            batches = number_of(tally.settled, "batch", "batches")
            return PartResult(state=OperationState.DONE, result=f"would call {batches}{stay}")
        # A limit is one for the whole operation, also when another worker goes on with it.
        left = None if limit is None else max(0, limit - redriving.tally.settled)
        found = await redriving.run(limit=left, per_s=per_s)
        if found is None:
            # The next run of the mapping counts on from here.
            await run.change_once(partial(lifecycle.count, progress=redriving.tally.progress()))
            return None
        await shown.store(found)
        return found.result()


async def _opened(run: LongRun, opening: Callable[[], Awaitable[OpenPlace]]) -> OpenPlace | None:
    """Opens the place, and tries that a few times. None: a stop came first. Raises InvalidConfiguration and PortError."""
    for tries in range(TRIES_MAX):
        try:
            return await opening()
        except PortError as error:
            if tries + 1 == TRIES_MAX or isinstance(error, AccessDenied | ResourceMissing):
                raise
        if await run.stop.sleep(run.delay_s(tries)):
            return None
    raise AssertionError("the last try returns or raises")


class _Shown:
    """Stores the counts once a second at most while a redrive runs. Stops it when it is not this worker's any more."""

    def __init__(self, run: LongRun) -> None:
        self._run = run
        self._due = run.clock.monotonic() + SHOW_S

    async def changed(self, tally: RedriveTally) -> None:
        """Another notice was read."""
        await waits(self._run)
        if self._run.current() is None:
            self._run.stop.request(Reason.REQUESTED)
        elif self._run.clock.monotonic() >= self._due:
            await self.store(tally)
            self._due = self._run.clock.monotonic() + SHOW_S

    async def store(self, tally: RedriveTally) -> None:
        """Stores the counts."""
        await self._run.change(partial(lifecycle.count, progress=tally.progress()))
