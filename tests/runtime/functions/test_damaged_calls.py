"""Calls that cannot be read: workers do not look for them all the time, and the calls beside them are made in time."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.functions.queued_calls import CallEnd, CallId, CallPlace, QueuedCall
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.records import Epoch
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import now, play, until
from tests.runtime.functions.test_queued_calls import Called, Place, plan, put, ready


class Damaged(MemoryCallQueue):
    """A queue that cannot read some calls: it counts them, and leaves them out of claims and listings."""

    def __init__(self) -> None:
        super().__init__()
        self.damaged: set[CallId] = set()
        self.claims: list[float] = []

    async def claim(self, function: str, *, held: Collection[CallId], **more: Any) -> Sequence[QueuedCall]:
        self.claims.append(now())
        return await super().claim(function, held={*held, *self.damaged}, **more)

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        found = await super().calls(function, calls_max=calls_max, after=after)
        return [each for each in found if each.call not in self.damaged]


def test_a_call_that_cannot_be_read_is_looked_for_once_a_minute_and_holds_up_no_other() -> None:
    queue = Damaged()

    answers: list[Outcome] = [FunctionError("ValueError", "no"), Succeeded(b"1")]
    function = Called(lambda _: answers.pop(0))
    place = Place(function)
    place.store.call_queue = queue

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        broken = QueuedCall(
            call=CallId("broken"),
            function="alone",
            arn="arn",
            payload=b"{}",
            accepted=Epoch(0.0),
            due=Epoch(0.0),
        )
        queue.damaged.add(broken.call)
        await queue.put(broken)
        await asyncio.sleep(10)
        began = now()
        queue.claims.clear()
        await asyncio.sleep(600)
        assert 9 <= len(queue.claims) <= 11
        await put(daemon, n=1)
        await until(lambda: len(function.got) == 1, within_s=1)
        await until(lambda: place.ended() == [CallEnd.SUCCESS], within_s=70)
        first, second = (at for at, _, _ in function.got)
        assert 60.0 <= second - first <= 63.0
        assert now() - began > 600

    play(lambda: place.daemon(plan()), script)
