"""Owns what `poller run` reports about itself: an event when it begins, an event when it ends, and the counts in between."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from poller.commands.root.problems import FAILED
from poller.commands.run.early_signals import INTERRUPTED
from poller.commands.run.ending import CancelledFromInside
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration, PortError
from poller.domain.invocations import Ended
from poller.domain.plan import CallLimit, DaemonPlan
from poller.domain.telemetry.daemon_events import DaemonEnded, DaemonStarting, StopCutShort
from poller.domain.telemetry.mapping_events import Discarded, InvocationFinished
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.plugins import Registry
from poller.ports import Clock
from poller.runtime.mappings.call_limits import configured_call_limit

DISTRIBUTION = "esm-poller"
FUNCTIONS_TOLD_MAX = 20
REASON_CHARS_MAX = 500


class Counts:
    """An observer that counts what the daemon did, and keeps the event about what its end left unfinished."""

    def __init__(self) -> None:
        self.calls = 0
        self.failed = 0
        self.records = 0
        self.discarded = 0
        self.cut_short: StopCutShort | None = None
        """What the daemon's end left unfinished; None if nothing."""
        self._ways: dict[type, Callable[[Any], None]] = {
            InvocationFinished: self._finished,
            Discarded: self._discarded,
            StopCutShort: self._cut_short,
        }

    def wants(self, kind: type[AnyTelemetryEvent]) -> bool:
        """Whether events of this type are counted."""
        return kind in self._ways

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        way = self._ways.get(type(event))
        if way is not None:
            way(event)

    def _finished(self, event: InvocationFinished) -> None:
        self.calls += 1
        if event.ended is not Ended.SUCCESS:
            self.failed += 1
        self.records += event.records - event.failed

    def _discarded(self, event: Discarded) -> None:
        self.discarded += event.records

    def _cut_short(self, event: StopCutShort) -> None:
        self.cut_short = event


class RunReport:
    """The report of one run. `counts` must be one of the daemon's observers."""

    def __init__(self, clock: Clock) -> None:
        self.counts = Counts()
        self._clock = clock
        self._began = clock.monotonic()
        self._signals: list[str] = []

    def on_signal(self, name: str) -> None:
        """A signal asked the daemon to stop."""
        self._signals.append(name)

    def exit_status(self, error: BaseException | None, left: Sequence[str] = ()) -> int:
        """The exit status of a run that ended with `error`; `left` names the tasks that did not end.

        It is 0 only if all running calls finished. A call that was cancelled is a failure, whatever the cause.
        """
        return exit_status(error) or (INTERRUPTED if left or self._cut_off else 0)

    def ended(self, error: BaseException | None, left: Sequence[str] = ()) -> DaemonEnded:
        """The event about the end of the run. `left` names the tasks that did not end."""
        counts = self.counts
        return DaemonEnded(
            reason=line_of(self._reason(error), chars_max=REASON_CHARS_MAX),
            exit_status=self.exit_status(error, left),
            ran_s=self._clock.monotonic() - self._began,
            calls=counts.calls,
            calls_failed=counts.failed,
            calls_cut_off=self._cut_off,
            records=counts.records,
            discarded=counts.discarded,
            handed_back=counts.cut_short.handed_back if counts.cut_short else 0,
        )

    @property
    def _cut_off(self) -> int:
        return self.counts.cut_short.calls_cut_off if self.counts.cut_short else 0

    def _reason(self, error: BaseException | None) -> str:
        asked = ", then ".join(self._signals[:2])
        if error is None and asked and self._cut_off:
            return f"{asked}: the grace time was over before all that ran had finished"
        if error is None:
            return asked or "it had nothing more to do"
        causes = _causes(error)
        if asked and all(isinstance(each, asyncio.CancelledError) for each in causes):
            return f"{asked}: what still ran was cancelled"
        said = "; ".join(_said(each) for each in causes if not isinstance(each, asyncio.CancelledError))
        return f"{said} (after {asked})" if asked else said


