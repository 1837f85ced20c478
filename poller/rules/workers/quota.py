"""Owns how workers share the maximum concurrency of one mapping, and keep to it while workers come and go.

Every worker has an equal share of the maximum. In its heartbeat it makes a quota claim: how much it may have in use. It claims its
share, or more as long as more is still in use. It uses no more than it claimed, and no more than the others' claims leave. It
writes its own claim before it reads the others'. So of two workers that claim at the same moment, at least one sees the other's
claim.
"""

from collections.abc import Collection, Mapping

from poller.domain.records import MappingId, WorkerId
from poller.rules.workers.assignment import tie_break
from poller.rules.workers.worker_report import WorkerReport, short


def share(
    mapping: MappingId, maximum: int, *, worker: WorkerId, others: Mapping[WorkerId, WorkerReport]
) -> int:
    """A worker's share of the maximum. Workers that run the mapping and are not leaving have shares.

    Shares add up to the maximum and differ by one at most.
    """
    name = short(mapping)
    staying = {each for each, report in others.items() if name in report.running and not report.leaving}
    return share_among(mapping, maximum, worker=worker, others=staying)


def share_among(name: str, maximum: int, *, worker: WorkerId, others: Collection[WorkerId]) -> int:
    """A worker's share of what it and the others have in common under this name."""
    ranked = sorted({worker, *others}, key=lambda each: tie_break(name, each))
    even, left = divmod(maximum, len(ranked))
    return even + 1 if ranked.index(worker) < left else even


def claim(share: int, used: int) -> int:
    """What a worker claims with this share, while `used` is in use."""
    return max(share, used)


def claimed_by_others(mapping: MappingId, maximum: int, others: Mapping[WorkerId, WorkerReport]) -> int:
    """What the others claim together. A worker that reports no claim (of an older version) is assumed to use an equal share."""
    name = short(mapping)
    running: Collection[WorkerId] = [each for each, report in others.items() if name in report.running]
    return sum(others[each].claims.get(name, -(-maximum // (len(running) + 1))) for each in running)


def allowed(maximum: int, *, share: int, mine: int, others: int) -> int:
    """What a worker may have in use that claimed `mine`, while the other workers together claim `others`."""
    return max(0, min(share, mine, maximum - others))
