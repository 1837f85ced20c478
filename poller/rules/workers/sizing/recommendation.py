"""Owns the recommendation how many workers there should be: what follows from the loads of all live workers.

More are recommended when a worker is busy: one more for each busy one, so twice as many at most, and never more than can have work.
Fewer are recommended when all are calm: a quarter less at most, and not a number that was too few before, unless all have
been calm for a long time. In between the recommendation stays. After each change it waits until there are so many workers and
these have measured themselves. So there is no more than one change up a minute, and one down in ten minutes.

Kubernetes leaves the replicas as they are if the number differs by a tenth or less. So more than a tenth more is recommended where
that many can have work, and a recommendation that Kubernetes may have ignored is not waited for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from poller.domain.records import WorkerId
from poller.domain.sizing.fleet_size import FleetScaling, FleetSize, Pressure, WorkerLoad, WorkerPressure
from poller.domain.wording.numbers_of import number_of

DOWN_PART = 4
"""One of so many workers is given up at a time, and always one."""
IGNORED_PART = 10
"""Kubernetes ignores a change by one of so many workers, or by less: the autoscaler's `tolerance`, which is 0.1 by default."""

type Loads = Mapping[WorkerId, WorkerLoad | None]
"""The loads of all live workers that do not leave, this one included; None if a worker's load is not known."""


def newest(sizes: Iterable[FleetSize | None]) -> FleetSize | None:
    """The recommendation that counts among those that workers know. Of two made at once it is the larger one."""
    found = [each for each in sizes if each is not None]
    return max(found, key=lambda size: (size.change, size.workers, size.too_few), default=None)


def workers_max(loads: Loads) -> int | None:
    """How many workers can have work at the same time; None if there is no such limit, or if it is not known."""
    known = [load for load in loads.values() if load is not None]
    if len(known) < len(loads) or any(load.unbounded for load in known):
        return None
    # Every worker has the same mappings, so each of them tells the same maxima.
    return max(1, sum(load.shards for load in known) + max((load.calls for load in known), default=0))


def decided(size: FleetSize | None, loads: Loads) -> FleetSize:
    """The recommendation after a look at all live workers. Without one so far, it is their present number."""
    workers = len(loads)
    if size is None:
        return FleetSize(change=1, workers=workers)
    wanted = _more(size, loads) or _fewer(size, loads) or size
    return size if wanted == size else replace(wanted, change=size.change + 1)


def _more(size: FleetSize, loads: Loads) -> FleetSize | None:
    workers = len(loads)
    busy = sum(load is not None and _pressure(load, workers) is Pressure.BUSY for load in loads.values())
    if not busy or (workers < size.workers and not _ignored(size, workers)):
        return None
    limit, more = workers_max(loads), max(busy, workers // IGNORED_PART + 1)
    wanted = workers + more if limit is None else max(workers, min(workers + more, limit))
    return replace(size, workers=wanted, too_few=workers if wanted > workers else size.too_few)


def _fewer(size: FleetSize, loads: Loads) -> FleetSize | None:
    workers = len(loads)
    known = [load for load in loads.values() if load is not None]
    if workers == 1 or (workers > size.workers and not _ignored(size, workers)):
        return None
    if len(known) < workers or any(load.workers != workers for load in known):
        return None
    limit = workers_max(loads)
    if limit is not None and limit < workers and _some_idle(known):
        return replace(size, workers=limit)
    pressures = {load.pressure for load in known}
    if not pressures <= {Pressure.CALM, Pressure.LONG_CALM}:
        return None
    wanted = workers - max(1, workers // DOWN_PART)
    if pressures == {Pressure.LONG_CALM}:
        return replace(size, workers=wanted, too_few=0 if wanted <= size.too_few else size.too_few)
    wanted = max(wanted, size.too_few + 1)
    return replace(size, workers=wanted) if wanted < workers else None


def _ignored(size: FleetSize, workers: int) -> bool:
    """Whether an autoscaler may see no difference between the recommendation and the present number of workers."""
    return abs(size.workers - workers) * IGNORED_PART <= workers


def _some_idle(loads: Iterable[WorkerLoad]) -> bool:
    """Whether a worker has been without any shard for so long that it is calm."""
    return any(not load.shards and load.pressure in {Pressure.CALM, Pressure.LONG_CALM} for load in loads)


def _pressure(load: WorkerLoad, workers: int) -> Pressure:
    """The pressure that counts. What was measured with another number of workers says nothing now."""
    known = load.workers == workers and load.pressure in set(Pressure)
    return Pressure(load.pressure) if known else Pressure.STEADY


def scaling_of(size: FleetSize, loads: Loads, *, fresh: bool) -> FleetScaling:
    """The answer to those who ask. `fresh`: the others' loads were read just now."""
    workers = len(loads)
    pressures = tuple(_shown(worker, load, workers) for worker, load in sorted(loads.items()))
    return FleetScaling(
        wanted_workers=size.workers,
        workers=workers,
        workers_max=workers_max(loads),
        complete=fresh and all(each.known for each in pressures),
        reason=_reason(size, pressures),
        pressures=pressures,
    )


def _shown(worker: WorkerId, load: WorkerLoad | None, workers: int) -> WorkerPressure:
    if load is None:
        return WorkerPressure(worker=str(worker), pressure=Pressure.STEADY, shards=0, known=False)
    pressure = _pressure(load, workers)
    return WorkerPressure(
        worker=str(worker),
        pressure=pressure,
        shards=load.shards,
        reason=load.reason if pressure is Pressure.BUSY else "",
        known=load.workers == workers,
    )


def _reason(size: FleetSize, pressures: tuple[WorkerPressure, ...]) -> str:
    workers = len(pressures)
    busy = [each for each in pressures if each.pressure is Pressure.BUSY]
    if busy:
        more = f" and {number_of(len(busy) - 1, 'other')}" if len(busy) > 1 else ""
        return f"{busy[0].worker}{more}: {busy[0].reason}"
    if size.workers > workers:
        return "the workers that were wanted are not there yet"
    if size.workers < workers:
        return "the workers have little to do, or there are more than were wanted"
    return "the workers have the right amount of work"
