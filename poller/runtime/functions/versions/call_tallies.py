"""Owns the counts of this worker's calls by alias and version since the alias's running shift began."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from poller.domain.functions.shifts import Shift
from poller.rules.functions.aliases.shift_steps import NewCalls, too_many_failures


@dataclass(slots=True)
class _Counts:
    shift: str
    calls: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


class CallTallies:
    """The counts of all aliases. An alias's next shift begins at zero."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Counts] = {}

    def note(self, function: str, alias: str, shift: Shift, version: str, *, failed: bool) -> None:
        """Counts one call. With too many failures the shift is lost: later calls, which began before, do not change that."""
        found = self._counts.get((function, alias))
        if found is None or found.shift != shift.shift:
            found = self._counts[function, alias] = _Counts(shift.shift)
        if too_many_failures(shift, self.new_calls(function, alias, shift)):
            return
        found.calls[version] += 1
        found.failed[version] += failed

    def of(self, function: str, alias: str, shift: Shift | None) -> Mapping[str, tuple[int, int]]:
        """The calls and the failed calls of each version since the shift began."""
        found = self._counts.get((function, alias))
        if found is None or shift is None or found.shift != shift.shift:
            return {}
        return {version: (calls, found.failed[version]) for version, calls in found.calls.items()}

    def new_calls(self, function: str, alias: str, shift: Shift) -> NewCalls:
        """The calls of the shift's new version."""
        return NewCalls(*self.of(function, alias, shift).get(shift.new, (0, 0)))

    def keep(self, aliases: set[tuple[str, str]]) -> None:
        """Forgets the counts of all other aliases."""
        for key in self._counts.keys() - aliases:
            del self._counts[key]
