"""Owns the fake side of enhanced fan-out: a stream's consumers, their subscriptions, and the events that each of them is sent.

Pure state, as the stream itself; `now` is epoch seconds. What the service refuses is an error of AWS's client with the service's code.
"""

import base64
import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from math import inf
from random import Random

from botocore.exceptions import ClientError

from poller.domain.records import JsonObject, ShardId
from poller.domain.streams.aggregates import DATA, KEY_INDEX, KEYS, MAGIC, RECORDS
from tests.simulation.services.streams import FakeStream, Held, Starting

TOO_SOON_S = 5.0
"""A second subscription of a shard is refused for so long after the one before it."""
CALLS_PER_S = 5
GIVEN = "given"
"""The name of the consumer that somebody has registered before."""
_GIVEN_AT = 1_700_000_000.0
_BYTES = 2


class Code(StrEnum):
    """What the service refuses with."""

    IN_USE = "ResourceInUseException"
    MISSING = "ResourceNotFoundException"
    LIMIT = "LimitExceededException"


def refused(code: Code) -> ClientError:
    """The error of AWS's client for a code."""
    return ClientError({"Error": {"Code": code, "Message": "refused"}}, "SubscribeToShard")


@dataclass(frozen=True, slots=True)
class Pushes:
    """How a service pushes: how long a subscription lasts, how often it sends an event without records, how many records an event has."""

    lasts_s: float = 300.0
    beat_s: float = 5.0
    records_max: int = 100
    changes_s: float = 2.0
    """How long a consumer is being registered or removed."""


@dataclass(slots=True)
class _Consumer:
    arn: str
    active_at: float
    gone_at: float = inf
    """When it is removed; it is being removed for a while before."""
    removed_at: float = inf

    def status(self, now: float) -> str:
        if now >= self.removed_at:
            return "DELETING"
        return "ACTIVE" if now >= self.active_at else "CREATING"


@dataclass(slots=True, eq=False)
class Connection:
    """One subscription, as the service sees it. `place` counts the records of the shard that were sent."""

    by: str
    """The worker."""
    consumer: str
    shard: ShardId
    place: int
    began: float
    ends: float
    created_at: float
    """When the stream was created."""
    sent_at: float
    taken_over: bool = False
    over: bool = False


