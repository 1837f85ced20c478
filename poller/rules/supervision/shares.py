"""Owns what each of several processes of a machine may use of what the settings give to the daemon."""

MEMORY_MB_MIN = 64
"""The least that a process can work with; `tuning.memory_mb` has the same limit."""


def memory_share_mb(memory_mb: int, processes: int, *, given: bool) -> int | None:
    """The megabytes of records that each process may hold, so that all together hold no more than `memory_mb`.

    None if that is less than a process needs. A default, which nobody has `given`, is at least that much.
    """
    share = memory_mb // processes
    if share >= MEMORY_MB_MIN:
        return share
    return None if given else MEMORY_MB_MIN