@contextmanager
def faults_logged() -> Iterator[None]:
    """Logs the stack trace of a fault of the daemon. Other errors have texts of their own."""
    try:
        yield
    except BaseException as error:
        if any(_is_fault(each) for each in _causes(error)):
            logging.getLogger("poller.daemon").error("the daemon ends by a fault", exc_info=error)
        raise


def problems_of(error: BaseException | None, *, place: str) -> list[str]:
    """The problems that prevent the daemon from running and that users can correct, one line each; those of settings with `place`."""
    problems: list[str] = []
    for each in _causes(error):
        match each:
            case InvalidConfiguration():
                problems += [f"{place}: {problem}" for problem in each.problems]
            case PortError():
                problems.append(each.reason)
            case OSError():
                problems.append(str(each))
            case _:
                pass
    return problems


def faults_of(error: BaseException | None) -> list[str]:
    """The faults that ended the daemon, one line each."""
    faults: list[str] = []
    for each in _causes(error):
        match each:
            case CancelledFromInside():
                faults.append(str(each))
            case SystemExit() | KeyboardInterrupt():
                faults.append(
                    f"the daemon was ended from inside by {type(each).__name__}, as by a function's callback on the loop"
                )
            case _ if _is_fault(each):
                faults.append(f"the daemon was ended by a fault of its own, {_said(each)}; start it again")
            case _:
                pass
    return faults


def _is_fault(error: BaseException) -> bool:
    expected = (InvalidConfiguration, PortError, OSError, CancelledFromInside)
    return isinstance(error, Exception) and not isinstance(error, expected)


def starting(
    settings: Settings, plan: DaemonPlan, registry: Registry, *, listen: object, file: Path | None
) -> DaemonStarting:
    """The event about the start. `listen` is the address with the real port."""
    services = sorted(settings.endpoint_urls.items())
    everywhere = [settings.endpoint_url] if settings.endpoint_url else []
    return DaemonStarting(
        version=version(DISTRIBUTION),
        configuration="" if file is None else str(file),
        worker=str(plan.worker),
        store=settings.store.partition("?")[0],
        listen=str(listen),
        region=settings.region or "",
        endpoints=(*everywhere, *(f"{service}: {url}" for service, url in services)),
        mappings=len(plan.mappings),
        functions=_functions(plan, registry),
    )


def _functions(plan: DaemonPlan, registry: Registry) -> tuple[str, ...]:
    shown = [
        f"{each.name}: {each.invoker}, {_calls(configured_call_limit(each, registry))}"
        for each in list(plan.functions.values())[:FUNCTIONS_TOLD_MAX]
    ]
    more = len(plan.functions) - len(shown)
    return (*shown, f"and {more} more") if more > 0 else tuple(shown)


def _calls(limit: CallLimit) -> str:
    calls = limit.calls
    some = "any number of calls" if calls is None else number_of(calls, "call")
    if not limit.known:
        return "calls at once known when it is loaded" + ("" if calls is None else f", at most {calls}")
    return f"{some} at once"


def exit_status(error: BaseException | None) -> int:
    """The exit status of a run that ended with this error."""
    if error is None:
        return 0
    expected = (InvalidConfiguration, PortError, OSError)
    return FAILED if all(isinstance(each, expected) for each in _causes(error)) else INTERRUPTED


def leaves[E: BaseException](group: BaseExceptionGroup[E]) -> Iterator[E]:
    """The errors of a group and of its nested groups."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each


def _causes(error: BaseException | None) -> list[BaseException]:
    if error is None:
        return []
    return list(leaves(error)) if isinstance(error, BaseExceptionGroup) else [error]


def _said(error: BaseException) -> str:
    match error:
        case InvalidConfiguration():
            return f"wrong configuration: {_several(error.problems)}"
        case PortError():
            return error.reason
        case CancelledFromInside():
            return str(error)
        case _:
            return f"{type(error).__name__}: {error}"


def _several(problems: Sequence[str]) -> str:
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else ""
