"""Owns how work grows with its input: the time of this thread and the memory at its peak, at one size and at four times that.

Linear work takes four times as long on four times as much, quadratic work sixteen times; the limit stands between. Time is
that of the thread and the least of some runs, so that a busy machine does not count. Sizes must be such that one run at the
small size takes about a millisecond: less than that is rounded up, and says nothing.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

STEP: Final = 4
SLACK: Final = 2.2
"""How much worse than linear still passes; quadratic is `STEP` times worse."""
RUNS: Final = 3
LOOKS: Final = 3
"""A growth that is too steep is measured again: what is really steep stays so."""
SECONDS_MIN: Final = 0.001
BYTES_MIN: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took."""

    seconds: float
    peak_bytes: int


def assert_linear[T](work: Callable[[T], object], make: Callable[[int], T], size: int) -> None:
    """Fails when `work` on `make(4 * size)` takes clearly more than four times what it takes on `make(size)`.

    Each run gets an input of its own, whose making does not count.
    """
    for look in range(1, LOOKS + 1):
        small, large = cost(work, make, size), cost(work, make, size * STEP)
        if not (grown := _too_steep(small, large)):
            return
        assert look < LOOKS, grown


def cost[T](work: Callable[[T], object], make: Callable[[int], T], size: int) -> Cost:
    """The least time of some runs, and the memory that one more run has at its peak beside its input."""
    return Cost(min(_seconds(work, make(size)) for _ in range(RUNS)), _peak_bytes(work, make(size)))


def _too_steep(small: Cost, large: Cost) -> str:
    most = STEP * SLACK
    if large.seconds > most * max(small.seconds, SECONDS_MIN):
        return f"{STEP} times the input: {small.seconds:.4f} s became {large.seconds:.4f} s"
    if large.peak_bytes > most * max(small.peak_bytes, BYTES_MIN):
        return f"{STEP} times the input: {small.peak_bytes:,} bytes became {large.peak_bytes:,}"
    return ""


def _seconds[T](work: Callable[[T], object], given: T) -> float:
    # Collections come when they come; what they cost belongs to no single run.
    gc.disable()
    try:
        began = time.thread_time()
        work(given)
        return time.thread_time() - began
    finally:
        gc.enable()


def _peak_bytes[T](work: Callable[[T], object], given: T) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = work(given)
        _, peak = tracemalloc.get_traced_memory()
        del result
        return peak - before
    finally:
        tracemalloc.stop()
