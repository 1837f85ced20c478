"""Owns one gathered batch: invoked in one or more events, kept while the function refuses, settled message by message."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from poller.invocations import Invocation
from poller.records import Epoch
from poller.rules import responses
from poller.rules.backoff import wait_s
from poller.rules.gathering import Letter, LettersEvent
from poller.rules.groups import Choice, choose, with_followers
from poller.rules.responses import Accepted, Deferred, Partial, Reading, Rejected, Verdict
from poller.runtime.lane import described
from poller.runtime.queue_capacity import Reservation
from poller.runtime.queue_deleter import Deleter, Parcel
from poller.runtime.queue_scope import QueueScope
from poller.runtime.stopping import interrupted_by
from poller.telemetry import InvocationFinished, InvocationStarted, Retrying

CHUNKS_AT_ONCE_MAX = 10
"""Events of one receive that run at the same time, where batches hold one group each."""


@dataclass(slots=True)
class Progress:
    """What a poller is doing, for people."""

    state: str = "idle"
    letters: tuple[Letter, ...] = ()
    attempts: int = 0
    blocked_since: Epoch | None = None
    next_try: Epoch | None = None
    error: str = ""


class BatchRun:
    """The letters of one owner, until each is deleted, left or given back."""

    def __init__(
        self,
        scope: QueueScope,
        deleter: Deleter,
        owner: int,
        letters: Sequence[Letter],
        progress: Progress,
    ) -> None:
        self._scope = scope
        self._deleter = deleter
        self._owner = owner
        self._letters = list(letters)
        self._progress = progress
        self._begun = False
        self._plan = scope.parts.plan
        self._one_group = self._plan.fifo and self._plan.queue.one_group_per_batch
        self._reading = Reading(report_failures=self._plan.retry.report_failures, ignore_empty_items=True)

    async def run(self, reservation: Reservation) -> None:
        """Runs all of it in the reserved slot; groups apart run side by side where more slots are free."""
        extra = await self._more_room()
        if not extra:
            await self._work(reservation, stays=True)
            return
        async with asyncio.TaskGroup() as workers:
            workers.create_task(self._work(reservation, stays=True), name="first group")
            for each in extra:
                workers.create_task(self._work(each, stays=False), name="another group")

    async def _more_room(self) -> list[Reservation]:
        if not self._one_group:
            return []
        groups = len({letter.group for letter in self._letters})
        granted: list[Reservation] = []
        while len(granted) < min(groups, CHUNKS_AT_ONCE_MAX) - 1:
            more = await self._scope.capacity.reserve_now(extra=True)
            if more is None:
                break
            granted.append(more)
        return granted

    async def _work(self, reservation: Reservation, *, stays: bool) -> None:
        """Runs one event after the other. `stays`: waits for groups that are not ready yet."""
        try:
            while chunk := await self._next(stays=stays):
                await self._through(chunk)
        finally:
            reservation.free()

    async def _next(self, *, stays: bool) -> Sequence[Letter]:
        while self._letters:
            if self._given_up():
                letters, self._letters = self._letters, []
                await self._scope.release(self._owner, letters, started=False)
                break
            choice = self._choose()
            self._letters = list(choice.rest)
            if choice.spoiled:
                await self._scope.release(self._owner, choice.spoiled, started=False)
            if choice.chunk:
                return choice.chunk
            if not stays:
                break
            if self._letters:
                await self._settlement()
        return ()

    def _choose(self) -> Choice:
        """Takes the next event; nothing waits between the choice and its start."""
        scope, owner = self._scope, self._owner
        choice = choose(
            scope.drop_lapsed(owner, self._letters, started=False),
            lambda group: scope.standing(owner, group),
            self._plan.batch,
            one_group=self._one_group,
        )
        scope.start(owner, choice.chunk)
        self._begun = self._begun or bool(choice.chunk)
        return choice

    def _given_up(self) -> bool:
        """After a stop, only the first event still begins, and only if it may be expected to end within the grace."""
        parts = self._scope.parts
        late = self._begun or parts.function.plan.timeout_s > parts.tuning.grace_s
        return self._scope.stop.requested and late

    async def _settlement(self) -> None:
        self._progress.state = "waiting"
        moving = self._scope.moving()
        async with interrupted_by(self._scope.stop):
            await moving.wait()
        if self._scope.stop.requested:
            letters, self._letters = self._letters, []
            await self._scope.release(self._owner, letters, started=False)

    async def _through(self, chunk: Sequence[Letter]) -> None:
        """Invokes until the function was really called, as long as the messages are ours."""
        request_id = self._scope.parts.new_id()
        tries = 0
        verdict = await self._invoke(chunk, request_id, attempt=1)
        if isinstance(verdict, Deferred):
            with self._scope.capacity.refused():
                while isinstance(verdict, Deferred):
                    kept = await self._keep(chunk, verdict, tries)
                    if not kept:
                        return
                    if len(kept) < len(chunk):
                        chunk, request_id = kept, self._scope.parts.new_id()
                    tries += 1
                    verdict = await self._invoke(chunk, request_id, attempt=tries + 1)
        self._settle(chunk, verdict)

    async def _keep(self, chunk: Sequence[Letter], verdict: Deferred, tries: int) -> Sequence[Letter]:
        """Waits for the next try; returns the letters that are still ours."""
        scope = self._scope
        scope.tally.refused += 1
        delay_s = max(wait_s(self._plan.queue.backoff, tries, scope.parts.rng), verdict.retry_after_s or 0.0)
        self._tell_retrying(verdict, tries, delay_s)
        if await scope.stop.sleep(delay_s):
            await scope.release(self._owner, chunk, started=True)
            return ()
        kept = scope.drop_lapsed(self._owner, chunk, started=True)
        spoiled = [letter for letter in kept if scope.groups.spoiled(self._owner, letter.group)]
        if spoiled:
            await scope.release(self._owner, spoiled, started=True)
        return [letter for letter in kept if letter not in spoiled]

    async def _invoke(self, chunk: Sequence[Letter], request_id: str, *, attempt: int) -> Verdict:
        parts = self._scope.parts
        self._progress.state, self._progress.letters = "invoking", tuple(chunk)
        event = LettersEvent(chunk)
        started = self._scope.now
        if event.size > self._plan.batch.payload_bytes_max:
            verdict: Verdict = responses.oversized(event.size, self._plan.batch.payload_bytes_max)
        else:
            parts.observer.on(
                InvocationStarted(
                    mapping=self._plan.mapping,
                    function=self._plan.function,
                    records=len(chunk),
                    request_id=request_id,
                    attempt=attempt,
                )
            )
            outcome = await parts.function.call(
                Invocation(
                    function_arn=self._plan.function_arn,
                    request_id=request_id,
                    event=event,
                    timeout_s=parts.function.plan.timeout_s,
                )
            )
            verdict = responses.parse(outcome, [letter.message_id for letter in chunk], self._reading)
        verdict = self._widened(verdict, chunk)
        self._tell_finished(chunk, verdict, request_id, self._scope.now - started)
        return verdict

    def _widened(self, verdict: Verdict, chunk: Sequence[Letter]) -> Verdict:
        """A report, with the later messages of failed groups where the mapping says so."""
        if not isinstance(verdict, Partial) or not self._plan.queue.group_aware_failures:
            return verdict
        failed = with_followers([letter.group for letter in chunk], verdict.failed)
        return Partial(failed, verdict.response, verdict.state)

    def _settle(self, chunk: Sequence[Letter], verdict: Verdict) -> None:
        match verdict:
            case Accepted():
                self._done(chunk)
            case Partial(failed):
                self._failed([chunk[place] for place in sorted(failed)], "the function reported it")
                self._done([letter for place, letter in enumerate(chunk) if place not in failed])
            case Rejected(error=error):
                self._failed(chunk, error)
            case Deferred():
                raise AssertionError("a batch settled that was never run")
            case _:
                assert_never(verdict)
        self._progress.letters, self._progress.blocked_since = (), None
        self._progress.attempts, self._progress.error = 0, ""

    def _done(self, letters: Sequence[Letter]) -> None:
        self._scope.tally.done += 1
        self._scope.troubles.done([letter.message for letter in letters])
        self._deleter.add([Parcel(letter.message, self._owner) for letter in letters])

    def _failed(self, letters: Sequence[Letter], error: str) -> None:
        self._scope.tally.failed += 1
        self._scope.fail(self._owner, letters, error)

    def _tell_retrying(self, verdict: Deferred, tries: int, delay_s: float) -> None:
        now = self._scope.parts.clock.now()
        progress = self._progress
        progress.state, progress.attempts, progress.error = "waiting", tries + 1, verdict.error
        progress.blocked_since = progress.blocked_since or now
        progress.next_try = Epoch(now + delay_s)
        self._scope.parts.observer.on(
            Retrying(mapping=self._plan.mapping, shard=None, attempt=tries + 1, wait_s=delay_s, free=True)
        )

    def _tell_finished(
        self, chunk: Sequence[Letter], verdict: Verdict, request_id: str, duration_s: float
    ) -> None:
        ended, failed, error = described(verdict, len(chunk))
        self._scope.parts.observer.on(
            InvocationFinished(
                mapping=self._plan.mapping,
                function=self._plan.function,
                shard=None,
                records=len(chunk),
                failed=failed,
                ended=ended,
                duration_s=duration_s,
                request_id=request_id,
                error=error,
            )
        )
