"""Owns branches of which one is enough, asked of a parsed event at once or of texts in slices."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.reading import leaf, read
from poller.rules.filtering.structure import Branch, Node, SearchLimits
from poller.rules.filtering.summaries import NOTHING, Index, bits

FEW: Final = 8
"""Up to so many branches are asked one by one; of more, each field is asked once."""


class Alternatives:
    """Any of these branches."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self.branches = tuple(branches)
        distinct = {id(each): each.weight for branch in branches for each in branch.fields}
        self._limits = SearchLimits.shared(max(1, len(branches)), max(1, sum(distinct.values())))

    def holds(self, event: dict[str, object]) -> bool | None:
        """Whether some branch holds for a parsed event; None when that is too much for one step of the event loop."""
        branches, limits = self.branches, self._limits
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
        """Whether some branch holds for an event of two JSON texts, or may hold: arrays can be too tangled to tell.

        `payload` is the value of the envelope's `key`; without a key it is all of the event. Raises NotJson.
        """
        index = self._index
        whole = (yield from read(envelope, index.root, index)) if key else NOTHING
        return index.answer(whole.beside((yield from read(payload, self._place(key), index))))

    def search_plain(self, envelope: str, payload: str, key: str) -> Slices[bool]:
        """The same with a payload that is text."""
        index = self._index
        whole = yield from read(envelope, index.root, index)
        return index.answer(whole.beside((yield from leaf(payload, self._place(key), index))))

    @cached_property
    def _index(self) -> Index:
        return Index(self.branches)

    def _place(self, key: str) -> Node | None:
        return self._index.root.keys.get(key) if key else self._index.root

    def _one_of_many(self, event: dict[str, object]) -> bool | None:
        """Fields that alternatives share are asked once."""
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
