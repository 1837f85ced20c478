"""Replays of streams that are odd: with tumbling windows, without a lag, deleted and made again."""

import asyncio
import json
from dataclasses import dataclass, field

from poller.domain.invocations import Invocation, Outcome, Succeeded
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch
from tests.runtime.daemons import now
from tests.runtime.fakes import SHARD, FakeFunction, mapping
from tests.runtime.replays.stage import DONE, Stage, TimedStream, fill, flat, perform
from tests.virtual import EPOCH_BASE


class Adding(FakeFunction):
    """A function that counts the records of each window in its state."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[tuple[str, int, bool]] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        event = json.loads(invocation.payload)
        count = event["state"].get("count", 0) + len(event["Records"])
        if event["isFinalInvokeForWindow"]:
            self.windows.append((event["window"]["start"], count, event["isWindowTerminatedEarly"]))
        return Succeeded(json.dumps({"state": {"count": count}}).encode())


def test_windows_of_a_replay_are_its_own_and_all_of_them_are_closed() -> None:
    audit, reader = Adding(), Adding()
    stage = Stage(audit=audit, reader=reader, plan=mapping(tumbling_window_s=10))
    fill(stage, *range(1, 31), age_s=40.0)

    async def play(stage: Stage) -> None:
        await asyncio.sleep(10)
        before = list(reader.windows)
        over = await stage.over(
            await stage.replay(since=EPOCH_BASE - 35.0, until=EPOCH_BASE - 15.0, function="audit")
        )
        assert over.state is DONE
        assert [(start, count) for start, count, _ in audit.windows] == [
            ("2025-12-31T23:59:20Z", 5),
            ("2025-12-31T23:59:30Z", 10),
            ("2025-12-31T23:59:40Z", 6),
        ]
        assert [count for _, count, _ in before] == [10, 10, 10]
        assert reader.windows == before

    perform(stage, play)


def test_a_stream_that_does_not_say_its_lag_is_read_to_its_tip() -> None:
    stage = Stage()
    stage.stream.behind_ms = None  # type: ignore[assignment] # as DynamoDB, which does not say it
    fill(stage, 1, 2, 3)

    async def play(stage: Stage) -> None:
        began = now()
        over = await stage.over(await stage.replay(function="audit"))
        assert over.state is DONE
        assert flat(stage.audit.calls) == [1, 2, 3]
        assert 13 < now() - began < 25

    perform(stage, play)


@dataclass
class DatedStream(TimedStream):
    """A stream that says when it was created."""

    made: float = field(default=EPOCH_BASE - 1000)

    async def created(self) -> Epoch | None:
        return Epoch(self.made)


def test_a_replay_of_a_stream_that_is_made_again_ends_and_says_what_was_lost() -> None:
    stage = Stage(
        stream=DatedStream(),
        audit=FakeFunction(takes_s=0.5),
        plan=mapping(batch=BatchPolicy(1)),
    )
    fill(stage, *range(1, 201))

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit", records_per_s=2)
        await asyncio.sleep(10)
        assert isinstance(stage.stream, DatedStream)
        stage.stream.held = {SHARD: []}
        stage.stream.made = EPOCH_BASE + now()
        stage.stream.trims = True
        fill(stage, 1001, 1002, age_s=-20)
        over = await stage.over(operation, within_s=600)
        assert over.state is DONE
        assert over.progress["losses"] >= 1
        assert max(flat(stage.audit.calls)) < 1000

    perform(stage, play)
