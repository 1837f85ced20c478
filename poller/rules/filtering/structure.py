"""Owns how the fields of a pattern are found in an event (aws-behaviour#structure-of-patterns).

A path is a sequence of keys joined by dots, in patterns and in events: `{"a.b": …}` and `{"a": {"b": …}}` are the same. Each leaf
below an array of objects belongs to one element of the array. The leaves that match a branch must belong to the same element of
each array that they share.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

from poller.rules.filtering.conditions import LongTest, Test

Elements = frozenset[tuple[int, int]]
"""The elements that contain a leaf: for each array (by its number in this event) the index of the element."""

LOOK_STEPS_MAX: Final = 10_000
"""Steps of a search for leaves that belong together. They take about five milliseconds."""
ITEMS_MAX: Final = 16_384
"""Comparisons of fields with items of flat lists that are made in one step. They take about five milliseconds."""
TEXT_CHARS_MAX: Final = 4 * 1024 * 1024
"""Characters of texts that are compared in one step."""
_SIMPLE_KEYS_MAX: Final = 8
"""For a longer path the dotted spellings are not precomputed, because their number grows with the square of its length."""
_NOWHERE: Final[Elements] = frozenset()
_MISSING: Final = object()
_TANGLED: Final = object()


class TooMuchWork(Exception):
    """A search has used all its steps, and the result is not known."""


class StepBudget:
    """How many steps are left."""

    __slots__ = ("_left",)

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, steps: int) -> None:
        """Uses up steps. Raises TooMuchWork if there are not enough left."""
        self._left -= steps
        if self._left < 0:
            raise TooMuchWork


class SearchLimits(NamedTuple):
    """The limits of one evaluation: steps of a search, items of a flat list, characters of a text."""

    steps: int
    items: int
    chars: int

    @classmethod
    def shared(cls, branches: int, weight: int) -> "SearchLimits":
        """The limits for each of several branches, whose fields together have this weight."""
        return cls(LOOK_STEPS_MAX // branches, ITEMS_MAX // weight, TEXT_CHARS_MAX // weight)


class FoundLeaf(NamedTuple):
    """A leaf of the event at a field's path."""

    value: object
    elements: Elements


type PathStep = tuple[str, tuple[str, ...]]
"""One key of a path, and the dotted keys by which an event can skip levels of the path from here.

It is no NamedTuple, because steps are unpacked for each record, and plain tuples are unpacked in a third of the time.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a branch. `text` has its conditions as JSON. `absent`: the field also holds if it has no value.

    `weight` is the number of comparisons of `test`. `long` is the same test in slices. `steps` are the keys of its path.
    Branches that have the same field share one object.
    """

    path: str
    text: str
    test: Test
    absent: bool
    weight: int
    long: LongTest
    steps: tuple[PathStep, ...]

    def holds_alone(self, event: dict[str, object], limits: SearchLimits) -> bool | None:
        """Whether the field holds by itself. None if arrays of objects or long values prevent a quick answer."""
        leaf = _simple_leaf(event, self.steps, limits.items)
        if leaf is _MISSING:
            return self.absent
        if leaf is _TANGLED or (isinstance(leaf, str) and len(leaf) > limits.chars):
            return None
        if isinstance(leaf, list):
            return any(map(self.test, leaf)) or (self.absent and not leaf)
        return self.test(leaf)

    def holds(self, seen: Sequence[FoundLeaf]) -> bool:
        """Whether the leaves at this field's path satisfy it."""
        return any(self.test(leaf.value) for leaf in seen) or (self.absent and not seen)


@dataclass(slots=True)
class Node:
    """A place in an event on the path of a field: the fields whose paths end here, and the keys that continue paths."""

    fields: list[int] = field(default_factory=list)
    below: int = 0
    """How many fields have paths that end here or below."""
    keys: dict[str, "Node"] = field(default_factory=dict)

    @classmethod
    def over(cls, paths: Iterable[str]) -> "Node":
        """The root of a tree of these paths. Fields are numbered in the order of the paths."""
        root = cls()
        for number, path in enumerate(paths):
            node = root
            node.below += 1
            for key in path.split("."):
                node = node.keys.setdefault(key, cls())
                node.below += 1
            node.fields.append(number)
        return root

    def at(self, key: str) -> "Node | None":
        """The node of a key of an event, if there is one. A key with dots goes down several levels."""
        if "." not in key:
            return self.keys.get(key)
        node = self
        for part in key.split("."):
            following = node.keys.get(part)
            if following is None:
                return None
            node = following
        return node

    def members(self, value: dict[str, object]) -> Iterable[tuple[object, "Node"]]:
        """The members of an object that are on some path, each with its node."""
        for key, node in self.keys.items():
            if key in value:
                yield value[key], node
        if "." in "".join(value):
            for key in value:
                if "." in key and (found := self.at(key)) is not None:
                    yield value[key], found


