"""Owns alternatives, which are branches of which one must hold. They are evaluated at once for a parsed event, or in slices for texts."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.reading import leaf, read
from poller.rules.filtering.structure import Branch, Node, SearchLimits
from poller.rules.filtering.summaries import NOTHING, Index, bits

FEW: Final = 8
"""Up to this many branches are evaluated one by one. With more branches, each field is evaluated once for all of them."""


class Alternatives:
    """Branches of which at least one must hold."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self.branches = tuple(branches)
        distinct = {id(each): each.weight for branch in branches for each in branch.fields}
        self._limits = SearchLimits.shared(max(1, len(branches)), max(1, sum(distinct.values())))

    def holds(self, event: dict[str, object]) -> bool | None:
        """Whether a branch holds for a parsed event. None if this would take too long for one step of the event loop."""
        branches, limits = self.branches, self._limits
        if len(branches) == 1:
            return branches[0].holds(event, limits)
        if len(branches) > FEW:
            return self._one_of_many(event)
        known: bool | None = False
        for branch in branches:
            held = branch.holds(event, limits)
            if held:
                return True
            if held is None:
                known = None
        return known

    def search(self, envelope: str, payload: str, key: str) -> Slices[bool]:
        """Whether a branch holds for an event of two JSON texts. True also if the event's arrays are too complex to decide it.

        `payload` is the value of the envelope's `key`. Without a key the payload is the whole event. Raises NotJson.
        """
        index = self._index
        whole = (yield from read(envelope, index.root, index)) if key else NOTHING
        return index.answer(whole.beside((yield from read(payload, self._place(key), index))))

    def search_plain(self, envelope: str, payload: str, key: str) -> Slices[bool]:
        """The same for a payload that is plain text."""
        index = self._index
        whole = yield from read(envelope, index.root, index)
        return index.answer(whole.beside((yield from leaf(payload, self._place(key), index))))

    @cached_property
    def _index(self) -> Index:
        return Index(self.branches)

    def _place(self, key: str) -> Node | None:
        return self._index.root.keys.get(key) if key else self._index.root

    def _one_of_many(self, event: dict[str, object]) -> bool | None:
        """As `holds` for many branches: a field that several branches share is evaluated once."""
        index = self._index
        good = bad = hard = 0
        known: bool | None = False
        for branch, mask in zip(self.branches, index.masks, strict=True):
            for number in bits(mask & ~good & ~hard):
                if mask & bad:
                    break
                held = index.fields[number].holds_alone(event, self._limits)
                if held is None:
                    hard |= 1 << number
                elif held:
                    good |= 1 << number
                else:
                    bad |= 1 << number
            if mask & bad:
                continue
            if not mask & hard:
                return True
            together = branch.holds_together(event, self._limits)
            if together:
                return True
            if together is None:
                known = None
        return known
