"""The log's lines: what is told, how often, in which form, and what never appears in them."""

import asyncio
import io
import itertools
import json
import logging
import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.observers.library_lines import LIBRARIES, LibraryLines, libraries_logged, warnings_logged
from adapters.observers.log_events import EVENT_NAMES, LEVELS, TEXT_CHARS_MAX, Fields
from adapters.observers.log_lines import LineWriter
from adapters.observers.log_observer import BLOCKED_LOGGED_S, LogObserver
from adapters.observers.log_throttle import FIRST_S, LONGEST_S, QUIET_S, LogThrottle
from adapters.observers.logs import LogSettings, open_logs, plugin
from poller.domain.invocations import Ended
from poller.domain.records import Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.mapping_events import (
    Blocked,
    Deleted,
    DestinationFailed,
    LeaseMoved,
    PortFailed,
    Retrying,
    ShardStopped,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.untrusted.credentials import HIDDEN
from poller.output.log_fields import fields_of_record
from poller.plugins import Environment, InstalledPlugins
from poller.testing.telemetry_events import (
    KINDS,
    MAPPING,
    SHARD,
    SetClock,
    changed,
    discarded,
    finished,
    one_of_each,
)

FAILED = finished(Ended.FUNCTION_ERROR, failed=10, error="ValueError: no")
BLOCKED = Blocked(mapping=MAPPING, shard=SHARD, lane=3, blocked=True)
FREED = Blocked(mapping=MAPPING, shard=SHARD, lane=3, blocked=False)


@dataclass
class Told:
    """A log observer on a set clock, and the lines that it wrote."""

    level: int = logging.INFO
    clock: SetClock = field(default_factory=SetClock)
    lines: list[tuple[int, str, Fields]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observer = LogObserver(self.write, self.clock, level=self.level)

    def write(self, level: int, word: str, more: Fields) -> None:
        self.lines.append((level, word, more))

    def on(self, *events: AnyTelemetryEvent) -> None:
        for event in events:
            self.observer.on(event)

    def words(self) -> list[str]:
        return [word for _, word, _ in self.lines]


def test_every_event_has_a_level_and_a_name() -> None:
    assert LEVELS.keys() == KINDS
    assert EVENT_NAMES.keys() == KINDS


def test_at_debug_each_event_is_one_line() -> None:
    log = Told(logging.DEBUG)
    log.on(*one_of_each())
    assert log.words() == [EVENT_NAMES[type(event)] for event in one_of_each()]


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (changed(), logging.INFO),
        (changed(state=MappingState.BROKEN, reason="bug"), logging.ERROR),
        (FAILED, logging.WARNING),
        (discarded(1, delivered=True), logging.WARNING),
        (discarded(1, delivered=False), logging.ERROR),
        (DestinationFailed(mapping=MAPPING, shard=SHARD, reason="no", wait_s=1), logging.WARNING),
        (DestinationFailed(mapping=MAPPING, shard=SHARD, reason="no", wait_s=None), logging.ERROR),
        (LeaseMoved(mapping=MAPPING, shard=SHARD, held=True), logging.INFO),
        (LeaseMoved(mapping=MAPPING, shard=SHARD, held=False), logging.WARNING),
        (Deleted(mapping=MAPPING, messages=1, lapsed=1), logging.WARNING),
        (BLOCKED, logging.WARNING),
    ],
)
def test_a_change_is_reported_at_the_level_of_its_weight(event: AnyTelemetryEvent, level: int) -> None:
    log = Told()
    log.on(event)
    assert [each for each, _, _ in log.lines] == [level]


def test_success_is_not_reported() -> None:
    log = Told()
    log.on(finished(), Deleted(mapping=MAPPING, messages=10))
    assert log.lines == []


def test_lines_carry_ids_and_plain_values() -> None:
    log = Told()
    log.on(FAILED)
    assert log.lines[0][2] == {
        "mapping": MAPPING,
        "function": "orders",
        "shard": SHARD,
        "records": 10,
        "failed": 10,
        "ended": "function_error",
        "duration_s": 0.25,
        "request_id": "req-1",
        "error": "ValueError: no",
    }


def test_the_same_failure_is_reported_at_once_and_then_at_growing_intervals() -> None:
    log, times = Told(), []
    start = log.clock.at
    for second in range(1000):
        log.clock.at = start + second
        before = len(log.lines)
        log.on(FAILED)
        times += [second] * (len(log.lines) - before)
    assert times == [0, 10, 30, 70, 150, 310, 630]
    assert [more.get("untold", 0) for _, _, more in log.lines] == [0, 9, 19, 39, 79, 159, 319]


def test_failures_of_different_shards_are_kept_apart() -> None:
    log = Told()
    log.on(*(finished(Ended.TIMED_OUT, shard=ShardId(f"s{number}")) for number in range(3)))
    assert log.words() == ["invocation_finished"] * 3


def test_a_lane_that_gets_through_is_reported_with_how_long_it_was_blocked() -> None:
    log = Told()
    log.on(BLOCKED)
    log.clock.at += 7.5
    log.on(FREED)
    assert log.lines[1][:2] == (logging.INFO, "unblocked")
    assert log.lines[1][2]["blocked_s"] == 7.5


