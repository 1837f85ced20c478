"""Owns how the C library treats memory that was freed."""

import ctypes
from collections.abc import Mapping

KEPT_BYTES = 64 * 1024 * 1024
"""Free memory at the end of the heap that stays with the process."""
MAPPED_BYTES_MIN = 32 * 1024 * 1024
"""Smaller blocks come from the heap; glibc takes no higher value."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory(environment: Mapping[str, str]) -> bool:
    """Lets glibc keep blocks of a page's size for the next page; whether it was told so.

    By itself it gives them back and asks for them again with each page of some megabytes, depending on what lies at the heap's
    end: then every record costs a page fault, a third of all that it costs. Who chose otherwise by glibc's own environment
    variables, or runs on another C library, is left alone.
    """
    if any(name in environment for name in _CHOICES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN))
