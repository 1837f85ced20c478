"""Owns how long one receive may wait for messages, and the pause after a receive without messages.

A receive holds a slot of its function, so that its messages can run at once. A long poll may hold a slot only if no other mapping
needs it.
"""

import msgspec

LONG_POLL_S = 20
"""The longest wait that SQS allows."""
SHORT_POLL_S = 1
"""The wait if other mappings may need the function soon. Any wait above 0 makes SQS ask all of its servers.

If others already wait for a slot, a poll does not wait at all.
"""
PAUSE_S_MAX = 10.0
"""The longest pause between short polls without messages."""
REPEATED_PAUSE_S_MAX = 60.0
"""The longest pause between receives with only messages that are already here."""
MESSAGES_MAX = 10
"""The most messages that one receive may ask for."""
HAND_BACK_S = 5
"""Seconds of the grace time that are reserved for the answer of a poll that runs at the stop, and for giving its messages back."""


class Share(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The state of a function's slots, without this poller's own. `free` and `limit` are None without a limit.

    `alone`: no other mapping uses the function. `waiting`: how many others wait for a slot. `awaited`: a refused batch of the
    mapping needs a slot for its next try, and none is free. `scarce`: others may need the permit that a poll holds, if the function has a rate
    or a breaker.
    """

    limit: int | None
    free: int | None
    waiting: int
    alone: bool
    awaited: bool = False
    scarce: bool = False

    @property
    def roomy(self) -> bool:
        """Whether a slot may be held for a long poll: at least half of a shared function's slots must stay free."""
        if self.awaited or self.scarce:
            return False
        if self.alone or self.limit is None or self.free is None:
            return True
        return self.waiting == 0 and self.free >= max(1, self.limit // 2)


def longest_s(visibility_s: int, grace_s: float) -> int:
    """The longest poll of a queue, in whole seconds; 1 at least.

    A message is hidden from some moment during the poll on. Only the moment at which the poll was sent is known. So a poll takes at
    most two thirds of the visibility timeout, and leaves the last third for its messages.

    SQS does not notice that a client is gone. It serves an abandoned poll to its end, and hides the messages for the whole
    visibility timeout (aws-behaviour#long-polls). So a poll must be answered within the grace time.
    """
    return min(LONG_POLL_S, max(1, min(visibility_s * 2 // 3, int(grace_s) - HAND_BACK_S)))


def poll_wait_s(share: Share, *, visibility_s: int, grace_s: float) -> int:
    """Whole seconds that the next receive may wait for a message."""
    if share.waiting and not share.alone:
        return 0
    longest = longest_s(visibility_s, grace_s)
    return longest if share.roomy else min(SHORT_POLL_S, longest)


def pause_s(empty: int) -> float:
    """Seconds to pause without a slot after `empty` short polls in a row without messages (1 or more)."""
    return min(PAUSE_S_MAX, 2.0 ** min(empty - 1, 10))


def repeated_pause_s(repeated: int) -> float:
    """Seconds to pause without a slot after `repeated` receives in a row (1 or more) with only messages that are already here."""
    return min(REPEATED_PAUSE_S_MAX, 2.0 ** min(repeated - 1, 10))