def test_a_lane_that_flaps_is_reported_once() -> None:
    log = Told()
    for _ in range(100):
        log.on(BLOCKED, FREED)
        log.clock.at += 0.05
    assert log.words() == ["blocked", "unblocked"]


def test_getting_through_after_a_long_time_is_reported_even_if_the_start_was_not() -> None:
    log = Told()
    log.on(BLOCKED, FREED, BLOCKED)
    log.clock.at += BLOCKED_LOGGED_S
    log.on(FREED)
    assert log.words() == ["blocked", "unblocked", "unblocked"]


def test_after_a_lane_got_through_its_next_failure_is_reported_at_once() -> None:
    log = Told()
    log.on(FAILED, BLOCKED, FREED, FAILED)
    assert log.words() == ["invocation_finished", "blocked", "unblocked", "invocation_finished"]


def test_a_stopped_shard_is_no_longer_blocked() -> None:
    log = Told()
    log.on(BLOCKED, ShardStopped(mapping=MAPPING, shard=SHARD, ended=False))
    log.clock.at += 60
    log.on(FREED)
    assert log.words() == ["blocked", "shard_stopped"]


def test_at_error_only_losses_bugs_ended_tasks_and_refused_configurations_are_reported() -> None:
    log = Told(logging.ERROR)
    log.on(*one_of_each(), FREED)
    ended = ["task_ended", "code_reloaded", "call_left_behind", "observer_failed"]
    assert log.words() == ["records_lost", "configuration_reloaded", *ended]


def test_discarded_batches_are_always_reported() -> None:
    log = Told()
    log.on(*[discarded(1, delivered=False)] * 50)
    assert log.words() == ["discarded"] * 50


def repeated(throttle: LogThrottle[int], key: str, at: float) -> int | None:
    """How many were untold before, if it is told now."""
    told = throttle.offer(key, 0, Monotonic(at))
    return told[-1].suppressed if told else None


def test_trouble_that_was_quiet_is_new() -> None:
    throttle: LogThrottle[int] = LogThrottle()
    assert [repeated(throttle, "a", at) for at in (0, 1, 1 + QUIET_S)] == [0, None, 0]


def test_intervals_grow_to_a_limit() -> None:
    throttle: LogThrottle[int] = LogThrottle()
    told = [at for at in range(0, 10_000, 10) if repeated(throttle, "a", at) is not None]
    gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert gaps[0] == FIRST_S
    assert max(gaps) == LONGEST_S


def test_the_troubles_that_are_remembered_are_few() -> None:
    throttle: LogThrottle[int] = LogThrottle(keys_max=2)
    for key in "abc":
        repeated(throttle, key, 0)
    assert [repeated(throttle, key, 1) for key in "cba"] == [None, None, 0]


def test_a_text_in_a_line_is_cut() -> None:
    log = Told()
    log.on(DestinationFailed(mapping=MAPPING, shard=SHARD, reason="x" * 10_000, wait_s=None))
    assert len(log.lines[0][2]["reason"]) == TEXT_CHARS_MAX


def test_an_error_text_cannot_start_a_line_of_its_own() -> None:
    log = Told()
    log.on(
        PortFailed(
            mapping=MAPPING, shard=None, port="source", error="X", reason='a\n{"level":"info"}', wait_s=1
        )
    )
    assert log.lines[0][2]["reason"] == 'a {"level":"info"}'


def written(*, console: bool) -> str:
    stream = io.StringIO()
    observer = LogObserver(
        LineWriter(stream, SetClock(), console=console).write, SetClock(), level=logging.INFO
    )
    observer.on(FAILED)
    return stream.getvalue()


def test_json_lines_begin_with_time_level_and_event() -> None:
    line = json.loads(written(console=False))
    assert list(line.items())[:4] == [
        ("timestamp", "2023-11-14T22:13:20.000Z"),
        ("level", "warning"),
        ("event", "invocation_finished"),
        ("mapping", MAPPING),
    ]


def test_console_lines_are_for_people() -> None:
    line = written(console=True)
    assert line.startswith("2023-11-14T22:13:20.000Z [warning  ] invocation_finished")
    assert line.count("\n") == 1


