"""How long something must last before a worker says that it is busy or calm."""

from collections.abc import Sequence

from poller.domain.records import Monotonic
from poller.domain.sizing.fleet_size import Pressure
from poller.rules.workers.sizing.meter import (
    CATCHING_UP,
    DOWN_AFTER_S,
    LONG_CALM_S,
    UP_AFTER_S,
    PressureMeter,
)
from poller.rules.workers.sizing.samples import LoadSample

STEP_S = 5.0
LATE = LoadSample(lag_s=100.0, late="one", shards=4)
FULL = LoadSample(full="two", restless=True)
CALM = LoadSample(shards=4)
NEITHER = LoadSample(lag_s=30.0, shards=4)


class Worker:
    """A worker that measures itself every STEP_S."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.meter = PressureMeter()
        self.now = 1000.0

    def lives(self, sample: LoadSample, for_s: float = 0.0) -> Pressure:
        """The pressure after so long with this load."""
        found = Pressure.STEADY
        for _ in range(int(for_s / STEP_S) + 1):
            self.meter = self.meter.observed(sample, workers=self.workers, now=Monotonic(self.now))
            found = self.meter.pressure(Monotonic(self.now))
            self.now += STEP_S
        return found

    def falls(self, lags_s: Sequence[float]) -> list[Pressure]:
        """The pressures with these lags, one after the other."""
        return [self.lives(LoadSample(lag_s=lag_s, late="one", shards=4)) for lag_s in lags_s]


def test_a_worker_that_has_just_come_is_steady_whatever_its_load() -> None:
    for sample in (LATE, FULL, CALM, NEITHER):
        assert Worker().lives(sample) is Pressure.STEADY


def test_a_worker_is_busy_when_it_was_behind_for_a_minute() -> None:
    for sample in (LATE, FULL):
        assert Worker().lives(sample, UP_AFTER_S - STEP_S) is Pressure.STEADY
        assert Worker().lives(sample, UP_AFTER_S) is Pressure.BUSY


def test_a_worker_that_is_no_longer_behind_is_steady_at_once() -> None:
    worker = Worker()
    worker.lives(LATE, UP_AFTER_S)
    assert worker.lives(NEITHER) is Pressure.STEADY


def test_a_short_peak_makes_nobody_busy() -> None:
    worker = Worker()
    for _ in range(20):
        assert worker.lives(LATE, UP_AFTER_S / 2) is Pressure.STEADY
        assert worker.lives(NEITHER) is Pressure.STEADY


def test_a_worker_that_catches_up_is_not_busy() -> None:
    lags_s = [10_000 * CATCHING_UP**step for step in range(40)]
    assert set(Worker().falls(lags_s)) == {Pressure.STEADY}


def test_a_lag_that_grows_or_stays_makes_a_worker_busy() -> None:
    assert Worker().falls([100.0 + step for step in range(13)])[-1] is Pressure.BUSY
    assert Worker().falls([100.0] * 13)[-1] is Pressure.BUSY


def test_a_full_queue_has_no_lag_that_could_shrink() -> None:
    worker = Worker()
    found = [worker.lives(LoadSample(full="two", lag_s=lag_s)) for lag_s in range(1000, 0, -70)]
    assert found[-1] is Pressure.BUSY


def test_a_worker_is_calm_after_ten_minutes_and_long_calm_after_an_hour() -> None:
    worker = Worker()
    assert worker.lives(CALM, DOWN_AFTER_S - STEP_S) is Pressure.STEADY
    assert worker.lives(CALM) is Pressure.CALM
    assert worker.lives(CALM, LONG_CALM_S - DOWN_AFTER_S - 2 * STEP_S) is Pressure.CALM
    assert worker.lives(CALM) is Pressure.LONG_CALM


def test_one_moment_of_work_makes_the_wait_for_calm_begin_again() -> None:
    worker = Worker()
    worker.lives(CALM, DOWN_AFTER_S)
    assert worker.lives(NEITHER) is Pressure.STEADY
    assert worker.lives(CALM, DOWN_AFTER_S - STEP_S) is Pressure.STEADY
    assert worker.lives(CALM) is Pressure.CALM


def test_everything_is_measured_anew_when_workers_come_or_go() -> None:
    for sample, after_s in ((LATE, UP_AFTER_S), (CALM, LONG_CALM_S)):
        worker = Worker()
        worker.lives(sample, after_s)
        worker.workers = 3
        assert worker.lives(sample, UP_AFTER_S - STEP_S) is Pressure.STEADY
        assert worker.meter.workers == 3


def test_the_reason_names_the_mapping_and_stays_the_same() -> None:
    worker = Worker()
    worker.falls([100.0, 130.0, 200.0])
    assert worker.meter.reason == "a shard of mapping one is behind"
    worker.lives(FULL)
    assert worker.meter.reason == "a shard of mapping one is behind"
    worker.lives(CALM)
    assert worker.meter.reason == ""
    worker.lives(FULL)
    assert worker.meter.reason == "queue mapping two has more messages than there is room for"
