"""Owns what is to be known of a part of an event to say which branches hold: sums of it, never the part itself.

Fields and branches are numbered, and a set of them is an integer with a bit for each. A *region* is what stands in one
array element, or outside of all arrays. Its leaves and the arrays in it are independent: a branch holds in a region
when its fields hold among the leaves outside of the arrays, and each array has an element in which those fields hold
together that are in this array. The first field of a branch that has leaves in an array chooses the element, so that it has
to have a leaf there; fields after it may be absent there if their conditions say so.

That is so unless one field of a branch is in two of these places, which takes an array of scalars and arrays, or a
key with dots beside the same path without. Such an event can be as hard as any puzzle. A branch with one field in the
region is decided all the same, and one with several is *open*.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.structure import Branch, Field, Node, path_order

CLOSED_MAX = 4_096
"""Regions without arrays whose sum is remembered."""
KINDS_A_SLICE = 500
"""Comparisons of element kinds with branches in one slice."""


class Summary(NamedTuple):
    """A region or an array: fields with a leaf in it, with a leaf that passes; branches that may hold, and that may or may not."""

    present: int
    passing: int
    holding: int
    open: int


class ValueSummary(NamedTuple):
    """What one value brings into its region: leaves outside of its arrays, and the arrays."""

    present: int = 0
    passing: int = 0
    arrays: tuple[Summary, ...] = ()

    def beside(self, other: "ValueSummary") -> "ValueSummary":
        """Both in one region."""
        return ValueSummary(
            self.present | other.present, self.passing | other.passing, self.arrays + other.arrays
        )


NOTHING = ValueSummary()


@dataclass(slots=True)
class Elements:
    """The elements of one array by kind: the fields that have a leaf there, with the branches that hold and may hold."""

    holding: dict[int, int] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)
    passing: int = 0

    def add(self, element: Summary) -> None:
        """Counts an element; one without leaves can never be chosen."""
        kind = element.present
        if kind:
            self.passing |= element.passing
            self.holding[kind] = self.holding.get(kind, 0) | element.holding & ~element.open
            if element.open:
                self.open[kind] = self.open.get(kind, 0) | element.open


class Index:
    """Branches by their fields, and how sums of regions become answers."""

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
        """Whether some branch holds for an event, or may hold."""
        event = self.region(whole)
        for number, mask in enumerate(self.masks):
            missing = mask & ~event.present & ~self._absent
            if not missing and event.holding >> number & 1:
                return True
        return False

    def region(self, part: ValueSummary) -> Summary:
        """What stands in one array element, or outside of all arrays."""
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
        """Whether nothing that is in one place only rules the branch out."""
        return not mine & ~passing & ~self._absent and all(
            array.holding & branch or array.present & mine & twice for array in part.arrays
        )

    def array(self, elements: Elements) -> Slices[Summary]:
        """An array from its elements."""
        kinds = list(elements.holding)
        present = 0
        for kind in kinds:
            present |= kind
        # An element with all the fields that any element has can be chosen by every branch.
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
        """Whether an element of this kind can be chosen by the first of these fields, and satisfy the absence of the others."""
        return bool(kind & mine & -mine) and not mine & ~kind & ~self._absent

    def _touched(self, fields: int) -> int:
        branches = 0
        for number in bits(fields):
            branches |= self._with[number]
        return branches


def bits(mask: int) -> Iterator[int]:
    """The numbers of a set."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
