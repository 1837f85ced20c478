"""What the log tells of trouble: each new error at once, and of all that throttle how often, also when nothing more comes."""

import asyncio
import io
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from adapters.observers.log_events import Fields, problem_of
from adapters.observers.log_observer import LogObserver
from adapters.observers.log_throttle import (
    FIRST_S,
    KINDS_MAX,
    QUIET_S,
    TEXTS_MAX,
    LogEntry,
    LogThrottle,
    kind_of,
)
from adapters.observers.logs import LogSettings, open_logs
from poller.domain.invocations import Ended
from poller.domain.records import Monotonic, ShardId
from poller.domain.telemetry.mapping_events import Blocked, InvocationFinished
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.plugins import Environment
from poller.testing.telemetry_events import MAPPING, SHARD, SetClock, finished, one_of_each
from tests.bounds.growth import assert_linear


def failing(error: str, *, shard: ShardId | None = None) -> InvocationFinished:
    """A failed invocation of a queue's message."""
    return finished(Ended.FUNCTION_ERROR, failed=1, error=error, shard=shard)


@dataclass
class Told:
    """A log observer with its timers on a set clock, and the lines that it wrote."""

    clock: SetClock = field(default_factory=SetClock)
    lines: list[Fields] = field(default_factory=list)
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observer = LogObserver(self.write, self.clock, level=logging.INFO, later=self.later)

    def write(self, level: int, word: str, more: Fields) -> None:
        self.lines.append({"event": word, "at": self.clock.at} | more)

    def later(self, after_s: float, call: Callable[[], None]) -> None:
        self.timers.append((self.clock.at + after_s, call))

    def on(self, *events: AnyTelemetryEvent) -> None:
        for event in events:
            self.observer.on(event)

    def wait(self, for_s: float) -> None:
        """Lets time go by; timers ring in order."""
        until = self.clock.at + for_s
        while due := [timer for timer in self.timers if timer[0] <= until]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.clock.at = max(self.clock.at, timer[0])
            timer[1]()
        self.clock.at = until

    def counted(self) -> int:
        """All that the lines stand for."""
        return sum(1 + line.get("untold", 0) for line in self.lines)


TWENTY = [
    "KeyError: 'id'",
    "ValueError: no order",
    "TypeError: unsupported operand",
    "TimeoutError: the database",
    *(f"ValueError: no customer {number}" for number in range(16)),
]


@pytest.mark.parametrize("shard", [None, SHARD], ids=["queue", "stream"])
def test_each_of_twenty_different_errors_is_reported_at_once(shard: ShardId | None) -> None:
    told = Told()
    told.on(*(failing(error, shard=shard) for error in TWENTY))
    assert [line["error"] for line in told.lines] == TWENTY


def test_twelve_failures_that_are_followed_by_nothing_are_counted_when_their_time_is_over() -> None:
    told = Told()
    told.on(*[failing("ValueError: no")] * 13)
    assert len(told.lines) == 1
    told.wait(FIRST_S + 1)
    assert [line.get("untold", 0) for line in told.lines] == [0, 11]
    assert told.lines[1]["at"] - told.lines[0]["at"] == pytest.approx(FIRST_S, abs=0.01)
    assert told.counted() == 13


def test_what_is_not_reported_when_the_daemon_ends_is_reported_then() -> None:
    told = Told()
    told.on(*[failing("ValueError: no")] * 13)
    told.observer.close()
    assert told.counted() == 13
    told.wait(1000)
    assert told.counted() == 13


def test_the_log_of_a_daemon_reports_the_rest_when_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    async def run() -> None:
        async with open_logs(LogSettings(), Environment(clock=SetClock())) as observer:
            for _ in range(13):
                observer.on(failing("ValueError: no"))

    asyncio.run(run())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("untold", 0) for line in lines] == [0, 11]


def test_a_stack_trace_is_reported_where_its_error_is_new() -> None:
    told = Told()
    event = finished(
        Ended.FUNCTION_ERROR, error="E: no", error_type="E", stack_trace=("  File x", "    raise\x1b[1m E")
    )
    told.on(event, event)
    told.wait(60)
    assert [line.get("stack_trace") for line in told.lines] == [["  File x", "    raise E"], None]
    assert [line["error_type"] for line in told.lines] == ["E", "E"]


def test_an_error_that_differs_each_time_does_not_flood_the_log() -> None:
    told = Told()
    told.on(*(failing(f"ValueError: record {number} of '{number}x'") for number in range(1000)))
    assert len(told.lines) == TEXTS_MAX
    told.wait(60)
    assert told.counted() == 1000


def test_kinds_without_end_do_not_flood_the_log() -> None:
    told = Told()
    words = ["".join(random.Random(number).choices("ghijklmnop", k=9)) for number in range(2000)]
    told.on(*(failing(f"ValueError: {word}") for word in words))
    assert len(told.lines) <= KINDS_MAX + TEXTS_MAX
    told.wait(60)
    assert told.counted() == 2000


OLD, NEW = "no answer within 5 s", "AccessDenied: the policy has no Allow"
WITH_TEXT = [
    event
    for event in one_of_each()
    if problem_of(event) is not None and {"error", "reason"} & set(event.__struct_fields__)
]


