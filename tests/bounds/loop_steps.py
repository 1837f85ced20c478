"""Owns how long the steps of an event loop are: the time of the thread that each callback takes, which a busy machine does not change."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch


@dataclass(slots=True)
class Longest:
    """The longest step so far, and what ran in it."""

    seconds: float = 0.0
    what: str = ""


@contextmanager
def longest_step() -> Iterator[Longest]:
    """Measures every step of every loop of this thread."""
    longest = Longest()
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        taken = time.thread_time() - began
        if taken > longest.seconds:
            longest.seconds, longest.what = taken, repr(handle)[:200]

    with patch.object(asyncio.Handle, "_run", timed):
        yield longest
