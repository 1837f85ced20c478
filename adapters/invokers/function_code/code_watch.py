"""Owns when changed code of a function is taken up: a pure machine that is driven by what its files hold.

What counts is the content. A file that was only touched, or written again as it was, has not changed. A change is taken up when
nothing has changed for SETTLE_S, so that a file is not read while it is written, nor a checkout of many files in the middle.

Code that was refused is tried again when something changes, also in the folders of its modules, since the missing piece may be a
new file. It is also tried again from time to time, since the trouble may lie elsewhere, as in a service that the import asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from poller.domain.records import Monotonic

LOOK_S = 0.5
"""The interval between two looks at the files."""
SETTLE_S = 0.5
"""How long the files must stay as they are."""
AGAIN_S = 10.0
"""The wait before code that was refused is tried again although nothing has changed. It doubles each time."""
AGAIN_S_MAX = 300.0

type Contents = Mapping[str, bytes | None]
"""What files hold, as a digest by path; None: there is no such file. A folder's digest is that of its list of names."""


class Step(Enum):
    """What a look leads to."""

    NONE = "none"
    LOAD = "load"
    """Load the code as it is now; then call `took_up` or `refused`."""
    RESTORED = "restored"
    """The files hold the running code again, after other code was refused."""


@dataclass(slots=True)
class _Pending:
    contents: Contents
    since: Monotonic


@dataclass(slots=True)
class _Refused:
    contents: dict[str, bytes | None]
    next_try: Monotonic
    wait_s: float


@dataclass(slots=True)
class CodeWatch:
    """The running code of one function as the contents of its files, and what is known of a change."""

    running: dict[str, bytes | None]
    _pending: _Pending | None = None
    _refused: _Refused | None = None
    _tried: dict[str, bytes | None] = field(default_factory=dict)

    @property
    def paths(self) -> set[str]:
        """The files to look at."""
        return self.running.keys() | self._tried.keys()

    @property
    def with_folders(self) -> bool:
        """Whether the folders of the files are to be looked at, too."""
        return self._refused is not None

    def also(self, contents: Contents) -> None:
        """Files that the running code has imported since."""
        for path, each in contents.items():
            self.running.setdefault(path, each)

    def looked(self, contents: Contents, now: Monotonic) -> Step:
        """Takes what the files hold now."""
        if all(contents.get(path) == held for path, held in self.running.items()):
            return self._as_running()
        if self._refused is not None and not self._news(self._refused, contents):
            if self._pending is not None:
                # It was something else a moment ago, so that it must be still first.
                self._pending = None
                self._refused.next_try = max(self._refused.next_try, Monotonic(now + SETTLE_S))
            return Step.LOAD if now >= self._refused.next_try else Step.NONE
        if self._pending is None or self._pending.contents != contents:
            self._pending = _Pending(contents, now)
        return Step.LOAD if now >= self._pending.since + SETTLE_S else Step.NONE

    def took_up(self, contents: Contents) -> None:
        """The code with these contents runs from now on."""
        self.running = dict(contents)
        self._pending = self._refused = None
        self._tried = {}

    def refuse(self, contents: Contents, tried: Contents, now: Monotonic) -> None:
        """The code was refused. `tried` are the files that it consists of, as far as it was loaded."""
        before = self._refused
        wait_s = AGAIN_S if before is None else min(2 * before.wait_s, AGAIN_S_MAX)
        same = before is not None and not self._news(before, {**contents, **tried})
        wait_s = wait_s if same else AGAIN_S
        self._tried = dict(tried)
        self._refused = _Refused({**contents, **tried}, Monotonic(now + wait_s), wait_s)
        self._pending = None

    def _as_running(self) -> Step:
        refused, self._pending, self._refused, self._tried = self._refused, None, None, {}
        return Step.NONE if refused is None else Step.RESTORED

    @staticmethod
    def _news(refused: _Refused, contents: Contents) -> bool:
        """Whether something differs from the code that was refused. What is looked at for the first time does not."""
        for path, held in contents.items():
            refused.contents.setdefault(path, held)
        return any(refused.contents[path] != held for path, held in contents.items())