class Branch:
    """Fields that must all hold, in Event Ruler's order (by path, in UTF-16 code units)."""

    __slots__ = ("_root", "_simple", "fields")

    def __init__(self, fields: Iterable[Field]) -> None:
        """A branch of these fields. No two of them have the same path."""
        self.fields = tuple(sorted(fields, key=lambda each: path_order(each.path)))
        self._root: Node | None = None
        self._simple = tuple((each.steps, each.test, each.absent) for each in self.fields)

    def holds(self, event: dict[str, object], limits: SearchLimits) -> bool | None:
        """Whether all fields hold for an event; None when that takes more than the limits allow."""
        items, chars = limits.items, limits.chars
        # This is Field.holds_alone, inlined for speed.
        for steps, test, absent in self._simple:
            leaf = _simple_leaf(event, steps, items)
            if isinstance(leaf, str):
                if len(leaf) > chars:
                    return self.holds_together(event, limits)
                held = test(leaf)
            elif leaf is _MISSING:
                held = absent
            elif leaf is _TANGLED:
                return self.holds_together(event, limits)
            elif isinstance(leaf, list):
                held = any(map(test, leaf)) or (absent and not leaf)
            else:
                held = test(leaf)
            if not held:
                return False
        return True

    def holds_together(self, event: dict[str, object], limits: SearchLimits) -> bool | None:
        """The same, by a search for leaves that belong together."""
        left = StepBudget(limits.steps)
        try:
            return self.holding(self.look(event, left), left) is None
        except TooMuchWork:
            return None

    def look(self, event: dict[str, object], steps: StepBudget) -> list[list[FoundLeaf]]:
        """The leaves of an event at each field's path, in the order of the fields. Raises TooMuchWork."""
        if self._root is None:
            self._root = Node.over(each.path for each in self.fields)
        return _look(self._root, event, len(self.fields), steps)

    def holding(self, seen: Sequence[Sequence[FoundLeaf]], steps: StepBudget) -> int | None:
        """None if all fields hold together, else the index of the first field that cannot hold together with those before it.

        Raises TooMuchWork.
        """
        relevant = _relevant(seen)
        standing: set[Elements] = {_NOWHERE}
        for index, (each, leaves) in enumerate(zip(self.fields, seen, strict=True)):
            indexed = _Index(leaves)
            following: set[Elements] = set()
            for before in standing:
                for place in _places(each, indexed.consistent(before, steps), before, steps):
                    steps.take(1 + len(place))
                    following.add(frozenset(pair for pair in place if pair[0] in relevant[index]))
            standing = following
            if not standing:
                return index
        return None


def path_order(path: str) -> bytes:
    """A sort key for paths in Event Ruler's order, by UTF-16 code units. The order matters: `exists: false` depends on earlier fields."""
    return path.encode("utf-16-be", "surrogatepass")


def steps_to(path: str) -> tuple[PathStep, ...]:
    """The keys of a path; empty for a long path."""
    keys = path.split(".")
    if len(keys) > _SIMPLE_KEYS_MAX:
        return ()
    return tuple(
        (key, tuple(".".join(keys[at:end]) for end in range(at + 2, len(keys) + 1)))
        for at, key in enumerate(keys)
    )


def _simple_leaf(event: dict[str, object], steps: tuple[PathStep, ...], items_max: int) -> object:
    """The leaf or flat list of leaves at a path of objects. `_TANGLED` if the event has a more complex structure there."""
    value: object = event
    for key, joins in steps:
        if not isinstance(value, dict):
            return _TANGLED if isinstance(value, list) else _MISSING
        for join in joins:
            if join in value:
                return _TANGLED
        value = value.get(key, _MISSING)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _MISSING if steps else _TANGLED
    if isinstance(value, list) and (
        len(value) > items_max or any(isinstance(item, dict | list) for item in value)
    ):
        return _TANGLED
    return value


