"""Owns the setting of the C library for freed memory."""

import ctypes
from collections.abc import Mapping

KEPT_BYTES = 64 * 1024 * 1024
"""Up to this much free memory at the end of the heap stays with the process."""
MAPPED_BYTES_MIN = 32 * 1024 * 1024
"""Blocks below this size come from the heap. glibc accepts no higher value."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory(environment: Mapping[str, str]) -> bool:
    """Makes glibc keep the memory of one page of records for the next page. Returns whether it was set.

    By default glibc may return this memory to the system after each page of records, and request it again for the next one. Then
    every record costs a page fault, a third of its total cost. Nothing is changed if glibc's own environment variables are set,
    or with another C library.
    """
    if any(name in environment for name in _CHOICES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN))
