"""The log's lines: what is told, how often, in which form, and what never appears in them."""

import asyncio
import io
import itertools
import json
import logging
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.observers.logs import (
    BLOCKED_TOLD_S,
    LEVELS,
    LIBRARIES,
    WORDS,
    Fields,
    LibraryLines,
    Lines,
    LogObserver,
    LogSettings,
    libraries_logged,
    open_logs,
    plugin,
)
from adapters.observers.redaction import HIDDEN, TEXT_CHARS_MAX, clean
from adapters.observers.repeats import FIRST_S, LONGEST_S, QUIET_S, Repeats
from poller.plugins import Environment, InstalledPlugins
from poller.records import Monotonic, ShardId
from poller.telemetry import (
    Blocked,
    Deleted,
    DestinationFailed,
    Ended,
    Event,
    LeaseMoved,
    MappingState,
    PortFailed,
    Retrying,
    ShardStopped,
)
from tests.adapters.observing import (
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

    def on(self, *events: Event) -> None:
        for event in events:
            self.observer.on(event)

    def words(self) -> list[str]:
        return [word for _, word, _ in self.lines]


def test_every_event_has_a_level_and_a_name() -> None:
    assert LEVELS.keys() == KINDS
    assert WORDS.keys() == KINDS


def test_at_debug_each_event_is_one_line() -> None:
    log = Told(logging.DEBUG)
    log.on(*one_of_each())
    assert log.words() == [WORDS[type(event)] for event in one_of_each()]


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
def test_a_change_is_told_at_the_level_of_its_weight(event: Event, level: int) -> None:
    log = Told()
    log.on(event)
    assert [each for each, _, _ in log.lines] == [level]


def test_success_is_not_told() -> None:
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


def test_the_same_failure_is_told_at_once_and_then_at_growing_intervals() -> None:
    log, times = Told(), []
    start = log.clock.at
    for second in range(1000):
        log.clock.at = start + second
        before = len(log.lines)
        log.on(FAILED)
        times += [second] * (len(log.lines) - before)
    assert times == [0, 10, 30, 70, 150, 310, 630]
    assert [more.get("untold", 0) for _, _, more in log.lines] == [0, 9, 19, 39, 79, 159, 319]


def test_failures_of_different_shards_are_told_apart() -> None:
    log = Told()
    log.on(*(finished(Ended.TIMED_OUT, shard=ShardId(f"s{number}")) for number in range(3)))
    assert log.words() == ["invocation_finished"] * 3


def test_a_lane_that_gets_through_is_told_with_how_long_it_was_blocked() -> None:
    log = Told()
    log.on(BLOCKED)
    log.clock.at += 7.5
    log.on(FREED)
    assert log.lines[1][:2] == (logging.INFO, "unblocked")
    assert log.lines[1][2]["blocked_s"] == 7.5


def test_a_lane_that_flaps_is_told_once() -> None:
    log = Told()
    for _ in range(100):
        log.on(BLOCKED, FREED)
        log.clock.at += 0.05
    assert log.words() == ["blocked", "unblocked"]


def test_getting_through_after_a_long_time_is_told_even_if_the_start_was_not() -> None:
    log = Told()
    log.on(BLOCKED, FREED, BLOCKED)
    log.clock.at += BLOCKED_TOLD_S
    log.on(FREED)
    assert log.words() == ["blocked", "unblocked", "unblocked"]


def test_after_a_lane_got_through_its_next_failure_is_told_at_once() -> None:
    log = Told()
    log.on(FAILED, BLOCKED, FREED, FAILED)
    assert log.words() == ["invocation_finished", "blocked", "unblocked", "invocation_finished"]


def test_a_stopped_shard_is_no_longer_blocked() -> None:
    log = Told()
    log.on(BLOCKED, ShardStopped(mapping=MAPPING, shard=SHARD, ended=False))
    log.clock.at += 60
    log.on(FREED)
    assert log.words() == ["blocked", "shard_stopped"]


def test_at_error_only_losses_bugs_and_refused_configurations_are_told() -> None:
    log = Told(logging.ERROR)
    log.on(*one_of_each(), FREED)
    assert log.words() == ["records_lost", "configuration_reloaded"]


def test_discarded_batches_are_always_told() -> None:
    log = Told()
    log.on(*[discarded(1, delivered=False)] * 50)
    assert log.words() == ["discarded"] * 50


def test_trouble_that_was_quiet_is_new() -> None:
    repeats = Repeats()
    told = [repeats.telling("a", Monotonic(at)) for at in (0, 1, 1 + QUIET_S)]
    assert told == [0, None, 0]


def test_intervals_grow_to_a_limit() -> None:
    repeats = Repeats()
    told = [at for at in range(0, 10_000, 10) if repeats.telling("a", Monotonic(at)) is not None]
    gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert gaps[0] == FIRST_S
    assert max(gaps) == LONGEST_S


def test_the_troubles_that_are_remembered_are_few() -> None:
    repeats = Repeats(keys_max=2)
    for key in "abc":
        repeats.telling(key, Monotonic(0))
    assert [repeats.telling(key, Monotonic(1)) for key in "cba"] == [None, None, 0]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "AKIAIOSFODNN7EXAMPLE"),
        ("https://h/?X-Amz-Security-Token=FwoGZXIvYXdzE&a=1", "FwoGZXIvYXdzE"),
        ("GET /?X-Amz-Signature=0f1e2d&X-Amz-Date=1", "0f1e2d"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=A/B, Signature=c0ffee", "c0ffee"),
        ("headers {'authorization': 'Bearer abcdefgh12345'}", "abcdefgh12345"),
        ("sent Bearer abcdefgh12345", "abcdefgh12345"),
        ('{"SecretAccessKey": "wJalrXUtnFEMI/K7MDENG"}', "wJalrXUtnFEMI"),
        ("aws_secret_access_key=wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"),
        ("cannot reach https://user:hunter2@proxy.local/x", "hunter2"),
        ("db password='hunter2'", "hunter2"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str, secret: str) -> None:
    assert secret not in clean(text)
    assert HIDDEN in clean(text)


def test_ordinary_errors_stay_readable() -> None:
    text = "ExpiredToken: The security token included in the request is expired"
    assert clean(text) == text


def test_text_is_one_line_and_cut() -> None:
    assert clean("a\nb\r\n\x1b[31mc") == "a b [31mc"
    assert len(clean("x" * 10_000)) == TEXT_CHARS_MAX


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
    observer = LogObserver(Lines(stream, SetClock(), console=console).write, SetClock(), level=logging.INFO)
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
    observer = LogObserver(Lines(Full(), SetClock(), console=False).write, SetClock(), level=logging.INFO)
    observer.on(FAILED)
    assert isinstance(observer, LogObserver)


def library_lines(emit: Any) -> list[dict[str, Any]]:
    """What a library's logging gives while a stream is our log."""
    stream = io.StringIO()
    with libraries_logged(LibraryLines(Lines(stream, SetClock(), console=False).write)):
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


def test_a_message_that_does_not_fit_its_arguments_is_still_told() -> None:
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
