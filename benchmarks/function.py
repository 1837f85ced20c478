"""The function of the benchmarks: it does nothing."""


async def nothing(_event: object, _context: object) -> None:
    """Returns at once."""


def taken(_event: bytes) -> None:
    """What the plain and the bare loop hand their events to."""
