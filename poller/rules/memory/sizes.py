"""Owns what is known about the sizes of what a source gives: how much one record takes, and how much a call is likely to bring."""

from poller.rules.memory.byte_budget import UNIT_BYTES

SIZE_UNKNOWN = 2_048
"""Bytes of a record or message while none was seen."""
SIZE_MIN = 256
COUNT_MAX = 10_000
"""More are never asked for."""
CALL_BYTES_MIN = 4_096
"""What a call is expected to bring that has brought nothing for long."""
FALLS_TO = 0.8
"""An estimate rises at once, and falls to this part of itself with each call that brought less."""


class SizesSeen:
    """What the calls of one reader, or of the pollers of one queue, have brought. All sizes are in bytes.

    An answer without room says how large its records are, and no estimate grows beyond that: many pollers may meet the same shortage.
    """

    def __init__(self, one: int = SIZE_UNKNOWN) -> None:
        """`one` is assumed at first. It falls slowly, so that a large one lets calls begin slowly while nothing is known."""
        self.one = one
        """How much one record or message takes."""
        self.call = UNIT_BYTES
        """How much the next call is likely to bring."""
        self.most = COUNT_MAX
        """How many to ask for at most. It falls to half of what had no room, and doubles with each call that had."""

    def count(self, room: int, most: int) -> int:
        """How many to ask for, with this much room; at least one, and no more than `most`."""
        return max(1, min(most, self.most, room // self.one))

    def brought(self, count: int, size: int, *, asked: int) -> None:
        """A call that asked for `asked` has brought `count`, which take `size`."""
        if count:
            self.one = max(SIZE_MIN, size // count, int(self.one * FALLS_TO))
            self.most = min(COUNT_MAX, 2 * self.most)
        elif self.one > SIZE_UNKNOWN:
            self.one = max(SIZE_UNKNOWN, int(self.one * FALLS_TO))
        # More than was asked for is there: the next call may bring twice as much.
        likely = max(2 * size, UNIT_BYTES) if count >= asked else size
        self.call = max(CALL_BYTES_MIN, likely, int(self.call * FALLS_TO))

    def too_large(self, needed: int, *, asked: int) -> None:
        """A call that asked for `asked` would have brought `needed`, for which there was no room."""
        self.one = max(self.one, needed // asked)
        self.most = max(1, asked // 2)
