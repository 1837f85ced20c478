"""Owns the view of the circuit breakers of all workers: each worker has one of its own for each function, and writes it into its digest."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from poller.domain.status import FunctionStatus, WorkerBreaker, WorkerState
from poller.rules.workers.fleet_view import Fleet


def functions_of_all(
    own: Iterable[FunctionStatus], fleet: Fleet, *, only: str = ""
) -> tuple[FunctionStatus, ...]:
    """The functions by name, each with its breakers at all workers, or at the worker `only`. Dead workers have none any more."""
    found = {each.function: each for each in own if only in {"", fleet.me}}
    breakers: dict[str, list[WorkerBreaker]] = defaultdict(list)
    for each in found.values():
        if each.breaker is not None:
            breakers[each.function].append(WorkerBreaker(worker=str(fleet.me), breaker=each.breaker))
    for worker, heard in fleet.others.items():
        if heard.digest is None or heard.state is WorkerState.DEAD or only not in {"", worker}:
            continue
        for there in heard.digest.breakers:
            breakers[there.function].append(
                WorkerBreaker(
                    worker=str(worker),
                    breaker=there.breaker,
                    age_s=heard.age_s,
                    out_of_date=heard.age_s > fleet.fresh_s,
                )
            )
    return tuple(
        replace(
            found.get(name, FunctionStatus(function=name)),
            breakers=tuple(sorted(breakers.get(name, ()), key=lambda each: each.worker)),
        )
        for name in sorted(found.keys() | breakers.keys())
    )
