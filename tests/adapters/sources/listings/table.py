"""Owns a table's stream as DescribeStream shows it, for what no emulator has: thousands of shards, filters, limits, throttles."""

import asyncio
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
TAKEN, REFUSED, IGNORED, SILENT = "taken", "refused", "ignored", "silent"
"""What a service does with ShardFilter. A silent one answers with no shards."""


def failed(code: str) -> ClientError:
    """An error as the client raises it."""
    meta = {"HTTPStatusCode": 400}
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": meta},  # type: ignore[typeddict-item]
        "DescribeStream",
    )


def named(number: int) -> str:
    """A shard's id as the service makes it, in the order of their making."""
    return f"shardId-{number:020d}-abcdef12"


class Table:
    """One stream. `fails` says for the number of a call (from 1) what it raises, if anything. `rate` is the service's limit."""

    def __init__(
        self,
        shards: int = 0,
        *,
        filters: str = TAKEN,
        rate: int | None = None,
        fails: Callable[[int], Exception | None] = lambda number: None,
        takes_s: float = 0.01,
    ) -> None:
        self.ids: list[str] = []
        self.parents: dict[str, str] = {}
        self.children: dict[str, list[str]] = defaultdict(list)
        self.closed: set[str] = set()
        self.status = "ENABLED"
        self.filters = filters
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.throttled = 0
        self._rate = rate
        self._fails = fails
        self._takes_s = takes_s
        self._made = 0
        for _ in range(shards):
            self.make()

    def make(self, parent: str | None = None) -> str:
        """One more shard."""
        name = named(self._made)
        self._made += 1
        insort(self.ids, name)
        if parent is not None:
            self.parents[name] = parent
            self.children[parent].append(name)
        return name

    def split(self, parent: str, parts: int = 1) -> list[str]:
        """Closes a shard; others follow on it."""
        self.closed.add(parent)
        return [self.make(parent) for _ in range(parts)]

    def trim(self, shard: str) -> None:
        """Removes a shard."""
        self.ids.remove(shard)

    @property
    def filtered(self) -> list[str]:
        """The shards whose children were asked for."""
        return [each["ShardFilter"]["ShardId"] for each in self.asked if "ShardFilter" in each]

    @property
    def pages(self) -> int:
        """Calls for all shards."""
        return len(self.asked) - len(self.filtered)

    async def describe_stream(self, **parameters: Any) -> dict[str, Any]:
        """DescribeStream."""
        now = asyncio.get_running_loop().time()
        self.asked.append(parameters)
        self.times.append(now)
        error = self._fails(len(self.asked))
        if error is None and self._rate is not None and self._in_the_last_second(now) > self._rate:
            self.throttled += 1
            error = failed("ThrottlingException")
        await asyncio.sleep(self._takes_s)
        if error is not None:
            raise error
        return {"StreamDescription": self._described(**parameters)}

    def _in_the_last_second(self, now: float) -> int:
        return len(self.times) - bisect_right(self.times, now - 1.0)

    def _described(
        self,
        StreamArn: str,  # noqa: N803
        Limit: int,  # noqa: N803
        ExclusiveStartShardId: str | None = None,  # noqa: N803
        ShardFilter: dict[str, str] | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        assert StreamArn == ARN
        ids = self.ids
        if ShardFilter is not None and self.filters != IGNORED:
            if self.filters == REFUSED:
                raise failed("ValidationException")
            assert ShardFilter["Type"] == "CHILD_SHARDS"
            of = self.children[ShardFilter["ShardId"]] if self.filters == TAKEN else []
            ids = sorted(set(of) & set(ids))
        begin = 0 if ExclusiveStartShardId is None else bisect_right(ids, ExclusiveStartShardId)
        page = ids[begin : begin + Limit]
        more = {"LastEvaluatedShardId": page[-1]} if begin + Limit < len(ids) else {}
        return {"StreamStatus": self.status, "Shards": [self._wire(each) for each in page], **more}

    def _wire(self, shard: str) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": "1"}
        if shard in self.closed:
            numbers["EndingSequenceNumber"] = "2"
        above = {"ParentShardId": _sent(self.parents[shard])} if shard in self.parents else {}
        return {"ShardId": _sent(shard), "SequenceNumberRange": numbers, **above}


def _sent(text: str) -> str:
    """The text as another object, as it comes out of each answer."""
    return text.encode().decode()


class SpacingPacer:
    """A Pacer of the running loop's time: a call on each key in `period_s`."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._free: dict[str, float] = {}

    async def pace(self, key: str) -> None:
        """Returns when the next call on `key` may be sent."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self._free.get(key, now))
        self._free[key] = turn + self._period_s
        await asyncio.sleep(turn - now)
