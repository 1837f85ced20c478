"""Owns what must hold of versions and aliases: which version each call gets, and how shifts move.

1. A call by a version, or by nothing, gets that version. A call by an alias gets a version to which the alias leads as its worker may know it:
   as the store has it, or had it a moment ago (KNOWN_S).
2. Each call and each batch has one point between 0 and 1, whatever it is computed from: it gets the new version while that one's share is above
   its point. So its retries stay on their version, unless the share has passed the point, and they never go back while a share grows.
3. An alias changes only as somebody asked, as a file says, or by a step of its shift. A step comes when the strategy says so, or when the hook has
   answered, and a shift is rolled back for a reason only. It must be rolled back when too many calls of the new version fail.
4. In the end no shift runs.

The shares are computed here from the strategy, not by the engine's rule.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import floor

from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.shifts import CALLS_MIN, ENDED, Shift, ShiftState, ShiftStrategy
from poller.domain.functions.versions import AliasPlan
from poller.rules.functions.aliases.alias_state import FILE_CHANGED, AliasState
from poller.rules.functions.aliases.shift_steps import HOOK_S_MAX
from tests.simulation.calls.call_checks import Faults

LATEST = "$LATEST"
KNOWN_S = 4.0
"""By then each worker knows that an alias has changed, as docs/use/versions.md says."""
KNOWN_SHIFTING_S = 2.0
"""The same while the alias is being shifted."""
SLACK_S = 1.0
"""What slow calls of the store may add."""
OPENED_S = 10.0
"""A version that is called on a worker for the first time is noted in the store before, which takes this long at most."""
ROLLED_BACK_S = 4.0
"""So long after too many failures a shift is rolled back, if nothing is in the way."""
WHOLE = 1.0
STATES = [
    ShiftState.BEFORE,
    ShiftState.SHIFTING,
    ShiftState.AFTER,
    ShiftState.DONE,
    ShiftState.ROLLED_BACK,
]

type Interval = tuple[float, float]
"""The points that a call may have: from the first one on, below the second one."""


def share_of(strategy: ShiftStrategy, passed_s: float) -> float:
    """The share of the new version so long after the first share."""
    if strategy.interval_s <= 0:
        return WHOLE
    steps = floor(passed_s / strategy.interval_s)
    if strategy.linear:
        return min(WHOLE, strategy.percent * (steps + 1) / 100)
    return WHOLE if steps else strategy.percent / 100


@dataclass(frozen=True, slots=True)
class Way:
    """Where calls go: to `version`, but a share of them to `other`, between `low` and `high` at some time."""

    version: str
    other: str = ""
    low: float = 0.0
    high: float = 0.0

    def points(self, version: str) -> Interval:
        """The points of calls that get this version; none if it is empty."""
        if version == self.other:
            return 0.0, self.high
        return (self.low, WHOLE) if version == self.version else (0.0, 0.0)


def way_of(alias: AliasState, began: float, ends: float) -> Way:
    """Where the calls of an alias go between two times."""
    shift = alias.shift
    if shift is None or shift.state in ENDED:
        return _weighted(alias.version, alias.weights)
    match shift.state:
        case ShiftState.SHIFTING:
            assert shift.began is not None
            low, high = (
                share_of(shift.strategy, max(0.0, at - shift.began)) for at in (began - 1e-6, ends + 1e-6)
            )
        case ShiftState.AFTER:
            low = high = WHOLE
        case _:
            low = high = 0.0
    return Way(shift.old, shift.new, low, high)


def _weighted(version: str, weights: Mapping[str, float]) -> Way:
    other, share = next(iter(weights.items()), ("", 0.0))
    return Way(version, other, share, share)


@dataclass(frozen=True, slots=True)
class Written:
    """The aliases of the function as the store has had them since `at`."""

    at: float
    revision: int
    aliases: Mapping[str, AliasState]


@dataclass(slots=True)
class Seen:
    """What one worker knows, and when its calls of the new version of a shift ended, and whether they failed."""

    file: Mapping[str, AliasPlan]
    ahead: set[str]
    """Aliases of its file that the store does not have so, as far as it knows."""
    adopted: set[str] = field(default_factory=set)
    revisions: list[tuple[float, int]] = field(default_factory=list)
    """The revision of the row that it knew, since when."""
    opened: dict[str, float] = field(default_factory=dict)
    """When it called each version first."""
    calls: dict[tuple[str, str], list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True)
class VersionLedger:
    """What the store was told of aliases, and which version each call got. `healthy` says whether a worker was never hindered since a time."""

    clock: Callable[[], float]
    healthy: Callable[[str, float], bool]
    faults: Faults
    marks: Counter[str]
    history: list[Written] = field(default_factory=list)
    workers: dict[str, Seen] = field(default_factory=dict)
    points: dict[str, list[Interval]] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    """The last version of each call or batch."""
    shifts: dict[str, tuple[str, ShiftRequest]] = field(default_factory=dict)
    """The alias and the request of each shift that was asked for, by its id."""
    rollbacks: set[str] = field(default_factory=set)
    """Aliases of which somebody asked for a roll-back."""
    changes: list[tuple[str, AliasChange]] = field(default_factory=list)
    hooks: dict[tuple[str, ShiftState], set[bool]] = field(default_factory=lambda: defaultdict(set))
    """How the hooks of each shift have answered."""

    def began(self, worker: str, files: Mapping[str, AliasPlan]) -> None:
        """A worker has started, with these aliases in its file."""
        self.workers[worker] = Seen(dict(files), set(files))

    def knows(self, worker: str, revision: int, aliases: Mapping[str, AliasState]) -> None:
        """The store has answered a worker with this row."""
        seen = self.workers[worker]
        seen.revisions.append((self.clock(), revision))
        for name, plan in seen.file.items():
            found = aliases.get(name)
            if found is not None and (found.file == plan or name in seen.adopted):
                seen.ahead.discard(name)

    def was_written(self, worker: str, revision: int, aliases: Mapping[str, AliasState]) -> None:
        """A worker has written the row."""
        before = self.history[-1].aliases if self.history else {}
        self.history.append(Written(self.clock(), revision, dict(aliases)))
        for name in before.keys() | aliases.keys():
            old, new = before.get(name), aliases.get(name)
            if old != new:
                self.faults.require(new is not None, f"the alias {name} is gone")
                assert new is not None
                self._changed(worker, name, old, new)

    def called(self, worker: str, text: str, qualifier: str, version: str) -> None:
        """A version is called."""
        opened = self.workers[worker].opened.setdefault(version, self.clock())
        if qualifier in {"", LATEST} or qualifier.isdigit():
            wanted = qualifier or LATEST
            self.faults.require(version == wanted, f"a call of {wanted} got version {version}")
            return
        since = self.clock() - (OPENED_S + SLACK_S if self.clock() <= opened + OPENED_S else 0.0)
        ways = list(self._ways(worker, qualifier, since))
        allowed = [each for way in ways if (each := way.points(version))[0] < each[1]]
        key = f"{qualifier} {text}"
        left = _meeting(self.points.get(text, [(0.0, WHOLE)]), allowed)
        self.faults.require(
            bool(left),
            f"{worker} has called version {version} for {key}, whose point is in {self.points.get(text)}; it may be in {allowed} by {ways}",
        )
        self.points[text] = left
        before = self.last.get(key)
        self.last[key] = version
        if before is not None:
            self.marks["tried again on its version" if before == version else "tried again on another"] += 1
        self.marks[f"alias call of version {version}"] += 1

    def told(self, worker: str, alias: str, version: str, *, failed: bool) -> None:
        """A call of an alias has ended."""
        self.workers[worker].calls[alias, version].append((self.clock(), failed))

    def check_end(self) -> None:
        """Each alias leads somewhere, and no shift runs."""
        for name, alias in self.history[-1].aliases.items():
            shift = alias.shift
            self.faults.require(
                shift is None or shift.state in ENDED, f"the alias {name} is still being shifted"
            )
            if shift is not None:
                self.marks[f"shift {shift.state}"] += 1

    def _ways(self, worker: str, alias: str, since: float) -> Iterator[Way]:
        """Where calls of an alias may go that a worker has begun since then."""
        now, seen = self.clock(), self.workers[worker]
        plan = seen.file[alias] if alias in seen.ahead else None
        if plan is not None and not self.history:
            yield _weighted(plan.version, plan.weights)
        known = max((revision for at, revision in seen.revisions if at < now), default=-1)
        late = [each.at + self._known_s(at) for at, each in enumerate(self.history)]
        healthy = self.healthy(worker, since - KNOWN_S - SLACK_S)
        for at, written in enumerate(self.history):
            later = self.history[at + 1] if at + 1 < len(self.history) else None
            if later is not None and (
                (since == now and later.revision <= known) or (healthy and late[at + 1] < since)
            ):
                continue
            found = written.aliases.get(alias)
            if plan is not None and (found is None or found.file != plan):
                yield _weighted(plan.version, plan.weights)
            if found is not None:
                yield way_of(found, since, now)
                if found.shift is not None and self._may_have_given_up(worker, alias, found.shift):
                    yield Way(found.shift.old)

    def _may_have_given_up(self, worker: str, alias: str, shift: Shift) -> bool:
        """Whether a worker may have seen too many failures of the new version, and sends it no calls before the store knows."""
        calls = [each for at, each in self.workers[worker].calls[alias, shift.new] if at >= shift.accepted]
        rate = shift.failure_rate
        return rate is not None and len(calls) >= CALLS_MIN and sum(calls) > CALLS_MIN * rate

    def _known_s(self, at: int) -> float:
        """How soon all workers know a write."""
        before = self.history[at - 1].aliases.values() if at else ()
        running = any(each.shift is not None and each.shift.state not in ENDED for each in before)
        return SLACK_S + (KNOWN_SHIFTING_S if running else KNOWN_S)

    def _changed(self, worker: str, name: str, old: AliasState | None, new: AliasState) -> None:
        if old is None or old.file != new.file:
            self._new(worker, name, new)
            return
        same = replace(new, driver=old.driver, modified=old.modified, revision_id=old.revision_id)
        running = None if old.shift is None or old.shift.state in ENDED else old.shift
        if same == old and old.driver != new.driver:
            self.faults.require(running is not None, f"{name} has another driver, and is not shifted")
            self.marks["driver changed"] += 1
        elif old.shift == new.shift:
            self.faults.require(running is None, f"{name} was changed while it was shifted")
            self.faults.require(self._is_asked(name, new), f"nobody asked for {name} to be as it is: {new}")
            self.marks["alias changed"] += 1
        elif running is None:
            self._begun(name, old.version, new)
        else:
            self._stepped(worker, name, running, new)

    def _new(self, worker: str, name: str, new: AliasState) -> None:
        """The store has the alias of a file for the first time, or one that somebody has made. It may be changed in the same write."""
        file = new.file
        if file is not None:
            seen = self.workers[worker]
            self.faults.require(
                seen.file.get(name) == file and name not in seen.adopted,
                f"{worker} has written {name} of its file again, or of no file",
            )
            seen.adopted.add(name)
            self.marks["file taken over"] += 1
        else:
            self.marks["alias made"] += 1
        if file is not None and new.shift is not None and new.shift.state not in ENDED:
            self._begun(name, file.version, new)
            return
        as_file = file is not None and (new.version, new.weights) == (file.version, file.weights)
        self.faults.require(as_file or self._is_asked(name, new), f"nobody asked for {name} to be so: {new}")

    def _is_asked(self, name: str, new: AliasState) -> bool:
        wanted = [change for alias, change in self.changes if alias == name]
        return any((each.version, each.weights) == (new.version, new.weights) for each in wanted)

    def _begun(self, name: str, old: str, new: AliasState) -> None:
        shift = new.shift
        assert shift is not None
        alias, asked = self.shifts.get(shift.shift, ("", None))
        self.faults.require(alias == name, f"nobody asked for the shift {shift.shift} of {name}")
        assert asked is not None
        given = (shift.old, shift.new, shift.strategy, shift.before, shift.after, shift.failure_rate)
        wanted = (old, asked.to, asked.strategy, asked.before, asked.after, asked.failure_rate)
        self.faults.require(given == wanted, f"{name} is shifted as {given} and not as {wanted}")
        state = ShiftState.SHIFTING if asked.before is None else ShiftState.BEFORE
        self.faults.require(shift.state is state, f"a shift of {name} begins as {shift.state}")
        self._leads_to(name, new, shift.old)
        self.marks["shift begun"] += 1

    def _stepped(self, worker: str, name: str, old: Shift, new: AliasState) -> None:
        shift = new.shift
        assert shift is not None
        same = replace(
            shift, state=old.state, began=old.began, moved=old.moved, ended=old.ended, ended_because=""
        )
        self.faults.require(same == old, f"a step of {name} has changed its shift from {old} to {shift}")
        self.faults.require(
            STATES.index(shift.state) > STATES.index(old.state),
            f"a shift of {name} went from {old.state} to {shift.state}",
        )
        self._leads_to(name, new, shift.new if shift.state is ShiftState.DONE else shift.old)
        if shift.state is ShiftState.ROLLED_BACK:
            self._rolled_back(worker, name, old, shift)
            return
        now = self.clock()
        if shift.before is not None:
            self._hook_succeeded(name, shift, ShiftState.BEFORE)
        if shift.state in {ShiftState.AFTER, ShiftState.DONE}:
            began = shift.began
            self.faults.require(
                began is not None and share_of(shift.strategy, now - began + 1e-6) == WHOLE,
                f"{name} has moved {shift.strategy} before its time",
            )
            self._has_not_failed(name, shift, now - ROLLED_BACK_S)
        if shift.state is ShiftState.DONE and shift.after is not None:
            self._hook_succeeded(name, shift, ShiftState.AFTER)

    def _leads_to(self, name: str, new: AliasState, version: str) -> None:
        self.faults.require(
            (new.version, new.weights) == (version, {}), f"{name} leads to {new.version}, {new.weights}"
        )

    def _hook_succeeded(self, name: str, shift: Shift, state: ShiftState) -> None:
        self.faults.require(
            True in self.hooks[shift.shift, state], f"{name} went on before its hook {state} had succeeded"
        )

    def _rolled_back(self, worker: str, name: str, old: Shift, shift: Shift) -> None:
        why, now = shift.ended_because, self.clock()
        since = old.accepted if old.state is ShiftState.BEFORE else old.moved or old.accepted
        if why == FILE_CHANGED:
            self.faults.require(False, f"{name} was rolled back for a file, without a change of it")
        elif why.startswith("by "):
            self.faults.require(name in self.rollbacks, f"nobody asked for a roll-back of {name}")
        elif "did not succeed" in why:
            hooks = self.hooks[shift.shift, ShiftState.BEFORE] | self.hooks[shift.shift, ShiftState.AFTER]
            self.faults.require(False in hooks, f"no hook of {name} has failed")
        elif "has not answered" in why:
            self.faults.require(now - since >= HOOK_S_MAX, f"the hook of {name} has time left")
        else:
            self.faults.require(
                self._may_have_given_up(worker, name, shift), f"{name} was rolled back on {worker}: {why}"
            )
        self.marks[f"rolled back {_kind(why)}"] += 1

    def _has_not_failed(self, name: str, shift: Shift, until: float) -> None:
        """No worker has known for a while that too many calls of the new version failed."""
        for worker, seen in self.workers.items():
            if shift.failure_rate is None or not self.healthy(worker, shift.accepted):
                continue
            mine = [each for each in seen.calls[name, shift.new] if shift.accepted <= each[0]]
            known = [failed for at, failed in mine if shift.accepted + KNOWN_S + SLACK_S <= at <= until]
            self.faults.require(
                len(known) < CALLS_MIN or sum(known) <= shift.failure_rate * len(mine),
                f"{sum(known)} of {len(mine)} calls of the shift of {name} failed on {worker}, and it goes on",
            )


def _kind(why: str) -> str:
    if why.startswith("by "):
        return "by hand"
    return "by a hook" if "hook" in why else "by failures"


def _meeting(some: list[Interval], others: list[Interval]) -> list[Interval]:
    """The points that are in both, in order."""
    found = [(max(a, c), min(b, d)) for a, b in some for c, d in others]
    return sorted({each for each in found if each[0] < each[1]})
