"""The checker of versions and aliases finds every wrong history, and lets the right ones pass."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.shift_strategies import own_strategy
from poller.domain.functions.shifts import Shift, ShiftState
from poller.domain.functions.versions import AliasPlan
from poller.domain.records import Epoch
from poller.rules.functions.aliases.alias_state import AliasState
from tests.simulation.calls.call_checks import CallFault, Faults
from tests.simulation.calls.version_checks import KNOWN_S, SLACK_S, VersionLedger

FILE = {"live": AliasPlan(version="1")}
TEN_S = own_strategy(40.0, 10.0, linear=False)
LINEAR = own_strategy(40.0, 10.0, linear=True)
REQUEST = ShiftRequest(to="2", strategy=TEN_S, shift="one", by="ann")
KNOWN = KNOWN_S + 2 * SLACK_S


@dataclass
class Bench:
    """Two workers whose file has `live`, which the store has since 100 s. Both have called both versions before."""

    now: float = 1_000.0
    hindered: set[str] = field(default_factory=set)
    ledger: VersionLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = VersionLedger(
            lambda: self.now, lambda worker, _: worker not in self.hindered, Faults(), Counter()
        )
        for worker in ("ann", "bob"):
            self.ledger.began(worker, FILE)
            self.ledger.workers[worker].opened |= {"1": 0.0, "2": 0.0}
        self.write(AliasState(version="1", revision_id="", modified=Epoch(self.now), file=FILE["live"]))
        self.ledger.knows("bob", 1, {"live": self.alias})
        self.now += 100.0

    @property
    def alias(self) -> AliasState:
        return self.ledger.history[-1].aliases["live"]

    @property
    def shift(self) -> Shift:
        assert self.alias.shift is not None
        return self.alias.shift

    def write(self, alias: AliasState, worker: str = "ann") -> None:
        revision = len(self.ledger.history) + 1
        aliases: Mapping[str, AliasState] = {"live": alias}
        self.ledger.was_written(worker, revision, aliases)
        self.ledger.knows(worker, revision, aliases)

    def change(self, **changes: Any) -> None:
        self.write(replace(self.alias, **changes))

    def ask(self, **changes: Any) -> None:
        """Somebody asks for a shift, and it begins."""
        asked = replace(REQUEST, **changes)
        self.ledger.shifts[asked.shift] = "live", asked
        self.begin(asked)

    def begin(self, asked: ShiftRequest, **changes: Any) -> None:
        at = Epoch(self.now)
        hooked = asked.before is not None
        shift = Shift(
            shift=asked.shift,
            old=self.alias.version,
            new=asked.to,
            strategy=asked.strategy,
            state=ShiftState.BEFORE if hooked else ShiftState.SHIFTING,
            accepted=at,
            began=None if hooked else at,
            before=asked.before,
            after=asked.after,
            failure_rate=asked.failure_rate,
        )
        self.change(shift=replace(shift, **changes))

    def step(self, state: ShiftState, worker: str = "ann", **changes: Any) -> None:
        version = self.shift.new if state is ShiftState.DONE else self.shift.old
        at = Epoch(self.now)
        times = {"moved": at} if state in {ShiftState.AFTER, ShiftState.DONE} else {}
        if state in {ShiftState.DONE, ShiftState.ROLLED_BACK}:
            times["ended"] = at
        after = replace(self.shift, state=state, **(times | changes))
        self.write(replace(self.alias, version=version, shift=after), worker)

    def call(self, version: str, text: str = "call", worker: str = "ann", qualifier: str = "live") -> None:
        self.ledger.called(worker, text, qualifier, version)

    def fail(self, calls: int, worker: str = "ann", version: str = "2") -> None:
        for _ in range(calls):
            self.ledger.told(worker, "live", version, failed=True)


def done() -> Bench:
    bench = Bench()
    bench.call("1", "low")
    bench.call("1", "high", "bob")
    bench.ask()
    bench.call("2", "low")
    # The other one may not know yet.
    bench.call("1", "low", "bob")
    bench.now += KNOWN
    bench.call("2", "low", "bob")
    bench.call("1", "high", "bob")
    bench.now += 10.0
    bench.step(ShiftState.DONE)
    bench.now += KNOWN
    bench.call("2", "high", "bob")
    return bench


def growing() -> Bench:
    bench = Bench()
    bench.ask(strategy=LINEAR, before="hook")
    bench.call("1", "second")
    bench.ledger.hooks["one", ShiftState.BEFORE].add(True)
    bench.step(ShiftState.SHIFTING, began=Epoch(bench.now))
    bench.call("1", "second")
    bench.now += 11.0
    bench.call("2", "second")
    bench.now += 10.0
    bench.step(ShiftState.DONE)
    return bench


def rolled_back_by_hand() -> Bench:
    bench = Bench()
    bench.ask()
    bench.call("2")
    bench.ledger.rollbacks.add("live")
    bench.step(ShiftState.ROLLED_BACK, ended_because="by ann")
    bench.now += KNOWN
    bench.call("1")
    return bench


def rolled_back_by_failures() -> Bench:
    bench = Bench()
    bench.ask(failure_rate=0.5)
    bench.now += KNOWN
    bench.fail(10)
    bench.step(ShiftState.ROLLED_BACK, ended_because="10 of 10 calls of version 2 failed")
    return bench


def weighted() -> Bench:
    bench = Bench()
    bench.ledger.changes.append(("live", AliasChange(version="1", weights={"2": 0.3})))
    bench.change(weights={"2": 0.3})
    bench.call("2", "low")
    bench.call("1", "high")
    bench.call("2", "any", qualifier="2")
    bench.call("$LATEST", "any", qualifier="")
    return bench


def hindered() -> Bench:
    bench = Bench(hindered={"bob"})
    bench.ask()
    bench.now += 10.0
    bench.step(ShiftState.DONE)
    bench.now += 60.0
    bench.call("1", worker="bob")
    return bench


@pytest.mark.parametrize(
    "history",
    [done, growing, rolled_back_by_hand, rolled_back_by_failures, weighted, hindered],
    ids=lambda it: it.__name__,
)
def test_a_right_history_passes(history: Callable[[], Bench]) -> None:
    history().ledger.check_end()


def another_version_than_asked_for(bench: Bench) -> None:
    bench.call("1", qualifier="2")


def a_version_without_a_share(bench: Bench) -> None:
    bench.call("2")


def the_new_version_before_its_hook(bench: Bench) -> None:
    bench.ask(before="hook")
    bench.call("2")


def the_old_version_when_all_is_moved(bench: Bench) -> None:
    bench.ask()
    bench.now += 11.0
    bench.call("1")


def a_retry_on_another_version(bench: Bench) -> None:
    bench.ask()
    bench.now += 0.1
    bench.call("2")
    bench.call("1")


def a_retry_that_goes_over_without_need(bench: Bench) -> None:
    bench.ask()
    bench.now += 0.1
    bench.call("1")
    bench.call("2")


def workers_that_choose_differently(bench: Bench) -> None:
    bench.ask()
    bench.now += KNOWN
    bench.call("2")
    bench.call("1", worker="bob")


def a_rolled_back_version_called_late(bench: Bench) -> None:
    bench.ask()
    bench.ledger.rollbacks.add("live")
    bench.step(ShiftState.ROLLED_BACK, ended_because="by ann")
    bench.now += KNOWN
    bench.call("2", worker="bob")


def a_rolled_back_version_called_by_who_wrote_it(bench: Bench) -> None:
    bench.ask()
    bench.ledger.rollbacks.add("live")
    bench.step(ShiftState.ROLLED_BACK, ended_because="by ann")
    bench.now += 0.1
    bench.call("2")


def done_too_early(bench: Bench) -> None:
    bench.ask()
    bench.now += 9.0
    bench.step(ShiftState.DONE)


def moved_without_the_hook(bench: Bench) -> None:
    bench.ask(before="hook")
    bench.ledger.hooks["one", ShiftState.BEFORE].add(False)
    bench.step(ShiftState.SHIFTING, began=Epoch(bench.now))


def done_without_the_hook(bench: Bench) -> None:
    bench.ask(after="hook")
    bench.now += 10.0
    bench.step(ShiftState.DONE)


def done_in_spite_of_failures(bench: Bench) -> None:
    bench.ask(failure_rate=0.5)
    bench.now += KNOWN
    bench.fail(10)
    bench.now += 10.0
    bench.step(ShiftState.DONE)


def rolled_back_without_a_request(bench: Bench) -> None:
    bench.ask()
    bench.step(ShiftState.ROLLED_BACK, ended_because="by ann")


def rolled_back_without_failures(bench: Bench) -> None:
    bench.ask(failure_rate=0.5)
    bench.fail(20, version="1")
    bench.step(ShiftState.ROLLED_BACK, ended_because="10 of 10 calls of version 2 failed")


def rolled_back_without_a_hook(bench: Bench) -> None:
    bench.ask(after="hook")
    bench.step(ShiftState.ROLLED_BACK, ended_because="the hook hook did not succeed: no")


def rolled_back_to_the_new_version(bench: Bench) -> None:
    bench.ask()
    bench.ledger.rollbacks.add("live")
    after = replace(bench.shift, state=ShiftState.ROLLED_BACK, ended_because="by ann")
    bench.change(version="2", shift=after)


def going_back_a_step(bench: Bench) -> None:
    bench.ask(after="hook")
    bench.now += 10.0
    bench.step(ShiftState.AFTER)
    bench.step(ShiftState.SHIFTING)


def shifted_by_nobody(bench: Bench) -> None:
    bench.begin(REQUEST)


def shifted_otherwise(bench: Bench) -> None:
    bench.ledger.shifts["one"] = "live", REQUEST
    bench.begin(replace(REQUEST, strategy=LINEAR))


def another_shift_in_one_that_runs(bench: Bench) -> None:
    bench.ask()
    bench.ask(shift="two", to="3")


def changed_by_nobody(bench: Bench) -> None:
    bench.change(version="2")


def changed_while_it_is_shifted(bench: Bench) -> None:
    bench.ask()
    bench.change(weights={"3": 0.1})


def a_file_written_again(bench: Bench) -> None:
    bench.ledger.workers["bob"].file = {"live": AliasPlan(version="2")}
    for version in ("2", "1", "2"):
        file = AliasPlan(version=version)
        bench.write(replace(bench.alias, version=version, file=file), "ann" if version == "1" else "bob")


def never_over(bench: Bench) -> None:
    bench.ask()
    bench.ledger.check_end()


WRONG: dict[Callable[[Bench], None], str] = {
    another_version_than_asked_for: "a call of 2 got version 1",
    a_version_without_a_share: "has called version 2",
    the_new_version_before_its_hook: "has called version 2",
    the_old_version_when_all_is_moved: "has called version 1",
    a_retry_on_another_version: "has called version 1",
    a_retry_that_goes_over_without_need: "has called version 2",
    workers_that_choose_differently: "bob has called version 1",
    a_rolled_back_version_called_late: "bob has called version 2",
    a_rolled_back_version_called_by_who_wrote_it: "ann has called version 2",
    done_too_early: "before its time",
    moved_without_the_hook: "before its hook before had succeeded",
    done_without_the_hook: "before its hook after had succeeded",
    done_in_spite_of_failures: "10 of 10 calls of the shift of live failed on ann",
    rolled_back_without_a_request: "nobody asked for a roll-back",
    rolled_back_without_failures: "live was rolled back on ann: 10 of 10",
    rolled_back_without_a_hook: "no hook of live has failed",
    rolled_back_to_the_new_version: "live leads to 2",
    going_back_a_step: "went from after to shifting",
    shifted_by_nobody: "nobody asked for the shift one",
    shifted_otherwise: "live is shifted as",
    another_shift_in_one_that_runs: "a step of live has changed its shift",
    changed_by_nobody: "nobody asked for live to be as it is",
    changed_while_it_is_shifted: "was changed while it was shifted",
    a_file_written_again: "of its file again",
    never_over: "is still being shifted",
}


@pytest.mark.parametrize("history", WRONG, ids=lambda it: it.__name__)
def test_a_wrong_history_is_found(history: Callable[[Bench], None]) -> None:
    bench = Bench()
    with pytest.raises(CallFault, match=WRONG[history]):
        history(bench)
    assert len(bench.ledger.faults.found) == 1
