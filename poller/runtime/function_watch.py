"""Owns the settings of functions at their service, such as Lambda: looked up when a mapping starts, and updated after that.

The service ends such a function at its time limit, not the daemon. If the daemon gave up a call before that, it would call the
function again while the first run still goes on. So it waits for a call as long as the function may run. If the limit is not
known, it waits for the service's longest limit. The limit may be raised while a call runs. So it is looked up again when a call has
taken as long as the last known limit, before the call is given up.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from poller.domain.errors import AccessDenied, InvalidConfiguration, PortError
from poller.domain.function_facts import FunctionFacts
from poller.domain.plan import FunctionPlan
from poller.domain.telemetry.daemon_events import FunctionChanged
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.observers import Observer
from poller.ports import FunctionLookup
from poller.runtime.foreign_calls import isolated
from poller.runtime.stopping import wait_until
from poller.runtime.watched_tasks import WatchedTasks, reason_of

LIMIT_S_MAX = 900.0
"""Lambda's longest time limit. It is used for a function whose own limit is not known."""
REFRESH_S = 300.0
"""The interval between two lookups of a function, also after a lookup that was denied."""
RETRY_S = 30.0
"""The wait after a lookup that failed for another reason."""
AGAIN_S = 5.0
"""A function is not looked up on request if the last lookup was less than this long ago."""
LOOKUP_S_MAX = 10.0
"""How long one lookup may take before it counts as failed."""


@dataclass(slots=True)
class _Known:
    """What is known about one ARN. With `trouble` the last lookup failed, and `facts` are older."""

    facts: FunctionFacts | None = None
    trouble: str = ""
    due: float = -math.inf
    looked: float = -math.inf
    users: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Allows one lookup at a time, because many mappings may start at once."""


class FunctionWatch:
    """The settings of one function, for each ARN by which mappings call it. `changed` is called after each change."""

    def __init__(
        self, plan: FunctionPlan, lookup: FunctionLookup, observer: Observer, changed: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._lookup = lookup
        self._observer = observer
        self._changed = changed
        self._known: dict[str, _Known] = {}
        self._woken = asyncio.Event()
        self._left_behind: set[asyncio.Task[None]] = set()
        """Lookups that did not end at their time limit. They are kept here because nothing else references their tasks."""

    def facts(self, function_arn: str) -> FunctionFacts | None:
        """The settings that the service gave last; None if it has not given any."""
        known = self._known.get(function_arn)
        return None if known is None else known.facts

    def limit_s(self, function_arn: str) -> float:
        """How long a call may take: the function's own limit, or the configured one if that is longer."""
        configured_s = self._plan.timeout_s or 0.0
        known = self._known.get(function_arn)
        if known is None or known.facts is None or known.trouble:
            return max(LIMIT_S_MAX, configured_s)
        return max(known.facts.timeout_s, configured_s)

    def notes(self) -> Iterator[str]:
        """One line for people for each ARN with a problem."""
        for arn, known in self._known.items():
            if known.trouble:
                yield (
                    f"function {arn}: its own time limit is not known, calls are given up after"
                    f" {self.limit_s(arn):g} s: {known.trouble}"
                )
            elif known.facts is not None and known.facts.trouble:
                yield f"function {arn}: {known.facts.trouble}"

    @asynccontextmanager
    async def used_by(self, function_arn: str) -> AsyncIterator[None]:
        """Registers a mapping that calls this ARN: the ARN is looked up on entry, and updated as long as a mapping uses it."""
        known = self._known.setdefault(function_arn, _Known())
        known.users += 1
        try:
            await self._look_up(function_arn, known)
            self._woken.set()
            yield
        finally:
            known.users -= 1
            if not known.users:
                del self._known[function_arn]

    def ask(self, function_arn: str) -> None:
        """Requests a lookup of an ARN soon, because its settings may have changed."""
        known = self._known.get(function_arn)
        if known is not None:
            known.due = min(known.due, known.looked + AGAIN_S)
            self._woken.set()

    async def follow(self) -> None:
        """Looks up ARNs when they are due, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._woken.clear()
            async with WatchedTasks(self._observer) as lookups:
                for arn, known in self._known.items():
                    if known.due <= loop.time():
                        lookups.start(TaskKind.FUNCTION_FACTS, self._look_up(arn, known), of=arn)
            wait_s = min((known.due for known in self._known.values()), default=math.inf) - loop.time()
            await wait_until(self._woken, min(max(wait_s, 0.0), REFRESH_S))

    async def _look_up(self, function_arn: str, known: _Known) -> bool:
        """Looks an ARN up unless that was just done. Returns whether it was looked up."""
        async with known.turn:
            needed = asyncio.get_running_loop().time() >= known.looked + AGAIN_S
            if needed:
                await self._look_up_now(function_arn, known)
            return needed

    async def _look_up_now(self, function_arn: str, known: _Known) -> None:
        facts, trouble, again_s = known.facts, "", REFRESH_S
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                facts = await isolated(
                    self._lookup.describe_function,
                    function_arn,
                    name=f"look at {function_arn}",
                    left_behind=self._leave_behind,
                )
        except AccessDenied as error:
            trouble = f"{error.reason}; allow it in the role's policy (docs/operate/iam.md)"
        except PortError as error:
            trouble, again_s = error.reason, RETRY_S
        except InvalidConfiguration as error:
            trouble = "; ".join(error.problems)
        except TimeoutError:
            trouble, again_s = f"no answer within {LOOKUP_S_MAX:g} s", RETRY_S
        except Exception as error:  # noqa: BLE001 - foreign code: a plug-in may raise anything
            trouble, again_s = reason_of(error), RETRY_S
        known.looked = asyncio.get_running_loop().time()
        known.due = known.looked + again_s
        if (facts, trouble) != (known.facts, known.trouble):
            known.facts, known.trouble = facts, trouble
            self._emit_changed(function_arn, known)
            self._changed()

    def _leave_behind(self, look: asyncio.Task[None]) -> None:
        self._left_behind.add(look)
        look.add_done_callback(self._left_behind.discard)

    def _emit_changed(self, function_arn: str, known: _Known) -> None:
        facts = known.facts
        self._observer.on(
            FunctionChanged(
                function=self._plan.name,
                function_arn=function_arn,
                limit_s=self.limit_s(function_arn),
                known=not known.trouble,
                reason=known.trouble or ("" if facts is None else facts.trouble),
            )
        )
