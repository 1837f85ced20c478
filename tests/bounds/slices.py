"""Owns work in slices as tests run it: to its end, with the time of the longest slice."""

import time
from collections.abc import Generator

type Slices[T] = Generator[None, None, T]


def finished[T](work: Slices[T]) -> T:
    """The result of all slices."""
    return longest_slice(work)[0]


def answered(answer: bool | Slices[bool]) -> bool:
    """An answer that may come in slices."""
    return answer if isinstance(answer, bool) else finished(answer)


def longest_slice[T](work: Slices[T]) -> tuple[T, float]:
    """The result, and the seconds of this thread that the longest slice took."""
    longest_s = 0.0
    while True:
        began = time.thread_time()
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result, max(longest_s, time.thread_time() - began)
        longest_s = max(longest_s, time.thread_time() - began)
