"""Owns how workers share a maximum of one mapping, such that it holds while they come and go (DESIGN, section 3).

Every worker has a part, and claims in its heartbeat what it may have in use: its part, or more while that still runs. It uses
no more than it claimed, nor more than the others' claims leave. Each claims first and looks at the others' claims then, so that of two
workers that do so at once one at least sees the other's.
"""

from collections.abc import Collection, Mapping

from poller.records import MappingId, WorkerId
from poller.rules.facts import Facts, short
from poller.rules.leasing import lot


def part(mapping: MappingId, maximum: int, *, worker: WorkerId, others: Mapping[WorkerId, Facts]) -> int:
    """A worker's part of the maximum among `others` that run the mapping and stay; parts differ by one and add up to it."""
    name = short(mapping)
    staying = {each for each, facts in others.items() if name in facts.on and not facts.leaving}
    ranked = sorted({worker, *staying}, key=lambda each: lot(mapping, each))
    return maximum // len(ranked) + (ranked.index(worker) < maximum % len(ranked))


def claim(part: int, used: int) -> int:
    """What a worker claims that has so much in use."""
    return max(part, used)


def claimed(mapping: MappingId, maximum: int, others: Mapping[WorkerId, Facts]) -> int:
    """What the others claim together. Who does not say, since it knows of no maximum, counts with a part like any."""
    name = short(mapping)
    running: Collection[WorkerId] = [each for each, facts in others.items() if name in facts.on]
    return sum(others[each].claims.get(name, -(-maximum // (len(running) + 1))) for each in running)


def allowed(maximum: int, *, part: int, mine: int, others: int) -> int:
    """What a worker may have in use that claimed `mine`, while all others claim `others`."""
    return max(0, min(part, mine, maximum - others))