def saying(event: AnyTelemetryEvent, text: str) -> AnyTelemetryEvent:
    """The event with this text, in the member that has the words of whoever failed."""
    name = "reason" if "reason" in event.__struct_fields__ else "error"
    return msgspec.structs.replace(event, **{name: text})


@pytest.mark.parametrize("event", WITH_TEXT, ids=lambda event: type(event).__name__)
def test_a_new_kind_of_trouble_is_reported_at_once_from_any_place(event: AnyTelemetryEvent) -> None:
    told = Told()
    told.on(*[saying(event, OLD)] * 20, saying(event, NEW), *[saying(event, OLD)] * 20)
    assert [OLD in json.dumps(line) for line in told.lines] == [True, False]
    told.wait(60)
    assert told.counted() == 41


def test_kinds_that_have_passed_make_room_for_new_ones() -> None:
    throttle: LogThrottle[str] = LogThrottle()
    words = ["".join(random.Random(number).choices("ghijklmnop", k=9)) for number in range(400)]
    told, now = 0, 0.0
    for word in words[:KINDS_MAX]:
        told += len(throttle.offer("here", word, Monotonic(now), text=word))
        assert throttle.offer("here", word, Monotonic(now), text=word) == []
    for word in words[KINDS_MAX:]:
        now += QUIET_S / 50
        found = throttle.offer("here", word, Monotonic(now), text=word)
        told += sum(1 + each.suppressed for each in found)
        if now >= QUIET_S:
            assert found[-1] == LogEntry(word, new=True), "none of the first kinds has been there for long"
    assert told + sum(1 + each.suppressed for each in throttle.flush()) == len(words) + KINDS_MAX


def test_telling_kinds_apart_is_linear_in_the_text() -> None:
    units = ("1", "a1", "a", "'", "\"'", "1a.", "0x", "f" * 8 + "-", "1z", "ffz")

    def make(chars: int) -> list[str]:
        return [unit * (chars // len(unit)) + "z" for unit in units]

    assert_linear(lambda texts: [kind_of(text) for text in texts], make, 6_000)


def test_a_lane_that_is_free_again_is_not_reported_to_be_blocked_afterwards() -> None:
    told = Told()
    for _ in range(5):
        told.on(
            *(Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=blocked) for blocked in (True, False))
        )
    told.wait(60)
    assert [line["event"] for line in told.lines] == ["blocked", "unblocked"]


def test_a_lane_that_gets_through_reports_what_was_not_reported_of_its_failures() -> None:
    told = Told()
    told.on(Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=True))
    told.on(*[failing("ValueError: no", shard=SHARD)] * 5)
    told.on(Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=False))
    assert [(line["event"], line.get("untold", 0)) for line in told.lines] == [
        ("blocked", 0),
        ("invocation_finished", 0),
        ("invocation_finished", 3),
        ("unblocked", 0),
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ValueError: no order 17", "ValueError: no order #"),
        ("KeyError: 'abc'", "KeyError: #"),
        ('no "name" given', "no # given"),
        ("at 0x7f2a956d4130", "at #"),
        ("id 3e2f4c1a-0000-4000-8000-000000000001 gone", "id # gone"),
        ("hash deadbeef01 cafe", "hash # cafe"),
        ("Face added", "Face added"),
        ("3.5 s", "#.# s"),
    ],
)
def test_a_kind_is_a_text_without_what_differs_by_record(text: str, kind: str) -> None:
    assert kind_of(text) == kind


@pytest.mark.parametrize("seed", range(200))
def test_all_that_happened_is_reported_or_counted_and_what_is_new_is_reported_at_once(seed: int) -> None:
    rng = random.Random(seed)
    throttle: LogThrottle[str] = LogThrottle(keys_max=rng.choice([2, 10_000]))
    now, happened, told = 0.0, Counter[str](), Counter[str]()
    seen: set[str] = set()

    def count(entries: list[LogEntry[str]]) -> None:
        for each in entries:
            told[each.event.partition(" ")[0]] += 1 + each.suppressed

    for _ in range(rng.randrange(1, 400)):
        now += rng.choice([0.0, 0.1, 1.0, 30.0])
        match rng.randrange(8):
            case 0:
                count(throttle.due(Monotonic(now)))
            case 1:
                place = rng.choice("abc")
                count(throttle.resolved(place))
            case _:
                place, text = rng.choice("abc"), rng.choice(["x 1", "x 2", "y", "z 'q'"])
                happened[place] += 1
                found = throttle.offer(place, f"{place} {text}", Monotonic(now), text=text)
                if f"{place} {text}" not in seen:
                    assert found[-1] == LogEntry(f"{place} {text}", new=True)
                seen.add(f"{place} {text}")
                count(found)
    count(throttle.flush())
    assert told == happened


def test_the_memory_of_many_places_has_a_bound() -> None:
    throttle: LogThrottle[Any] = LogThrottle(keys_max=50)
    told = 0
    for number in range(5000):
        found = throttle.offer(
            f"place {number % 70}", number, Monotonic(number / 100), text=f"kind {number % 3}"
        )
        told += sum(1 + each.suppressed for each in found)
    assert len(throttle._problems) <= 50
    assert sum(map(len, throttle._kinds.values())) == len(throttle._problems)
    assert told + sum(1 + each.suppressed for each in throttle.flush()) == 5000
