"""Claims of asynchronous calls whose answers are lost: the calls are made all the same, and not given up for workers that were never there."""

from collections.abc import Sequence
from typing import Any

from adapters.stores.memory import MemoryStore
from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.queued_calls import CallEnd, QueuedCall
from poller.rules.functions.queued_calls import TAKEOVERS_MAX
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import play, until
from tests.runtime.functions.test_queued_calls import Called, Place, plan, put, ready


class Mute(MemoryCallQueue):
    """A queue that carries claims out and does not answer the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = TAKEOVERS_MAX + 3

    async def claim(self, function: str, **more: Any) -> Sequence[QueuedCall]:
        found = await super().claim(function, **more)
        if found and self.silent:
            self.silent -= 1
            raise ServiceUnavailable("no answer")
        return found


def test_a_call_whose_claims_were_not_answered_is_made_and_succeeds() -> None:
    function, store, queue = Called(), MemoryStore(), Mute()
    store.call_queue = queue
    place = Place(function, store)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: bool(place.ended()), within_s=300)
        assert queue.silent == 0
        assert place.ended() == [CallEnd.SUCCESS]
        assert [each for _, each, _ in function.got] == [call]

    play(lambda: place.daemon(plan()), script)