def _look(root: Node, event: dict[str, object], fields: int, steps: StepBudget) -> list[list[FoundLeaf]]:
    seen: list[list[FoundLeaf]] = [[] for _ in range(fields)]
    arrays = 0
    # An explicit stack, because an event may nest arrays deeper than Python's recursion limit.
    waiting: list[tuple[object, Node, Elements]] = [(event, root, _NOWHERE)]
    while waiting:
        value, node, elements = waiting.pop()
        if isinstance(value, dict):
            steps.take(1 + len(node.keys))
            waiting += [(inner, at, elements) for inner, at in node.members(value)]
        elif isinstance(value, list):
            # If only one field's path goes through an array, its elements need not be compared with others.
            shared = node.below > 1
            steps.take(1 + len(value) * (1 + len(elements) * shared))
            # Elements are pushed in reverse, so that leaves come out in written order.
            for index in range(len(value) - 1, -1, -1):
                item = value[index]
                bound = shared and isinstance(item, dict | list)
                waiting.append((item, node, elements | {(arrays, index)} if bound else elements))
            arrays += 1
        else:
            steps.take(1)
            for number in node.fields:
                seen[number].append(FoundLeaf(value, elements))
    return seen


def _relevant(seen: Sequence[Sequence[FoundLeaf]]) -> list[set[int]]:
    """For each field, the arrays that contain leaves of later fields. Choices in other arrays no longer matter."""
    relevant: list[set[int]] = [set() for _ in seen]
    for index in range(len(seen) - 1, 0, -1):
        here = {array for leaf in seen[index] for array, _ in leaf.elements}
        relevant[index - 1] = relevant[index] | here
    return relevant


class _Index:
    """The leaves of one field by array element, so that fields in long arrays are joined by lookup and not by all pairs."""

    __slots__ = ("_arrays", "_by_element", "_leaves", "_outside")

    def __init__(self, leaves: Sequence[FoundLeaf]) -> None:
        self._leaves = leaves
        self._arrays: Counter[int] = Counter()
        self._by_element: dict[tuple[int, int], list[FoundLeaf]] = {}
        self._outside: dict[int, list[FoundLeaf]] = {}
        for leaf in leaves:
            for pair in leaf.elements:
                self._arrays[pair[0]] += 1
                self._by_element.setdefault(pair, []).append(leaf)

    def consistent(self, place: Elements, steps: StepBudget) -> Iterable[FoundLeaf]:
        """The leaves that are in the same element as `place` in every array that contains both."""
        steps.take(1 + len(place))
        shared = [pair for pair in place if pair[0] in self._arrays]
        if not shared:
            return self._leaves
        pair = min(shared, key=self._cost)
        near = chain(self._by_element.get(pair, ()), self._out_of(pair[0]))
        chosen = dict(place)
        return self._agreeing(near, chosen, steps)

    @staticmethod
    def _agreeing(
        near: Iterable[FoundLeaf], chosen: dict[int, int], steps: StepBudget
    ) -> Iterable[FoundLeaf]:
        for leaf in near:
            steps.take(1 + len(leaf.elements))
            if all(chosen.get(array, index) == index for array, index in leaf.elements):
                yield leaf

    def _cost(self, pair: tuple[int, int]) -> int:
        return len(self._by_element.get(pair, ())) + len(self._leaves) - self._arrays[pair[0]]

    def _out_of(self, array: int) -> list[FoundLeaf]:
        if self._arrays[array] == len(self._leaves):
            return []
        if array not in self._outside:
            self._outside[array] = [
                leaf for leaf in self._leaves if all(a != array for a, _ in leaf.elements)
            ]
        return self._outside[array]


def _places(
    each: Field, leaves: Iterable[FoundLeaf], before: Elements, steps: StepBudget
) -> Iterable[Elements]:
    """The choices of array elements after this field: with each of the consistent leaves, or without a leaf."""
    absent = each.absent
    for leaf in leaves:
        absent = False
        steps.take(each.weight)
        if each.test(leaf.value):
            yield before | leaf.elements
    if absent:
        yield before
