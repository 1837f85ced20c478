"""`poller run` says what it is when it begins and how it ended, in one event each, whatever ended it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from adapters.observers import logs
from adapters.observers.logs import LogSettings, open_logs
from poller.commands.run.command import run_daemon
from poller.commands.run.ending import CancelledFromInside
from poller.commands.run.engine import Engine
from poller.commands.run.report import RunReport, exit_status, starting
from poller.config.daemon_plan import daemon_plan
from poller.config.settings import FunctionEntry, Settings
from poller.domain.errors import AccessDenied, InvalidConfiguration, ServiceUnavailable
from poller.domain.invocations import Ended
from poller.domain.plan import DaemonPlan
from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import DaemonEnded, DaemonStarting, StopCutShort, StoreFailed
from poller.domain.telemetry.mapping_events import InvocationFinished, PortFailed, Released
from poller.domain.telemetry.observers import AnyTelemetryEvent, Observer
from poller.output.last_words import LastWords
from poller.plugins import Environment, Plugin, Registry
from poller.testing.telemetry_events import SetClock, discarded
from tests.commands.test_cli import Anything, Diary, FakeEngine, plug_ins, simple
from tests.hostile_texts import HOSTILE

MAPPING = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb01")


class Told:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[AnyTelemetryEvent] = []
        self.closed = False

    def on(self, event: AnyTelemetryEvent) -> None:
        assert not self.closed
        self.events.append(event)

    def end(self, event: DaemonEnded) -> str:
        """The last line of all."""
        assert self.closed
        self.events.append(event)
        return ""

    @asynccontextmanager
    async def opened(self, _: BaseModel, env: Environment) -> AsyncIterator["Told"]:
        """As the log is opened."""
        env.last_words.end = self.end
        try:
            yield self
        finally:
            self.closed = True


class Overheard:
    """Plug-ins with this one in place of the log."""

    def __init__(self, registry: Registry, log: Plugin[Any, Any]) -> None:
        self._registry = registry
        self._log = log

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        return self._log if name == "logs" else self._registry.plugin(kind, name)


def run(engine: FakeEngine, *, listen_error: OSError | None = None) -> tuple[list[AnyTelemetryEvent], int]:
    """What one run told, and its exit status."""
    told = Told()
    log = Plugin("logs", Anything, told.opened)
    registry = Overheard(plug_ins(Diary(), listen_error=listen_error), log)
    return told.events, run_daemon(simple(), registry, engine.make, place="f")


ENDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "one signal": ({"signals": 1}, 0, "SIGTERM"),
    "two signals": (
        {"signals": 2, "stubborn": True},
        1,
        "SIGTERM, then SIGTERM: what still ran was cancelled",
    ),
    "its configuration": (
        {"signals": 0, "error": InvalidConfiguration(["functions.a: no module", "b"])},
        2,
        "wrong configuration: functions.a: no module (and 1 more problems)",
    ),
    "the store": (
        {"signals": 0, "error": AccessDenied("the store may not be read")},
        2,
        "the store may not be read",
    ),
    "the disk": (
        {"signals": 0, "error": OSError(28, "No space left")},
        2,
        "OSError: [Errno 28] No space left",
    ),
    "a bug": ({"signals": 0, "error": KeyError("x\n\x1b[31m")}, 1, "KeyError: 'x\\n\\x1b[31m'"),
    "a function that exits": ({"signals": 0, "error": SystemExit(3)}, 1, "SystemExit: 3"),
    "nothing to do": ({"signals": 0}, 0, "it had nothing more to do"),
}


@pytest.mark.parametrize("name", ENDS)
def test_however_it_ends_one_event_says_how_with_the_exit_status(name: str) -> None:
    how, expected, reason = ENDS[name]
    events, status = run(FakeEngine(Diary(), **how))
    first, *_, last = events
    assert isinstance(first, DaemonStarting)
    assert isinstance(last, DaemonEnded)
    assert (last.reason, last.exit_status) == (reason, expected)
    assert last.ran_s >= 0
    assert sum(isinstance(each, DaemonStarting | DaemonEnded) for each in events) == 2
    assert status == expected


class Noisy(FakeEngine):
    """Has trouble again and again, so that the log holds lines back."""

    def make(self, plan: DaemonPlan, *, observer: Observer, **more: Any) -> Engine:
        self._observer = observer
        return super().make(plan, observer=observer, **more)

    async def run(self) -> None:
        for _ in range(5):
            self._observer.on(StoreFailed(error="ServiceThrottled", reason="no room", wait_s=1.0))
            self._observer.on(
                PortFailed(mapping=MAPPING, shard=None, port="source", error="E", reason="r", wait_s=1.0)
            )
        await super().run()


@pytest.mark.parametrize("name", ENDS)
def test_however_it_ends_that_is_the_last_line_of_the_log(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    how, expected, _ = ENDS[name]
    registry = Overheard(plug_ins(Diary()), logs.plugin)
    assert run_daemon(simple(), registry, Noisy(Diary(), **how).make, place="f") == expected
    lines = capsys.readouterr().err.splitlines()
    # What keeps it from starting is for people.
    found = [json.loads(each) for each in lines if not each.startswith(("f: ", "poller: "))]
    assert lines[-1].startswith("{")
    assert (found[-1]["event"], found[-1]["exit_status"]) == ("daemon_ended", expected)
    assert [each["event"] for each in found].count("daemon_ended") == 1
    held = [each for each in found if each["event"] in ("store_failed", "port_failed")]
    assert sum(1 + each.get("untold", 0) for each in held) == 10
    assert len(lines) - len(found) == (2 if name == "its configuration" else expected == 2)


def test_a_fault_of_the_daemon_is_reported_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    registry = Overheard(plug_ins(Diary()), logs.plugin)
    engine = FakeEngine(Diary(), signals=0, error=KeyError("x"))
    assert run_daemon(simple(), registry, engine.make, place="f") == 1
    lines = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [each["event"] for each in lines[-3:]] == ["library", "daemon_fault", "daemon_ended"]
    assert "in run" in lines[-3]["trace"]
    assert "KeyError" in lines[-2]["message"]


def test_a_port_that_is_taken_is_how_it_ended() -> None:
    events, status = run(
        FakeEngine(Diary(), signals=0, stubborn=True), listen_error=OSError("127.0.0.1:8080 is taken")
    )
    last = events[-1]
    assert isinstance(last, DaemonEnded)
    assert (last.exit_status, status, last.reason) == (2, 2, "OSError: 127.0.0.1:8080 is taken")


LEAVES: Sequence[BaseException] = (
    InvalidConfiguration(["a"]),
    ServiceUnavailable("b"),
    OSError("c"),
    asyncio.CancelledError(),
    CancelledFromInside(),
    SystemExit(1),
    ValueError("d"),
)


@settings(max_examples=60)
@given(
    st.recursive(st.sampled_from(LEAVES), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=5)
)
def test_the_status_of_a_group_is_that_of_its_worst_leaf(shape: Any) -> None:
    def built(shape: Any) -> BaseException:
        return BaseExceptionGroup("g", [built(each) for each in shape]) if isinstance(shape, list) else shape

    def flat(shape: Any) -> list[BaseException]:
        return [leaf for each in shape for leaf in flat(each)] if isinstance(shape, list) else [shape]

    assert exit_status(built(shape)) == min(exit_status(each) for each in flat(shape))
    assert [exit_status(each) for each in LEAVES] == [2, 2, 2, 1, 1, 1, 1]


def finished(number: int, ended: Ended = Ended.SUCCESS, *, failed: int = 0) -> InvocationFinished:
    return InvocationFinished(
        mapping=MAPPING,
        function="f",
        shard=None,
        records=10,
        failed=failed,
        ended=ended,
        duration_s=0.1,
        request_id=f"r{number}",
    )


def test_what_was_done_and_what_was_cut_off_is_counted() -> None:
    report = RunReport(SetClock())
    counts = report.counts
    for event in (
        finished(1),
        finished(2, Ended.PARTIAL, failed=3),
        finished(3, Ended.FUNCTION_ERROR, failed=10),
        finished(4, Ended.FUNCTION_ERROR, failed=10),
        discarded(4, delivered=True),
        Released(mapping=MAPPING, messages=7),
        StopCutShort(grace_s=3.0, calls_cut_off=1, handed_back=2, shards_released=1),
    ):
        counts.on(event)
    report.on_signal("SIGINT")
    assert report.ended(None) == DaemonEnded(
        reason="SIGINT: the grace time was over before all that ran had finished",
        exit_status=1,
        ran_s=0.0,
        calls=4,
        calls_failed=3,
        calls_cut_off=1,
        records=17,
        discarded=4,
        handed_back=2,
    )


def test_the_start_names_places_and_calls_and_no_more_of_the_store_than_its_name() -> None:
    given = Settings(
        store="dynamodb://leases?region=eu-west-1",
        worker="w",
        region="eu-west-1",
        endpoint_url="http://127.0.0.1:4566",
        endpoint_urls={"sqs": "http://127.0.0.1:9324"},
        functions={
            "one": FunctionEntry(invoker="python", max_concurrency=1),
            "many": FunctionEntry(invoker="python"),
        },
    )
    event = starting(given, daemon_plan(given), plug_ins(Diary()), listen="127.0.0.1:8080", file=None)
    assert (event.worker, event.region, event.store) == ("w", "eu-west-1", "dynamodb://leases")
    assert event.endpoints == ("http://127.0.0.1:4566", "sqs: http://127.0.0.1:9324")
    assert event.functions == ("one: python, 1 call at once", "many: python, any number of calls at once")


def test_of_many_functions_some_are_named_and_the_others_counted() -> None:
    given = Settings(
        store="memory://", functions={f"f{n}": FunctionEntry(invoker="python") for n in range(500)}
    )
    event = starting(given, daemon_plan(given), plug_ins(Diary()), listen="", file=None)
    assert (len(event.functions), event.functions[-1]) == (21, "and 480 more")


@pytest.mark.parametrize("console", [False, True], ids=["json", "console"])
@pytest.mark.parametrize("name", HOSTILE)
def test_in_either_form_of_the_log_the_end_is_one_line(console: bool, name: str) -> None:
    words = _words("console" if console else "json")
    (line,) = words.end(RunReport(SetClock()).ended(OSError(HOSTILE[name]))).splitlines()
    assert "daemon_ended" in line
    assert console or json.loads(line)["exit_status"] == 2


def _words(form: str, level: str = "info") -> LastWords:
    """What the log leaves when it is closed."""
    env = Environment(clock=SetClock())

    async def opened_once() -> None:
        async with open_logs(LogSettings.model_validate({"format": form, "level": level}), env):
            return

    asyncio.run(opened_once())
    return env.last_words


@pytest.mark.parametrize(
    ("level", "error", "lines"),
    [("info", None, 1), ("warning", None, 0), ("error", OSError("no"), 1), ("debug", None, 1)],
)
def test_the_end_is_reported_at_the_levels_of_the_log(level: str, error: OSError | None, lines: int) -> None:
    assert _words("json", level).end(RunReport(SetClock()).ended(error)).count("\n") == lines


@settings(max_examples=60)
@given(
    calls=st.integers(0, 3),
    messages=st.integers(0, 3),
    left=st.lists(st.text("ab", min_size=1), max_size=2),
    error=st.none() | st.sampled_from(LEAVES),
)
def test_only_an_end_that_let_every_call_finish_has_status_0(
    calls: int, messages: int, left: list[str], error: BaseException | None
) -> None:
    report = RunReport(SetClock())
    if calls or messages:
        report.counts.on(
            StopCutShort(grace_s=3.0, calls_cut_off=calls, handed_back=messages, shards_released=0)
        )
    end = report.ended(error, left)
    expected = exit_status(error) if error else int(bool(calls or left))
    assert end.exit_status == report.exit_status(error, left) == expected
    assert (end.calls_cut_off, end.handed_back) == (calls, messages)
