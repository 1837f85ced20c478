"""The history of a whole daemon on virtual time: it is fed by what the daemon tells its observers, and nothing else."""

import asyncio
from itertools import pairwise

from poller.domain.policies import Backoff, RetryPolicy
from poller.domain.records import MappingId, WorkerId
from poller.domain.telemetry.history import STEP_S, RecentHistory
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.runtime.daemon import Daemon
from poller.runtime.history import HistoryObserver
from tests.rules.test_history import finish
from tests.runtime.daemons import Site, daemon_plan, play
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, Seen, mapping, poison, records
from tests.virtual import virtual_clock

STREAM = mapping().mapping
SLOW = RetryPolicy(backoff=Backoff(base_s=600.0, cap_s=600.0))


class SeenAndCounted(Seen):
    """An observer that keeps every event, and feeds a history."""

    def __init__(self) -> None:
        super().__init__()
        self.history: HistoryObserver | None = None

    def on(self, event: AnyTelemetryEvent) -> None:
        super().on(event)
        assert self.history is not None
        if self.history.wants(type(event)):
            self.history.on(event)


def place(function: FakeFunction) -> tuple[Site, SeenAndCounted, FakeStream]:
    stream, seen = FakeStream(), SeenAndCounted()
    return Site(sources={STREAM_ARN: stream}, functions={"reader": function}, seen=seen), seen, stream


def counted(site: Site, seen: SeenAndCounted, retry: RetryPolicy = SLOW) -> Daemon:
    seen.history = HistoryObserver(virtual_clock(), WorkerId("worker-1"))
    return site.daemon(daemon_plan(mapping(retry=retry)))


def history(seen: SeenAndCounted, of: MappingId | None = None) -> RecentHistory:
    assert seen.history is not None
    return finish(seen.history.slices(of))


def test_records_are_counted_in_the_step_in_which_they_were_processed() -> None:
    site, seen, stream = place(FakeFunction())

    async def script(_: Daemon) -> None:
        stream.put(*records(1, 2, 3))
        await asyncio.sleep(STEP_S + 1)
        stream.put(*records(*range(4, 34)))
        await asyncio.sleep(2 * STEP_S)
        found = history(seen)
        assert (found.worker, found.step_s, list(found.mappings)) == ("worker-1", STEP_S, [STREAM])
        assert found.mappings[STREAM].records_per_s == (0.2, 2.0, 0.0)
        assert found.mappings[STREAM].failures == (0, 0, 0)
        # All records of the fake stream are from the beginning. Without an invocation the last read says how far it is behind.
        first, second, last = found.mappings[STREAM].lag_ms or ()
        assert (first, last) == (50, 0)
        # A shard that was quiet for so long is read after a tenth of that time.
        assert second is not None
        assert 16_050 <= second <= 16_050 + 1_600
        assert found.now == virtual_clock().now() - 1.0
        assert seen.history is not None
        assert seen.history.point().mappings[STREAM].records_per_s == 0.0

    play(lambda: counted(site, seen), script)


def test_the_lag_of_a_blocked_shard_grows_while_it_waits_for_its_next_try() -> None:
    site, seen, stream = place(FakeFunction(poison(2)))

    async def script(_: Daemon) -> None:
        stream.put(*records(1, 2, 3))
        await asyncio.sleep(4 * STEP_S + 1)
        found = history(seen).mappings[STREAM]
        lags = [each for each in found.lag_ms or () if each is not None]
        grown = [after - before for before, after in pairwise(lags)]
        assert grown == [STEP_S * 1000] * 3
        assert sum(each or 0 for each in found.failures) >= 1

    play(lambda: counted(site, seen), script)


def test_a_daemon_without_events_has_a_history_when_somebody_asks() -> None:
    site, seen, _ = place(FakeFunction())

    async def script(daemon: Daemon) -> None:
        await asyncio.sleep(1)
        daemon.replan(daemon_plan())
        await asyncio.sleep(10 * STEP_S)
        assert seen.history is not None
        assert seen.history.steps() == 10
        assert history(seen).mappings == {}

    play(lambda: counted(site, seen), script)
