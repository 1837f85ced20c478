"""Owns how many processes a daemon has: a number that was given, or `auto`, which is as many as there are processors for it.

A control group may give a daemon less time than its processors have. Then a process that could never run beside the others would
cost memory and heartbeats for nothing. So a part of a processor does not count, unless it is the only one.
"""

from collections.abc import Iterable

from poller.domain.untrusted.numbers import whole

PROCESSES_MAX = 64
AUTO = "auto"
QUOTA_US_MAX = 10**12
"""A quota or period beyond this is none."""


def number_of_processes(text: str, processors: int) -> int | None:
    """The number that `--processes` means: `auto`, or 1 to PROCESSES_MAX. None if it is neither."""
    if text == AUTO:
        return max(1, min(processors, PROCESSES_MAX))
    return whole(text, least=1, most=PROCESSES_MAX, default=None)


def usable_processors(allowed: int, quotas: Iterable[tuple[int, int]]) -> int:
    """How many processors a daemon can use: `allowed` to it, and no more than each quota has, a time in a period (both in µs)."""
    shares = [quota // period for quota, period in quotas if quota > 0 and period > 0]
    return max(1, min([allowed, *shares]))


def quota_of(quota: str, period: str) -> tuple[int, int] | None:
    """Quota and period in µs, as a control group's files have them as text. None if there is no quota, which is `max` or -1."""
    found = [whole(each, least=1, most=QUOTA_US_MAX, default=None) for each in (quota, period)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])