@dataclass(slots=True)
class FakeConsumers:
    """The consumers of one stream."""

    stream: FakeStream
    arn: str
    pushes: Pushes
    rng: Random
    _consumers: dict[str, _Consumer] = field(default_factory=dict)
    _open: dict[tuple[str, ShardId], Connection] = field(default_factory=dict)
    _subscribed: dict[tuple[str, ShardId], float] = field(default_factory=dict)
    _calls: dict[tuple[str, ShardId], deque[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._consumers[GIVEN] = _Consumer(self.given, _GIVEN_AT)

    @property
    def given(self) -> str:
        """The ARN of the consumer that there is from the beginning."""
        return f"{self.arn}/consumer/{GIVEN}:{int(_GIVEN_AT)}"

    def names(self) -> list[str]:
        """The consumers that there are."""
        return sorted(self._consumers)

    def describe(self, now: float, name: str) -> JsonObject:
        """DescribeStreamConsumer."""
        found = self._known(now).get(name)
        if found is None:
            raise refused(Code.MISSING)
        return {"ConsumerDescription": self._described(now, name, found)}

    def register(self, now: float, name: str) -> JsonObject:
        """RegisterStreamConsumer."""
        if name in self._known(now):
            raise refused(Code.IN_USE)
        made = _Consumer(f"{self.arn}/consumer/{name}:{int(now)}", now + self.pushes.changes_s)
        self._consumers[name] = made
        return {"Consumer": self._described(now, name, made)}

    def remove(self, now: float, name: str) -> None:
        """DeregisterStreamConsumer, by somebody else."""
        found = self._known(now).get(name)
        if found is not None and now < found.removed_at:
            found.removed_at, found.gone_at = now, now + self.pushes.changes_s

    def _known(self, now: float) -> dict[str, _Consumer]:
        self._consumers = {name: each for name, each in self._consumers.items() if now < each.gone_at}
        return self._consumers

    def _described(self, now: float, name: str, found: _Consumer) -> JsonObject:
        return {"ConsumerName": name, "ConsumerARN": found.arn, "ConsumerStatus": found.status(now)}

    def subscribe(
        self, now: float, arn: str, shard: ShardId, starting: JsonObject, *, by: str
    ) -> tuple[Connection, Connection | None]:
        """SubscribeToShard. The subscription of before ends; it is given, too, if it was open."""
        key = (arn, shard)
        self._count(now, key)
        found = next((each for each in self._known(now).values() if each.arn == arn), None)
        if found is None:
            raise refused(Code.MISSING)
        if found.status(now) != "ACTIVE" or now - self._subscribed.get(key, -inf) < TOO_SOON_S:
            raise refused(Code.IN_USE)
        place = self.stream.place(now, shard, _starting(starting))
        before = self._open.get(key)
        if before is not None and (before.over or now >= before.ends):
            before = None
        if before is not None:
            before.ends, before.taken_over = now, True
        self._subscribed[key] = now
        connection = Connection(
            by, arn, shard, place, now, now + self.pushes.lasts_s, self.stream.created_at, now
        )
        self._open[key] = connection
        return connection, before

    def in_force(self, connection: Connection) -> bool:
        """Whether no later subscription has ended this one."""
        return self._open.get((connection.consumer, connection.shard)) is connection

    def disconnect(self, connection: Connection) -> None:
        """The worker has ended the connection. The next subscription is refused for as long as if it had not."""
        connection.over = True
        if self.in_force(connection):
            del self._open[connection.consumer, connection.shard]

    def _count(self, now: float, key: tuple[str, ShardId]) -> None:
        calls = self._calls.setdefault(key, deque())
        while calls and calls[0] <= now - 1.0:
            calls.popleft()
        if len(calls) >= CALLS_PER_S:
            raise refused(Code.LIMIT)
        calls.append(now)

    def push(self, now: float, connection: Connection) -> JsonObject | None:
        """The next event of a subscription; None while there is nothing to send. It may be `over` instead."""
        if connection.created_at != self.stream.created_at or self.stream.missing:
            raise refused(Code.MISSING)
        if not any(each.arn == connection.consumer for each in self._known(now).values()):
            raise refused(Code.MISSING)
        ends, size = connection.ends, self.rng.randint(1, self.pushes.records_max)
        if now >= ends:
            # What was sent before it ended is still on its way.
            connection.over = True
            event = self._event(ends, connection, size) if self.rng.random() < 0.5 else None
            if event is None and connection.taken_over and self.rng.random() < 0.5:
                raise refused(Code.IN_USE)
            return event
        if self.rng.random() < 0.01:
            return {"EventOfALaterVersion": {"Records": []}}
        event = self._event(now, connection, size)
        if event is None and now - connection.sent_at >= self.pushes.beat_s:
            event = self._beat(now)
        if event is not None:
            connection.sent_at = now
        return event

    def _event(self, now: float, connection: Connection, size: int) -> JsonObject | None:
        taken, following, behind_ms, ended = self.stream.pushed(now, connection.shard, connection.place, size)
        ended = ended and (not taken or self.rng.random() < 0.5)
        if not taken and not ended:
            return None
        connection.place = following
        members: JsonObject = {"Records": list(_wires(taken, now)), "MillisBehindLatest": behind_ms}
        if ended:
            connection.over = True
            members["ChildShards"] = self._children(connection.shard)
        else:
            members["ContinuationSequenceNumber"] = str(taken[-1].outer)
        return {"SubscribeToShardEvent": members}

    def _beat(self, now: float) -> JsonObject:
        members = {
            "Records": [],
            "MillisBehindLatest": 0,
            "ContinuationSequenceNumber": str(self.stream.latest),
        }
        return {"SubscribeToShardEvent": members}

    def _children(self, shard: ShardId) -> list[JsonObject]:
        return [
            {"ShardId": each.shard_id, "ParentShards": list(each.parents), "HashKeyRange": {}}
            for each in self.stream.shards.values()
            if shard in each.parents
        ]


def _starting(wire: JsonObject) -> Starting:
    number = wire.get("SequenceNumber")
    since = wire.get("Timestamp")
    match wire["Type"]:
        case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" as kind:
            assert number is not None, "a start at a record without its number"
            return Starting(first=int(number) + (kind == "AFTER_SEQUENCE_NUMBER"))
        case "AT_TIMESTAMP":
            assert since is not None, "a start by time without a time"
            return Starting(since=float(since))
        case kind:
            assert kind == "TRIM_HORIZON", f"no such start: {kind}"
            return Starting()


def _wires(taken: Sequence[Held], now: float) -> Iterator[JsonObject]:
    """The records as the service sends them, aggregated ones as a whole."""
    for _, group in groupby(taken, key=lambda each: each.outer):
        parts = list(group)
        wires: list[JsonObject] = [json.loads(each.sent(now)) for each in parts]
        yield wires[0] if parts[0].parts == 1 else _whole(parts, wires)


def _whole(parts: Sequence[Held], wires: Sequence[JsonObject]) -> JsonObject:
    assert len(parts) == parts[0].parts, "a part of an aggregated record alone"
    keys = list(dict.fromkeys(wire["PartitionKey"] for wire in wires))
    message = b"".join(_field(KEYS, key.encode()) for key in keys)
    for wire in wires:
        inner = _number(KEY_INDEX, keys.index(wire["PartitionKey"])) + _field(
            DATA, base64.b64decode(wire["Data"])
        )
        message += _field(RECORDS, inner)
    data = MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()
    return {
        **wires[0],
        "SequenceNumber": str(parts[0].outer),
        "Data": base64.b64encode(data).decode(),
        "PartitionKey": keys[0],
    }


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])