class Full(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_takes_nothing_loses_the_line_only() -> None:
    observer = LogObserver(
        LineWriter(Full(), SetClock(), console=False).write, SetClock(), level=logging.INFO
    )
    observer.on(FAILED)
    assert isinstance(observer, LogObserver)


def library_lines(emit: Any) -> list[dict[str, Any]]:
    """What a library's logging gives while a stream is our log."""
    stream = io.StringIO()
    with libraries_logged(LibraryLines(LineWriter(stream, SetClock(), console=False).write)):
        emit()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_librarys_warning_becomes_a_line_like_ours() -> None:
    lines = library_lines(lambda: logging.getLogger("aiohttp.client").warning("no %s", "answer"))
    assert lines == [
        {
            "timestamp": "2023-11-14T22:13:20.000Z",
            "level": "warning",
            "event": "library",
            "logger": "aiohttp.client",
            "message": "no answer",
        }
    ]


def test_botocores_debug_is_never_written_even_if_somebody_turns_it_on() -> None:
    def emit() -> None:
        logger = logging.getLogger("botocore.auth")
        logger.setLevel(logging.DEBUG)
        logger.debug("secret")
        logger.setLevel(logging.NOTSET)

    assert library_lines(emit) == []


def test_a_librarys_error_has_its_cause_and_no_credential() -> None:
    def emit() -> None:
        try:
            raise RuntimeError("Authorization: Bearer abcdefgh12345")
        except RuntimeError:
            logging.getLogger("aiohttp.server").exception("Error handling request token=abcdefgh12345")

    (line,) = library_lines(emit)
    assert line["error"] == f"RuntimeError: Authorization: {HIDDEN}"
    assert "emit" in line["trace"]
    assert "abcdefgh12345" not in json.dumps(line)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("x" * 20_000 + "\nhere", "here"),
        ("token:" * 20_000 + "\nhere", "here"),
        ("x" * 20_000, "(its last line is too long)"),
    ],
)
def test_of_a_long_traceback_the_end_is_written(text: str, end: str) -> None:
    def emit() -> None:
        try:
            raise RuntimeError(text)
        except RuntimeError:
            logging.getLogger("aiohttp.server").exception("no")

    began = time.thread_time()
    (line,) = library_lines(emit)
    assert time.thread_time() - began < 0.1
    assert line["trace"] == end


def test_a_message_that_does_not_fit_its_arguments_is_still_reported() -> None:
    told = Told()
    record = logging.LogRecord("botocore", logging.ERROR, __file__, 1, "a %d", ("b",), None)
    LibraryLines(told.write).emit(record)
    assert told.lines == [(logging.ERROR, "library", {"logger": "botocore", "message": "a %d"})]


def test_levels_of_libraries_are_put_back() -> None:
    names = [logging.getLogger(name).level for name in LIBRARIES]
    with libraries_logged(logging.NullHandler()):
        inside = [logging.getLogger(name).level for name in LIBRARIES]
    assert inside == [logging.WARNING] * len(LIBRARIES)
    assert [logging.getLogger(name).level for name in LIBRARIES] == names


def test_the_plugin_writes_to_stderr_at_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    async def run() -> None:
        async with open_logs(LogSettings(level="warning"), Environment(clock=SetClock())) as observer:
            observer.on(changed())
            observer.on(Retrying(mapping=MAPPING, shard=SHARD, attempt=1, wait_s=0.1234, free=False))

    asyncio.run(run())
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["wait_s"]) == ("retrying", 0.123)
    assert InstalledPlugins().plugin("observers", "logs") is plugin


@pytest.mark.parametrize(
    ("form", "words"), [("json", "json"), ("console", "poller: it does not end\n")], ids=["json", "console"]
)
def test_what_is_reported_when_the_log_is_closed_has_its_form(form: str, words: str) -> None:
    env = Environment(clock=SetClock())

    async def run() -> None:
        async with open_logs(LogSettings.model_validate({"format": form}), env):
            return

    asyncio.run(run())
    line = env.last_words.form("it does not end")
    if words != "json":
        assert line == words
        return
    assert line.endswith("\n")
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:20.000Z",
        "level": "error",
        "event": "daemon_fault",
        "message": "it does not end",
    }


def test_a_warning_of_python_is_a_line_and_the_next_owner_has_them_back() -> None:
    stream = io.StringIO()
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with warnings_logged(LineWriter(stream, SetClock(), console=False).write):
            warnings.warn("coroutine 'x' was never awaited", RuntimeWarning, stacklevel=1)
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["message"] == "RuntimeWarning: coroutine 'x' was never awaited"
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert line["place"].startswith(__file__)
    assert warnings.showwarning is before


def test_fields_that_are_given_to_a_line_are_members_of_it() -> None:
    def emit() -> None:
        given = {"order": 17, "items": ["a", {"password": "hunter2"}], "token": "abc", "level": "debug"}
        logging.getLogger("aiohttp.client").warning("slow", extra=given)

    (line,) = library_lines(emit)
    assert line["level"] == "warning"
    assert (line["order"], line["items"], line["token"]) == (17, ["a", {"password": HIDDEN}], HIDDEN)


def test_fields_without_end_are_cut() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("no text")

    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    extra = {f"field{number}": list(range(1000)) for number in range(1000)}
    wide = logging.getLogger("x").makeRecord("x", 30, "f", 1, "m", (), None, extra=extra)
    odd = logging.getLogger("x").makeRecord(
        "x", 30, "f", 1, "m", (), None, extra={"odd": Odd(), "deep": deep}
    )
    long = logging.makeLogRecord({f"field{number}": ["日" * 1000] * 100 for number in range(30)})
    assert len(json.dumps(fields_of_record(wide))) < 16 * 1024
    assert len(json.dumps(fields_of_record(long))) < 64 * 1024
    assert fields_of_record(odd)["odd"] == "(its text could not be made)"
    assert len(json.dumps(fields_of_record(odd))) < 1024
