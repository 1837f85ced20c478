"""Owns which notices of a queue one reader holds back: the one that it works on, and those that it leaves.

A queue hides what it gave out for a time, and gives it out again after that. Messages that were left come again, too, and are hidden again so
that the others come. If there are so many of them that the first ones are visible before the last ones were hidden, the others would hardly ever come. So each
time that a message which was left comes again it is hidden for twice as long.
"""

from dataclasses import dataclass

from poller.domain.records import Monotonic

HOLD_S_MAX = 43_200
"""SQS hides a message for twelve hours at most."""


@dataclass(slots=True)
class _Held:
    receipt: str
    hide_s: int
    until: Monotonic
    left: bool = False


class HeldNotices:
    """The notices that one reader has received and not removed, by their ids. Each is hidden for `hold_s` at first."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = min(HOLD_S_MAX, max(1, round(hold_s)))
        self._held: dict[str, _Held] = {}

    def received(self, notice: str, receipt: str, now: Monotonic) -> int:
        """It was received, with this receipt. Returns for how many seconds it is to be hidden from `now` on."""
        before = self._held.get(notice)
        left = before is not None and before.left
        hide_s = min(HOLD_S_MAX, 2 * before.hide_s) if before is not None and left else self.hold_s
        self._held[notice] = _Held(receipt, hide_s, Monotonic(now + hide_s), left)
        return hide_s

    def kept(self, notice: str, now: Monotonic) -> None:
        """It is hidden for `hold_s` from `now` on."""
        self._held[notice].until = Monotonic(now + self.hold_s)

    def __contains__(self, notice: object) -> bool:
        return notice in self._held

    def receipt(self, notice: str) -> str:
        """The newest receipt of a notice."""
        return self._held[notice].receipt

    def leave(self, notice: str) -> None:
        """It stays, and is not worked on again."""
        self._held[notice].left = True

    def left(self, notice: str) -> bool:
        """Whether it was left."""
        held = self._held.get(notice)
        return held is not None and held.left

    def lapsed(self, notice: str, now: Monotonic) -> None:
        """Its time may be over, so that it may be another reader's."""
        self._held[notice].until = now

    def removed(self, notice: str) -> None:
        """It was removed."""
        self._held.pop(notice, None)

    def hidden(self, now: Monotonic) -> int:
        """How many are hidden by this reader for certain."""
        return sum(held.until > now for held in self._held.values())

    def receipts(self, now: Monotonic) -> list[str]:
        """The receipts of those that are hidden, the ones that are hidden longest first."""
        hidden = [held for held in self._held.values() if held.until > now]
        return [held.receipt for held in sorted(hidden, key=lambda held: held.until, reverse=True)]
