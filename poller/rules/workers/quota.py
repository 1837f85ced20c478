"""Owns how workers share the maximum concurrency of one mapping, and keep to it while workers come and go.

Every worker has an equal share (`part`). In its heartbeat it claims what it may have in use: its share, or more while more
still runs. It uses no more than it claimed, and no more than the others' claims leave. It writes its own claim before it
reads the others'. So of two workers that claim at the same moment, at least one sees the other's claim.
"""

from collections.abc import Collection, Mapping

from poller.domain.records import MappingId, WorkerId
from poller.rules.workers.assignment import lot
from poller.rules.workers.worker_report import WorkerReport, short


def part(
    mapping: MappingId, maximum: int, *, worker: WorkerId, others: Mapping[WorkerId, WorkerReport]
) -> int:
    """A worker's share of the maximum. Workers that run the mapping and are not leaving have shares.

    Shares add up to the maximum and differ by one at most.
    """
    name = short(mapping)
    staying = {each for each, facts in others.items() if name in facts.on and not facts.leaving}
    ranked = sorted({worker, *staying}, key=lambda each: lot(mapping, each))
    even, left = divmod(maximum, len(ranked))
    return even + 1 if ranked.index(worker) < left else even


def claim(part: int, used: int) -> int:
    """What a worker claims that has `used` in use."""
    return max(part, used)


def claimed(mapping: MappingId, maximum: int, others: Mapping[WorkerId, WorkerReport]) -> int:
    """What the others claim together. A worker that reports no claim (an older version) is assumed to use an equal share."""
    name = short(mapping)
    running: Collection[WorkerId] = [each for each, facts in others.items() if name in facts.on]
    return sum(others[each].claims.get(name, -(-maximum // (len(running) + 1))) for each in running)


def allowed(maximum: int, *, part: int, mine: int, others: int) -> int:
    """What a worker may have in use that claimed `mine`, while the others together claim `others`."""
    return max(0, min(part, mine, maximum - others))
