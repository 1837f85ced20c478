"""Owns the fake function: what a call does is decided by the records in it and by one seed; pure state."""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.domain.untrusted.json_values import json_value
from tests.simulation.services.contents import Content, Kind, name_of, number_of, parse

OWN = "own"
"""The invoker of functions that have settings of their own."""
STATE_BYTES_HUGE = 1024 * 1024 + 1
"""A state of this size ends its window (aws-behaviour#window-state-too-large)."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One record as a function sees it: sequence number or message id, and its content."""

    identifier: str
    content: Content


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event as a function sees it; `source_arn` is empty when a window's final event holds no records."""

    source_arn: str
    records: tuple[Delivered, ...]
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Asks for one invocation."""

    delivery: Delivery
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the call leads to, `after_s` seconds after it was made."""

    after_s: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` to `end`, epoch seconds."""

    start: float
    end: float

    def holds(self, now: float) -> bool:
        """Whether `now` is inside."""
        return self.start <= now < self.end


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What a function's service has of it from epoch seconds `since` on."""

    since: float
    facts: FunctionFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How a function behaves. Chances are between 0 and 1; `heals_at` ends poison, hanging and every chance fault."""

    reports: bool = False
    """It answers with batchItemFailures where it can."""
    windowed: bool = False
    huge_state_chance: float = 0.0
    """It returns a state that is too large for a window to go on with."""
    report_chance: float = 0.7
    malformed_chance: float = 0.0
    error_chance: float = 0.0
    throttle_chance: float = 0.0
    unreachable_chance: float = 0.0
    quick_s: tuple[float, float] = (0.01, 0.3)
    slow_s: tuple[float, float] = (2.0, 8.0)
    flaky_failures: int = 2
    retry_after: tuple[Any, ...] = ()
    """What it writes at `retryAfterSeconds` of what it reports: one of these. None writes nothing."""
    refuses_every: int | None = None
    """It refuses events with a record whose number is a multiple of this, as a server does that one request brings down."""
    throttled: tuple[Period, ...] = ()
    unreachable: tuple[Period, ...] = ()
    poison_heals_at: float | None = None
    heals_at: float = float("inf")
    own: tuple[OwnSettings, ...] = ()
    """A function on a service of its own: its settings, oldest first. They end its runs, and not what its caller thinks."""
    unseen: tuple[Period, ...] = ()
    """When those settings may not be looked up."""


@dataclass(slots=True)
class FakeFunction:
    """One function. `failures` counts by record number how often a flaky or hanging record failed."""

    script: Script
    rng: Random
    failures: Counter[int] = field(default_factory=Counter)

    def apply(self, now: float, call: Call) -> Answer:
        """One invocation at epoch seconds `now`."""
        if (
            refusal := self._refusal(now, [each.content.number for each in call.delivery.records])
        ) is not None:
            return Answer(0.01, refusal)
        contents = [each.content for each in call.delivery.records]
        timeout_s = self.facts(now).timeout_s if self.script.own else call.timeout_s
        duration_s = self._duration_s(contents, now, timeout_s)
        if duration_s >= timeout_s:
            return Answer(timeout_s, TimedOut(call.timeout_s))
        bad = [each for each in call.delivery.records if self._fails(each.content, now)]
        if not bad and not self._chance(self.script.error_chance, now):
            return Answer(duration_s, self._success(call.delivery, [], now))
        return Answer(duration_s, self._failure(call.delivery, bad, now))

    def facts(self, now: float) -> FunctionFacts:
        """The settings that its service has of it."""
        first, *later = self.script.own
        return next((each.facts for each in reversed(later) if each.since <= now), first.facts)

    def _refusal(self, now: float, numbers: Sequence[int]) -> Outcome | None:
        script = self.script
        if any(each.holds(now) for each in script.throttled) or self._chance(script.throttle_chance, now):
            return Throttled("reserved concurrency is used up")
        lost = any(each.holds(now) for each in script.unreachable)
        if lost or self._chance(script.unreachable_chance, now):
            return Unreachable("no connection")
        every = script.refuses_every
        if every is not None and now < script.heals_at and any(each % every == 0 for each in numbers):
            return Throttled("429") if self.rng.random() < 1 / 2 else Unreachable("503")
        return None

    def _chance(self, chance: float, now: float) -> bool:
        return now < self.script.heals_at and self.rng.random() < chance

    def _duration_s(self, contents: Sequence[Content], now: float, timeout_s: float) -> float:
        for each in contents:
            if each.kind is Kind.HANG and self.failures[each.number] < 1 and now < self.script.heals_at:
                self.failures[each.number] += 1
                return timeout_s
        slow = any(each.kind is Kind.SLOW for each in contents)
        shortest, longest = self.script.slow_s if slow else self.script.quick_s
        return min(self.rng.uniform(shortest, longest), timeout_s * 0.9)

    def _fails(self, content: Content, now: float) -> bool:
        match content.kind:
            case Kind.POISON:
                healed = self.script.poison_heals_at
                return healed is None or now < healed
            case Kind.FLAKY if self.failures[content.number] < self.script.flaky_failures:
                self.failures[content.number] += 1
                return True
            case _:
                return False

    def _failure(self, delivery: Delivery, bad: Sequence[Delivered], now: float) -> Outcome:
        if not self.script.reports or not bad or self.rng.random() > self.script.report_chance:
            return FunctionError("ValueError", "a record is bad")
        if self.rng.random() < self.script.malformed_chance:
            return Succeeded(b'{"batchItemFailures":[{"itemIdentifier":"nobody"}]}')
        return self._success(delivery, [each.identifier for each in bad], now)

    def _reported(self, identifier: str) -> dict[str, Any]:
        item: dict[str, Any] = {"itemIdentifier": identifier}
        # A function without waits draws nothing, so that its world is the same with and without them.
        if self.script.retry_after and (value := self.rng.choice(self.script.retry_after)) is not None:
            item["retryAfterSeconds"] = value
        return item

    def _success(self, delivery: Delivery, failed: list[str], now: float) -> Succeeded:
        if not self.script.windowed and not failed:
            return Succeeded(b"" if self.rng.random() < 0.5 else b"null")
        answer: dict[str, Any] = {"batchItemFailures": [self._reported(each) for each in failed]}
        if self.script.windowed:
            answer["state"] = _next_state(delivery, failed)
            # A chance of nothing draws nothing, so that a world without huge states is the same with and without them.
            if self.script.huge_state_chance and self._chance(self.script.huge_state_chance, now):
                answer["state"]["pad"] = "x" * STATE_BYTES_HUGE
        return Succeeded(msgspec.json.encode(answer))


def _next_state(delivery: Delivery, failed: list[str]) -> dict[str, Any]:
    """The window's state: the numbers of all records that were done, in order."""
    numbers = list(delivery.event.get("state", {}).get("numbers", []))
    for each in delivery.records:
        if failed and each.identifier == min(failed, key=number_of):
            break
        numbers.append(each.content.number)
    return {"numbers": numbers}


def call_payload(takes_s: float) -> bytes:
    """The payload of a call beside mappings, which takes so long."""
    return msgspec.json.encode({"takes_s": takes_s})


def takes_of(payload: bytes) -> float | None:
    """How long a call beside mappings takes; None for an event of a mapping."""
    found = json_value(payload)
    return None if "takes_s" not in found else float(found["takes_s"])


def read_delivery(payload: bytes) -> Delivery:
    """The event as the function sees it; fails on anything that is not one of AWS's events (aws-behaviour#events)."""
    event = json_value(payload)
    records = event["Records"]
    arns = {each["eventSourceARN"] for each in records}
    assert len(arns) <= 1, f"one event from {arns}"
    source_arn = next(iter(arns), event.get("eventSourceARN", ""))
    # What a consumer was pushed is from its stream.
    source_arn = source_arn.partition("/consumer/")[0]
    return Delivery(source_arn, tuple(_delivered(each) for each in records), event)


def _delivered(record: dict[str, Any]) -> Delivered:
    match record["eventSource"]:
        case "aws:kinesis":
            data = base64.b64decode(record["kinesis"]["data"])
            content = parse(data)
            return Delivered(name_of(record["kinesis"]["sequenceNumber"], content), content)
        case "aws:dynamodb":
            image = record["dynamodb"]["NewImage"]
            return Delivered(record["dynamodb"]["SequenceNumber"], parse(image["body"]["S"]))
        case "aws:sqs":
            return Delivered(record["messageId"], parse(record["body"]))
        case other:
            raise AssertionError(f"no such event source: {other}")
