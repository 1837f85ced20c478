"""Owns which worker's news of a message or message group counts, where several workers list the same one.

A worker that a message failed at lists it for a while, also when another worker has received it since. Commands that end the
trouble are about the message, whoever has it. So people are shown it once.
"""

from collections.abc import Iterable

from poller.domain.status import LaneStatus


def newest(lanes: Iterable[LaneStatus]) -> tuple[LaneStatus, ...]:
    """The lanes in their order, each that is in trouble once: as the worker has it whose news is the newest."""
    there = tuple(lanes)
    found: dict[str, LaneStatus] = {}
    for lane in there:
        if _in_trouble(lane):
            known = found.get(lane.lane)
            if known is None or _place(lane) > _place(known):
                found[lane.lane] = lane
    return tuple(lane for lane in there if not _in_trouble(lane) or found[lane.lane] is lane)


def _in_trouble(lane: LaneStatus) -> bool:
    return lane.blocked_since is not None or bool(lane.last_error)


def _place(lane: LaneStatus) -> tuple[float, int]:
    """What grows with each receive: the time at which the message comes again, which a call that runs has yet to set, and the count."""
    comes_again = lane.next_try if lane.next_try is not None else float("-inf")
    return (float("inf") if lane.state == "invoking" else comes_again, lane.attempts)
