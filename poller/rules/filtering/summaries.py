"""Owns summaries of the parts of an event. They are enough to decide which branches hold, without keeping the parts themselves.

Fields and branches are numbered, and a set of them is an integer with one bit for each. A *region* is the content of one array
element, or everything outside of arrays. The leaves of a region and the arrays in it are independent of each other. So a branch
holds in a region if two things are true: its fields that have leaves outside of the arrays hold there, and each array has an
element in which the branch's fields of this array hold together. The first field of the branch with leaves in an array chooses the
element, so it must have a leaf in that element. Later fields may be absent there if their conditions allow it.

This is not valid if a field of a branch has leaves in two of these places. That needs an array with both scalars and arrays, or a
key with dots next to the same path without dots. Then a decision could take exponential time. A branch with only one field in
the region can still be decided. A branch with several fields there is called *open*.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.structure import Branch, Field, Node, path_order

CLOSED_MAX = 4_096
"""Regions without arrays whose summaries are cached."""
KINDS_A_SLICE = 500
"""Comparisons of kinds of elements with branches in one slice."""


class Summary(NamedTuple):
    """The summary of a region or an array.

    `present` has the fields with a leaf in it, `passing` those with a leaf that passes. `holding` has the branches that hold, `open`
    those that are not decided.
    """

    present: int
    passing: int
    holding: int
    open: int


class ValueSummary(NamedTuple):
    """The summary of one value for its region: its leaves outside of arrays, and its arrays."""

    present: int = 0
    passing: int = 0
    arrays: tuple[Summary, ...] = ()

    def beside(self, other: "ValueSummary") -> "ValueSummary":
        """The summary of both values in one region."""
        return ValueSummary(
            self.present | other.present, self.passing | other.passing, self.arrays + other.arrays
        )


NOTHING = ValueSummary()


@dataclass(slots=True)
class Elements:
    """The elements of one array by kind, which is the set of fields with a leaf: the branches that hold and those that are open."""

    holding: dict[int, int] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)
    passing: int = 0

    def add(self, element: Summary) -> None:
        """Adds an element. An element without leaves is ignored, because no field can choose it."""
        kind = element.present
        if kind:
            self.passing |= element.passing
            self.holding[kind] = self.holding.get(kind, 0) | element.holding & ~element.open
            if element.open:
                self.open[kind] = self.open.get(kind, 0) | element.open


class Index:
    """The branches by their fields; combines summaries into results."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        distinct = {id(each): each for branch in branches for each in branch.fields}
        self.fields: tuple[Field, ...] = tuple(
            sorted(distinct.values(), key=lambda each: path_order(each.path))
        )
        self.root = Node.over(each.path for each in self.fields)
        self.weight = sum(each.weight for each in self.fields)
        self.key_chars_max = max((len(each.path) for each in self.fields), default=0)
        places = {id(each): number for number, each in enumerate(self.fields)}
        self.masks = tuple(sum(1 << places[id(each)] for each in branch.fields) for branch in branches)
        self._absent = sum(1 << number for number, each in enumerate(self.fields) if each.absent)
        self._all = (1 << len(branches)) - 1
        self._with = [0] * len(self.fields)
        for number, mask in enumerate(self.masks):
            for each in bits(mask):
                self._with[each] |= 1 << number
        self._closed: dict[tuple[int, int], Summary] = {}

    def answer(self, whole: ValueSummary) -> bool:
        """Whether a branch holds for an event, or may hold."""
        event = self.region(whole)
        for number, mask in enumerate(self.masks):
            missing = mask & ~event.present & ~self._absent
            if not missing and event.holding >> number & 1:
                return True
        return False

    def region(self, part: ValueSummary) -> Summary:
        """The summary of a region, which is one array element or everything outside of arrays."""
        if part.arrays:
            return self._region(part)
        key = part.present, part.passing
        known = self._closed.get(key)
        if known is None:
            known = self._region(part)
            if len(self._closed) < CLOSED_MAX:
                self._closed[key] = known
        return known

    def _region(self, part: ValueSummary) -> Summary:
        present, passing, holding, open_ = part.present, part.passing, self._all, 0
        for number in bits(present & ~passing):
            holding &= ~self._with[number]
        twice = 0
        for array in part.arrays:
            twice |= present & array.present
            present |= array.present
            passing |= array.passing
            holding &= array.holding
            open_ |= array.open
        for number in bits(self._touched(twice)):
            branch, mine = 1 << number, self.masks[number] & present
            holding, open_ = holding & ~branch, open_ & ~branch
            if mine & (mine - 1) and self._possible(part, mine, passing, branch=branch, twice=twice):
                holding, open_ = holding | branch, open_ | branch
            elif mine & passing == mine:
                holding |= branch
        return Summary(present, passing, holding, open_ & holding)

    def _possible(self, part: ValueSummary, mine: int, passing: int, *, branch: int, twice: int) -> bool:
        """Whether a branch may hold: no field that is in only one place rules it out."""
        return not mine & ~passing & ~self._absent and all(
            array.holding & branch or array.present & mine & twice for array in part.arrays
        )

    def array(self, elements: Elements) -> Slices[Summary]:
        """The summary of an array, from its elements."""
        kinds = list(elements.holding)
        present = 0
        for kind in kinds:
            present |= kind
        # Every branch can choose an element that has all the fields of the array.
        full, touched = (
            elements.holding.get(present, 0),
            self._touched(present),
        )
        holding, open_, steps = self._all & ~touched | full, 0, 0
        for number in bits(touched & ~full) if len(kinds) > 1 or elements.open else ():
            mine, branch = self.masks[number] & present, 1 << number
            steps += len(kinds)
            if steps > KINDS_A_SLICE:
                steps = 0
                yield
            fitting = [kind for kind in kinds if self._chosen(kind, mine)]
            if any(elements.holding[kind] & branch for kind in fitting):
                holding |= branch
            elif any(elements.open.get(kind, 0) & branch for kind in fitting):
                holding, open_ = holding | branch, open_ | branch
        return Summary(present, elements.passing, holding, open_)

    def _chosen(self, kind: int, mine: int) -> bool:
        """Whether the first of these fields can choose an element of this kind, and the fields that it lacks may be absent."""
        return bool(kind & mine & -mine) and not mine & ~kind & ~self._absent

    def _touched(self, fields: int) -> int:
        branches = 0
        for number in bits(fields):
            branches |= self._with[number]
        return branches


def bits(mask: int) -> Iterator[int]:
    """The numbers in a set."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
