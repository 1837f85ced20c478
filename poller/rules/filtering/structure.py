"""Owns where a pattern's fields are in an event, and array consistency.

Paths are the keys joined by dots, on both sides: `{"a.b": …}` and `{"a": {"b": …}}` are the same. An array of
objects puts every leaf under it into one of its elements; fields of a branch have to be met by leaves that agree
on the element of every array that they share.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple, Self

from poller.rules.filtering.conditions import Test

Elements = frozenset[tuple[int, int]]
"""Which element (index) of which array (number in this event) a leaf stands in."""

_NOWHERE: Final[Elements] = frozenset()
_MISSING: Final = object()
_TANGLED: Final = object()


class Seen(NamedTuple):
    """A leaf of the event at a field's path."""

    value: object
    elements: Elements


class _Step(NamedTuple):
    """One key of a path, and the dotted keys by which an event can skip levels of the path from here."""

    key: str
    joins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a branch; `absent` is whether having no value is good enough, `text` its conditions as JSON."""

    path: str
    text: str
    test: Test
    absent: bool

    def holds(self, seen: Sequence[Seen]) -> bool:
        """Whether the leaves at this field's path satisfy it."""
        return any(self.test(leaf.value) for leaf in seen) or (self.absent and not seen)


@dataclass(slots=True)
class _Node:
    """A place in an event that some field's path leads through; `hops` are the event keys that lead on from it."""

    slot: int | None = None
    hops: dict[str, "_Node"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Branch:
    """Fields that must all hold, in Event Ruler's order (by path, in UTF-16 code units)."""

    fields: tuple[Field, ...]
    _root: _Node
    _simple: tuple[tuple[Field, tuple["_Step", ...]], ...]

    @classmethod
    def of(cls, fields: Iterable[Field]) -> Self:
        """A branch of these fields, whose paths differ."""
        ordered = tuple(sorted(fields, key=lambda each: path_order(each.path)))
        return cls(ordered, _grow(ordered), tuple((each, _steps(each.path)) for each in ordered))

    def holds(self, event: dict[str, object]) -> bool:
        """Whether all fields hold for an event."""
        for each, steps in self._simple:
            leaf = _simple_leaf(event, steps)
            if leaf is _MISSING:
                holds = each.absent
            elif isinstance(leaf, list):
                holds = any(map(each.test, leaf)) or (each.absent and not leaf)
            elif leaf is _TANGLED:
                return self.holding(self.look(event)) is None
            else:
                holds = each.test(leaf)
            if not holds:
                return False
        return True

    def look(self, event: dict[str, object]) -> list[list[Seen]]:
        """The leaves of an event at each field's path, in the order of the fields."""
        return _look(self._root, event, len(self.fields))

    def holding(self, seen: Sequence[Sequence[Seen]]) -> int | None:
        """None if all fields hold together, else the index of the first that cannot hold with those before it."""
        relevant = _relevant(seen)
        standing: set[Elements] = {_NOWHERE}
        for index, (each, leaves) in enumerate(zip(self.fields, seen, strict=True)):
            indexed = _Index(leaves)
            standing = {
                frozenset(pair for pair in place if pair[0] in relevant[index])
                for before in standing
                for place in _places(each, indexed.consistent(before), before)
            }
            if not standing:
                return index
        return None


def path_order(path: str) -> bytes:
    """Sorts paths as Event Ruler does, by UTF-16 code units; `exists: false` depends on what came before it."""
    return path.encode("utf-16-be", "surrogatepass")


def _steps(path: str) -> tuple[_Step, ...]:
    keys = path.split(".")
    return tuple(
        _Step(key, tuple(".".join(keys[at:end]) for end in range(at + 2, len(keys) + 1)))
        for at, key in enumerate(keys)
    )


def _grow(fields: Sequence[Field]) -> _Node:
    root = _Node()
    for slot, each in enumerate(fields):
        keys = each.path.split(".")
        nodes = [root]
        for depth in range(1, len(keys) + 1):
            known = nodes[-1].hops.get(keys[depth - 1])
            nodes.append(_Node() if known is None else known)
            for start in range(depth):
                nodes[start].hops[".".join(keys[start:depth])] = nodes[depth]
        nodes[-1].slot = slot
    return root


def _simple_leaf(event: dict[str, object], steps: tuple[_Step, ...]) -> object:
    """The leaf, or flat list of leaves, at a path of objects; `_TANGLED` where there is more than that to see."""
    value: object = event
    for key, joins in steps:
        if not isinstance(value, dict):
            return _TANGLED if isinstance(value, list) else _MISSING
        for join in joins:
            if join in value:
                return _TANGLED
        value = value.get(key, _MISSING)
    if isinstance(value, dict):
        return _MISSING
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return _TANGLED
    return value


def _look(root: _Node, event: dict[str, object], slots: int) -> list[list[Seen]]:
    seen: list[list[Seen]] = [[] for _ in range(slots)]
    arrays = 0
    # An explicit stack: an event may nest arrays deeper than Python nests calls.
    waiting: list[tuple[object, _Node, Elements]] = [(event, root, _NOWHERE)]
    while waiting:
        value, node, elements = waiting.pop()
        if isinstance(value, dict):
            waiting += [(value[key], hop, elements) for key, hop in node.hops.items() if key in value]
        elif isinstance(value, list):
            # Backwards, so that leaves come out in the order they are written.
            for index in range(len(value) - 1, -1, -1):
                item = value[index]
                inside = elements | {(arrays, index)} if isinstance(item, dict | list) else elements
                waiting.append((item, node, inside))
            arrays += 1
        elif node.slot is not None:
            seen[node.slot].append(Seen(value, elements))
    return seen


def _relevant(seen: Sequence[Sequence[Seen]]) -> list[set[int]]:
    """For each field, the arrays that a later field's leaves stand in; what others chose no longer matters."""
    relevant: list[set[int]] = [set() for _ in seen]
    for index in range(len(seen) - 1, 0, -1):
        here = {array for leaf in seen[index] for array, _ in leaf.elements}
        relevant[index - 1] = relevant[index] | here
    return relevant


class _Index:
    """The leaves of one field by array element, so that long arrays are joined and not multiplied."""

    __slots__ = ("_arrays", "_by_element", "_leaves", "_outside")

    def __init__(self, leaves: Sequence[Seen]) -> None:
        self._leaves = leaves
        self._arrays: Counter[int] = Counter()
        self._by_element: dict[tuple[int, int], list[Seen]] = {}
        self._outside: dict[int, list[Seen]] = {}
        for leaf in leaves:
            for pair in leaf.elements:
                self._arrays[pair[0]] += 1
                self._by_element.setdefault(pair, []).append(leaf)

    def consistent(self, place: Elements) -> Iterable[Seen]:
        """The leaves that agree with `place` on the element of every array that both stand in."""
        shared = [pair for pair in place if pair[0] in self._arrays]
        if not shared:
            return self._leaves
        pair = min(shared, key=self._cost)
        near = chain(self._by_element.get(pair, ()), self._out_of(pair[0]))
        chosen = dict(place)
        return (
            leaf for leaf in near if all(chosen.get(array, index) == index for array, index in leaf.elements)
        )

    def _cost(self, pair: tuple[int, int]) -> int:
        return len(self._by_element.get(pair, ())) + len(self._leaves) - self._arrays[pair[0]]

    def _out_of(self, array: int) -> list[Seen]:
        if self._arrays[array] == len(self._leaves):
            return []
        if array not in self._outside:
            self._outside[array] = [
                leaf for leaf in self._leaves if all(a != array for a, _ in leaf.elements)
            ]
        return self._outside[array]


def _places(each: Field, leaves: Iterable[Seen], before: Elements) -> Iterable[Elements]:
    """Where the branch may stand after this field: with one of the consistent leaves, or with none."""
    absent = each.absent
    for leaf in leaves:
        absent = False
        if each.test(leaf.value):
            yield before | leaf.elements
    if absent:
        yield before
