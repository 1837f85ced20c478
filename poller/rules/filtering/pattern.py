"""Owns the compiled pattern: branches of fields, any one of which lets an event pass."""

from dataclasses import dataclass

from poller.rules.filtering import parsing
from poller.rules.filtering.conditions import Absent, compile_test
from poller.rules.filtering.structure import Branch, Field


@dataclass(frozen=True, slots=True)
class Pattern:
    """A validated pattern as a predicate; `fields` are the top-level keys it looks at."""

    branches: tuple[Branch, ...]
    fields: frozenset[str]

    def matches(self, event: object) -> bool:
        """Whether a parsed JSON event satisfies the pattern; false for anything but an object, never an error."""
        if not isinstance(event, dict):
            return False
        for branch in self.branches:  # noqa: SIM110 - any() with a generator costs a third of a small match
            if branch.holds(event):
                return True
        return False


def compile_pattern(text: str | bytes) -> Pattern:
    """Parse, validate and compile a pattern's JSON text. Raises InvalidPattern (9.4)."""
    parsed = parsing.parse_pattern(text)
    branches = tuple(Branch.of(_field(path, leaf) for path, leaf in branch.items()) for branch in parsed)
    return Pattern(branches, frozenset(path.partition(".")[0] for branch in parsed for path in branch))


def _field(path: str, leaf: parsing.Leaf) -> Field:
    return Field(path, leaf.text, compile_test(leaf.conditions), Absent() in leaf.conditions)
