"""Owns how the strategy of a shift is read: by CodeDeploy's name, by one of the same form, or from own numbers."""

import math
import re

from poller.domain.functions.shifts import SHIFT_S_MAX, ShiftStrategy

MINUTE_S = 60.0
PERCENT_MIN = 0.1
"""A smaller share is no share of the calls that there are."""
ALL = 100.0
FORMS = (
    "AllAtOnce, Canary10Percent5Minutes, Linear10PercentEvery1Minute, or a name of the same form with other "
    "numbers"
)
_NAME = re.compile(
    r"(?:CodeDeployDefault\.)?(?:Lambda)?(?P<plain>(?P<all>AllAtOnce)"
    r"|Canary(?P<canary>[0-9]{1,3})Percent(?P<wait>[0-9]{1,4})Minutes?"
    r"|Linear(?P<linear>[0-9]{1,3})PercentEvery(?P<every>[0-9]{1,4})Minutes?)"
)


def strategy(text: str) -> ShiftStrategy:
    """The strategy of this name. Raises ValueError with a text for people."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise ValueError(f"write {FORMS}")
    if found["all"]:
        return ShiftStrategy("AllAtOnce")
    linear = found["linear"] is not None
    percent, minutes = found["linear"] or found["canary"], found["every"] or found["wait"]
    return _checked(found["plain"], float(percent), float(minutes) * MINUTE_S, linear=linear)


def own_strategy(percent: float, interval_s: float, linear: bool) -> ShiftStrategy:
    """The strategy of these numbers. Raises ValueError with a text for people."""
    kind = f"Linear{percent:g}PercentEvery" if linear else f"Canary{percent:g}Percent"
    return _checked(f"{kind}{interval_s:g}Seconds", percent, interval_s, linear=linear)


def intervals(found: ShiftStrategy) -> int:
    """How many intervals pass until all calls go to the new version."""
    if found.percent >= ALL:
        return 0
    return math.ceil(round(ALL / found.percent, 6)) - 1 if found.linear else 1


def total_s(found: ShiftStrategy) -> float:
    """Seconds from the first share until all calls go to the new version."""
    return intervals(found) * found.interval_s


def _checked(name: str, percent: float, interval_s: float, *, linear: bool) -> ShiftStrategy:
    if not PERCENT_MIN <= percent <= ALL:
        raise ValueError(f"write {PERCENT_MIN:g} or more percent, at most 100")
    if not 0 <= interval_s <= SHIFT_S_MAX:
        raise ValueError(f"write an interval of 0 s or more, at most {SHIFT_S_MAX:g} s")
    found = ShiftStrategy(name, percent, interval_s, linear)
    if total_s(found) > SHIFT_S_MAX:
        raise ValueError(
            f"the shift would take {total_s(found):g} s; take a shorter interval or a larger percent, for {SHIFT_S_MAX:g} s at most"
        )
    return found
