"""The dry run of a replay says of each shard what the stream still has of the range, as far as a look tells."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from typer.testing import CliRunner, Result

from adapters.control.settings import ApiSettings
from poller.cli import application
from poller.commands.operations.replay_ranges import LOOKED_AT_MAX, what_is_left
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.peeking.answers import FilterVerdict, PeekAnswer, PeekedRecord, PeekRequest
from poller.domain.records import Epoch, ShardId
from poller.domain.status import ShardStatus
from poller.rules.replays.asking import ReplayRange
from tests.adapters.control.serving import STATUS, STREAM, Running, Setting, View, serving

SINCE, UNTIL = Epoch(1_769_846_400.0), Epoch(1_769_850_000.0)
"""2026-01-31T08:00:00Z and an hour later."""
RANGE = ReplayRange(SINCE, UNTIL)
WORDS = ("replay", "stream/orders", "--from", "2026-01-31T08:00:00Z", "--to", "2026-01-31T09:00:00Z", "--dry-run")  # fmt: skip


def answer(arrived: float | None, *, more: bool = False) -> PeekAnswer:
    """What a look shows: one record, or none."""
    records: tuple[PeekedRecord, ...] = ()
    if arrived is not None:
        shown = PeekedRecord(
            sequence_number="7",
            key="k",
            arrived=Epoch(arrived),
            size_bytes=1,
            lane=0,
            verdict=FilterVerdict.PASSES,
        )
        records = (shown,)
    return PeekAnswer(
        mapping=STREAM.mapping,
        function="orders",
        source_arn=STREAM.source_arn,
        shard=ShardId("shardId-0"),
        start="AT_TIMESTAMP:1769846400.0",
        records=records,
        next="AFTER:7" if more else "",
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (answer(SINCE), "; its first record arrived at 2026-01-31T08:00:00Z"),
        (answer(UNTIL, more=True), "; its first record arrived at 2026-01-31T09:00:00Z"),
        (
            answer(UNTIL + 1.0),
            "; nothing of it is in the stream: the next record arrived at 2026-01-31T09:00:01Z",
        ),
        (answer(None), "; nothing of it is in the stream"),
        (answer(None, more=True), ""),
    ],
    ids=["first", "last moment", "later", "none", "not seen yet"],
)
def test_a_look_shows_what_is_left(found: PeekAnswer, text: str) -> None:
    assert what_is_left(found, RANGE) == text


@dataclass
class Peeks:
    """Looks that find nothing, or are refused."""

    refused: bool = False
    asked: list[PeekRequest] = field(default_factory=list)

    async def peek(self, mapping: str, request: PeekRequest) -> PeekAnswer:
        self.asked.append(request)
        if self.refused:
            raise ApiError(ApiErrorType.THROTTLED, "later")
        return replace(answer(None), shard=ShardId(request.shard))


def dry_run(peeks: Peeks, *words: str, shards: int) -> Result:
    """What the command says about a mapping with so many shards."""
    there = tuple(
        ShardStatus(shard=ShardId(f"shardId-{number:03}"), state="reading", position="TRIM_HORIZON")
        for number in range(shards)
    )
    status = replace(STATUS, mappings=(replace(STREAM, shards=there),))
    setting = Setting(view=View(status), peeking=peeks, api=ApiSettings(allow_unauthenticated=True))
    env = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "POLLER_TOKEN": None}

    async def use(run: Running) -> Result:
        given = [*words, "--url", run.url]
        return await asyncio.to_thread(lambda: CliRunner().invoke(application([]), given, env=env))

    return serving(use, setting)


def test_each_line_says_that_nothing_is_left_and_not_all_shards_are_looked_at() -> None:
    peeks = Peeks()
    lines = dry_run(peeks, *WORDS, shards=LOOKED_AT_MAX + 1).stdout.splitlines()[1:]
    ranges = [
        f"shard shardId-{number:03}: from 2026-01-31T08:00:00Z to 2026-01-31T09:00:00Z"
        for number in range(LOOKED_AT_MAX + 1)
    ]
    assert lines == [*(f"{each}; nothing of it is in the stream" for each in ranges[:-1]), ranges[-1]]
    assert [(each.start, each.limit) for each in peeks.asked] == [("2026-01-31T08:00:00Z", 1)] * LOOKED_AT_MAX


def test_a_look_that_is_refused_leaves_the_range() -> None:
    lines = dry_run(Peeks(refused=True), *WORDS, shards=1).stdout.splitlines()[1:]
    assert lines == ["shard shardId-000: from 2026-01-31T08:00:00Z to 2026-01-31T09:00:00Z"]


def test_a_range_that_no_replay_can_have_is_refused_by_its_option() -> None:
    peeks = Peeks()
    words = ("replay", "stream/orders", "--from", "2026-01-31T09:00:00Z", "--to", "2026-01-31T08:00:00Z")
    found = dry_run(peeks, *words, "--dry-run", shards=1)
    assert found.exit_code == 2
    assert found.stderr.startswith("poller: --to: 2026-01-31T08:00:00Z is not after from")
    assert peeks.asked == []
