"""Owns how long one receive may wait, and the pause after one that brought nothing.

A receive holds a slot of its function, so that what it brings can run at once. A long poll may hold it only where
nobody misses it.
"""

import msgspec

LONG_POLL_S = 20
"""SQS's longest."""
SHORT_POLL_S = 1
"""For a function that others may need soon; as a long poll it still asks all of SQS's servers.

When others wait for a slot already, a poll does not wait at all.
"""
PAUSE_S_MAX = 10.0
"""Between short polls that bring nothing."""
REPEATED_PAUSE_S_MAX = 60.0
"""Between receives that bring only messages that we have already."""
MESSAGES_MAX = 10
"""What one receive may ask for."""
HAND_BACK_S = 5
"""Seconds of the grace time that are kept for the answer of a poll that was under way at the stop, and for giving its messages back."""


class Share(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a function's slots stand, this poller's own taken off: `free` and `limit` are None without a limit.

    `alone`: no other mapping uses the function. `waiting`: how many others wait for a slot. `awaited`: a batch of the mapping
    that was refused has no other slot for its next try.
    """

    limit: int | None
    free: int | None
    waiting: int
    alone: bool
    awaited: bool = False

    @property
    def roomy(self) -> bool:
        """Whether a slot may be held for a long poll: at least half of a shared function's slots stay free of them."""
        if self.awaited:
            return False
        if self.alone or self.limit is None or self.free is None:
            return True
        return self.waiting == 0 and self.free >= max(1, self.limit // 2)


def longest_s(visibility_s: int, grace_s: float) -> int:
    """The longest poll of a queue, in whole seconds; 1 at least.

    A message is ours from some moment of the poll on; only the moment at which the poll was sent is known. Two thirds
    of the visibility timeout leave the last third for what the poll brings.

    SQS does not notice that a client is gone: it serves an abandoned poll to its end, and hides what it gives for the whole
    visibility timeout (aws-behaviour#long-polls). A poll must therefore be answered within the grace time.
    """
    return min(LONG_POLL_S, max(1, min(visibility_s * 2 // 3, int(grace_s) - HAND_BACK_S)))


def poll_wait_s(share: Share, *, visibility_s: int, grace_s: float) -> int:
    """Whole seconds that the next receive may wait for a message."""
    if share.waiting and not share.alone:
        return 0
    longest = longest_s(visibility_s, grace_s)
    return longest if share.roomy else min(SHORT_POLL_S, longest)


def pause_s(empty: int) -> float:
    """Seconds without a slot after `empty` short polls in a row that brought nothing (1 or more)."""
    return min(PAUSE_S_MAX, 2.0 ** min(empty - 1, 10))


def repeated_pause_s(repeated: int) -> float:
    """Seconds without a slot after `repeated` receives in a row (1 or more) that brought only messages that we have already."""
    return min(REPEATED_PAUSE_S_MAX, 2.0 ** min(repeated - 1, 10))
