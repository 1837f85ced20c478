"""Canaries in real time under load: one is rolled back by the failures of the new version, the next one, of a version that works, is carried through."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemons import wait_until
from tests.acceptance.functions.test_aliases import CALLS, alias, asked, shares
from tests.acceptance.test_invoke import client, invoke

pytestmark = pytest.mark.acceptance

WAIT_S = ("--wait", "--wait-s", "120")
CANARY_S = 20
CALLS_S_MAX = 60.0


@dataclass
class Load:
    """Calls of the alias `live` by a client of its own, one after the other, until it is stopped."""

    url: str
    event: dict[str, Any]
    got: list[tuple[float, str, bool]] = field(default_factory=list)
    """When each call began, its version, and whether it failed."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        caller = client(self.url)
        try:
            while not self.stopped.wait(0.01):
                began = time.monotonic()
                answer = invoke(caller, "orders", self.event, Qualifier="live")[1]
                self.got.append((began, answer["ExecutedVersion"], "FunctionError" in answer))
        finally:
            caller.close()

    def more(self, calls: int = 3) -> None:
        """Waits until so many more calls are over."""
        seen = len(self.got)
        wait_until(lambda: len(self.got) >= seen + calls, within_s=CALLS_S_MAX)

    def between(self, begin: float, end: float) -> Counter[str]:
        """How many calls each version got between two moments."""
        return Counter(version for at, version, _ in self.got if begin <= at < end)


def under_load(url: str, event: dict[str, Any], work: Callable[[], None]) -> Load:
    """Does some work while the alias is called; returns what the calls got."""
    load = Load(url, event)
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        load.more()
        work()
        # A call that began before the end of the work may be under way.
        load.more()
    finally:
        load.stopped.set()
        thread.join()
    return load


def test_a_canary_that_fails_comes_back_and_one_that_works_goes_on(tmp_path: Path) -> None:
    def use(caller: Any, url: str) -> None:
        words = ("shift", "orders", "live", "--to", "2", "--yes", *WAIT_S)

        def fails() -> None:
            ended = alias(url, *words, "--percent", "30", "--interval-s", "600", "--failure-rate", "0.5")
            assert ended.status == 1, ended
            assert "shift from version 1 to 2: rolled back" in ended.out
            assert "calls of version 2 failed, more than the share 0.5" in ended.out
            assert shares(caller, "live", {}) == {"1": CALLS}

        load = under_load(url, {"fail": True}, fails)
        seen = Counter((version, failed) for _, version, failed in load.got)
        assert seen.keys() == {("1", False), ("2", True)}
        assert seen["2", True] < seen["1", False]
        marks: list[float] = []

        def works() -> None:
            marks.append(time.monotonic())
            ended = alias(url, *words, "--percent", "30", "--interval-s", str(CANARY_S), "--after", "check")
            marks.append(time.monotonic())
            assert (ended.status, "version 2; shift from version 1 to 2: done" in ended.out) == (0, True), (
                ended
            )

        load = under_load(url, {}, works)
        began, done = marks
        assert load.between(0, began).keys() == {"1"}
        canary = load.between(began, began + CANARY_S)
        assert 0 < canary["2"] < canary["1"]
        assert load.between(done, time.monotonic()).keys() == {"2"}
        assert not any(failed for _, _, failed in load.got)

    asked(tmp_path, use)
