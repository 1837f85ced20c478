"""Replays on whole daemons and virtual time."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.mapping_api import ApiError
from poller.domain.plan import FunctionPlan
from poller.domain.policies import RetryPolicy
from poller.domain.records import Position, ShardId
from poller.domain.telemetry.labels import Replayed
from poller.domain.telemetry.mapping_events import Blocked, InvocationFinished, Polled, ShardStarted
from poller.domain.telemetry.operation_events import ReplayCounted, ReplayTroubled
from tests.runtime.daemons import FAILED as FAILED_QUEUE
from tests.runtime.daemons import daemon_plan, now
from tests.runtime.fakes import SHARD, FakeDestination, FakeFunction, mapping, poison
from tests.runtime.replays.stage import CANCELLED, DONE, FAILED, QUICK, Stage, fill, flat, perform
from tests.virtual import EPOCH_BASE

ONE, TWO = ShardId("shardId-000000000001"), ShardId("shardId-000000000002")
BATCHES_OF_ONE = replace(mapping().batch, records_max=1)


def test_a_replay_calls_another_function_with_the_old_records_and_leaves_the_mapping_where_it_is() -> None:
    stage = Stage()
    fill(stage, 1, 2, 3, 4, 5)

    async def play(stage: Stage) -> None:
        before = await stage.positions()
        over = await stage.over(await stage.replay(function="audit"))
        assert (over.state, over.result) == (
            DONE,
            "5 records replayed, from TRIM_HORIZON to 2026-01-01T00:00:05Z",
        )
        assert over.progress == {
            "shards": 1, "ended": 1, "records": 5, "filtered": 0, "failed": 0, "skipped": 0, "losses": 0,
            "undated": 0,
        }  # fmt: skip
        assert flat(stage.audit.calls) == flat(stage.reader.calls) == [1, 2, 3, 4, 5]
        assert await stage.positions() == before == {SHARD: Position.after("5").encode()}

    perform(stage, play)


def test_a_replay_without_a_function_calls_that_of_its_mapping_again() -> None:
    stage = Stage()
    fill(stage, 1, 2)

    async def play(stage: Stage) -> None:
        await stage.over(await stage.replay())
        assert stage.reader.calls == [[1, 2], [1, 2]]

    perform(stage, play)


def test_a_replay_has_the_records_between_two_times_only() -> None:
    stage = Stage()
    fill(stage, 1, 2, 3, 4, 5, 6, age_s=10.0)

    async def play(stage: Stage) -> None:
        await stage.over(await stage.replay(since=EPOCH_BASE - 9.0, until=EPOCH_BASE - 6.0, function="audit"))
        assert flat(stage.audit.calls) == [2, 3, 4, 5]

    perform(stage, play)


def test_records_that_come_later_are_the_mapping_s_alone() -> None:
    stage = Stage()
    fill(stage, 1, 2)

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        fill(stage, 3, age_s=-5.1)
        await stage.over(operation)
        assert flat(stage.audit.calls) == [1, 2]
        assert flat(stage.reader.calls) == [1, 2, 3]

    perform(stage, play)


def test_a_replay_to_a_time_to_come_follows_the_stream_until_then() -> None:
    stage = Stage()
    fill(stage, 1)

    async def play(stage: Stage) -> None:
        operation = await stage.replay(until=EPOCH_BASE + 20.0, function="audit")
        await asyncio.sleep(10)
        fill(stage, 2, age_s=-15.0)
        await asyncio.sleep(6)
        fill(stage, 3, age_s=-21.0)
        assert (await stage.over(operation)).state is DONE
        assert flat(stage.audit.calls) == [1, 2]
        assert now() < 40

    perform(stage, play)


def test_a_filter_and_a_rate_are_the_replay_s_own() -> None:
    stage = Stage()
    fill(stage, *range(1, 41))

    async def play(stage: Stage) -> None:
        began = now()
        pattern = '{"partitionKey":["nobody"]}'
        slow = await stage.over(await stage.replay(function="audit", records_per_s=4))
        assert 9 < now() - began < 16
        assert flat(stage.audit.calls) == list(range(1, 41))
        assert max(map(len, stage.audit.calls)) <= 4
        none = await stage.over(await stage.replay(function="audit", filter=pattern))
        assert none.progress["filtered"] == slow.progress["records"] == 40
        assert len(flat(stage.audit.calls)) == 40

    perform(stage, play)


def test_a_batch_that_fails_ends_the_replay_and_nothing_behind_it_is_called() -> None:
    audit = FakeFunction(poison(3))
    stage = Stage(audit=audit, plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, 1, 2, 3, 4, 5)

    async def play(stage: Stage) -> None:
        over = await stage.over(await stage.replay(function="audit"))
        assert (over.state, over.result) == (
            FAILED,
            f"record 3 of shard {SHARD} failed (RetryAttemptsExhausted); nothing behind was called",
        )
        assert audit.calls == [[1], [2], [3], [3], [3]]
        assert (over.progress["records"], over.progress["failed"]) == (2, 3)
        await asyncio.sleep(60)
        assert len(audit.calls) == 5

    perform(stage, play)


def test_a_batch_that_fails_is_dropped_where_the_replay_says_so() -> None:
    audit = FakeFunction(poison(3))
    stage = Stage(audit=audit, plan=mapping(batch=BATCHES_OF_ONE, retry=RetryPolicy(retries_max=0)))
    fill(stage, 1, 2, 3, 4, 5)

    async def play(stage: Stage) -> None:
        over = await stage.over(await stage.replay(function="audit", on_failure="skip"))
        assert over.state is DONE
        assert flat(audit.calls) == [1, 2, 3, 4, 5]
        assert (over.progress["records"], over.progress["skipped"]) == (4, 1)
        assert over.result.endswith("; 1 skipped")

    perform(stage, play)


def test_a_batch_that_fails_goes_to_the_destination_that_the_replay_names() -> None:
    destination = FakeDestination()
    stage = Stage(audit=FakeFunction(poison(3)), plan=mapping(batch=BATCHES_OF_ONE))
    stage.site.destinations[FAILED_QUEUE] = destination
    fill(stage, 1, 2, 3, 4)

    async def play(stage: Stage) -> None:
        over = await stage.over(await stage.replay(function="audit", on_failure=FAILED_QUEUE))
        assert over.progress["skipped"] == 1
        assert flat(stage.audit.calls)[-1] == 4
        (notice,) = destination.notices
        assert b'"startSequenceNumber":"3"' in notice.document
        assert notice.mapping == stage.plan.mapping, (
            "a redrive of the mapping looks for its notices by its id"
        )

    perform(stage, play)


def test_the_mapping_s_metrics_and_last_result_are_not_those_of_its_replays() -> None:
    stage = Stage(audit=FakeFunction(poison(2)), plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, 1, 2)

    async def play(stage: Stage) -> None:
        del stage.site.seen.events[:]
        await stage.over(await stage.replay(function="audit", on_failure="skip"))
        for kind in (InvocationFinished, Blocked, ShardStarted):
            assert stage.site.seen.of(kind) == []
        assert {each.mapping for each in stage.site.seen.of(Polled)} == {stage.plan.mapping}
        counts = [(each.result, each.records) for each in stage.site.seen.of(ReplayCounted)]
        assert counts == [
            (Replayed.PROCESSED, 1),
            *[(Replayed.FAILED, 1)] * 3,
            (Replayed.SKIPPED, 1),
        ]
        troubles = {each.what for each in stage.site.seen.of(ReplayTroubled)}
        assert troubles == {"a call failed", "records were given up"}
        (status,) = stage.worker.status().mappings
        assert status.last_result == "OK"

    perform(stage, play)


def test_a_replay_is_no_mapping_of_the_user_and_leaves_nothing_behind() -> None:
    stage = Stage()
    fill(stage, 1)

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit", until=EPOCH_BASE + 20)
        await asyncio.sleep(3)
        assert len(await stage.hidden()) == 1
        assert [each.mapping for each in stage.worker.status().mappings] == [stage.plan.mapping]
        assert [each.mapping for each in stage.worker.control.views()] == [stage.plan.mapping]
        assert stage.worker.status().ready
        await stage.over(operation)
        await asyncio.sleep(15)
        assert await stage.hidden() == []

    perform(stage, play)


def test_a_cancelled_replay_stops_within_two_seconds() -> None:
    stage = Stage(audit=FakeFunction(takes_s=0.5), plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, *range(1, 201))

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        await asyncio.sleep(10)
        over = await stage.worker.operations.cancel(operation.operation, by="bob")
        assert (over.state, over.result) == (CANCELLED, "cancelled by bob")
        await asyncio.sleep(2)
        calls = len(stage.audit.calls)
        assert 10 < calls < 30
        await asyncio.sleep(30)
        assert len(stage.audit.calls) == calls
        assert await stage.hidden() == []

    perform(stage, play)


def test_a_pause_of_the_whole_mapping_holds_its_replays() -> None:
    stage = Stage(audit=FakeFunction(takes_s=0.5), plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, *range(1, 21))

    async def play(stage: Stage) -> None:
        control = stage.worker.operations
        operation = await stage.replay(function="audit")
        await asyncio.sleep(4)
        await control.submit(stage.plan.mapping, {"action": "pause"}, by="ann")
        await asyncio.sleep(3)
        calls = len(stage.audit.calls)
        await asyncio.sleep(30)
        assert len(stage.audit.calls) == calls
        await control.submit(stage.plan.mapping, {"action": "resume"}, by="ann")
        assert (await stage.over(operation)).state is DONE
        assert flat(stage.audit.calls) == list(range(1, 21))

    perform(stage, play)


def test_a_replay_goes_on_behind_records_that_are_removed_under_it_and_says_so() -> None:
    stage = Stage(audit=FakeFunction())
    fill(stage, 1, 2, 3)

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit", until=EPOCH_BASE + 20, records_per_s=10)
        await asyncio.sleep(3)
        stage.stream.trims = True
        over = await stage.over(operation)
        assert over.state is DONE
        assert over.progress["losses"] == 1
        assert over.result.endswith("records were removed from the stream before they were read, once")

    perform(stage, play)


def test_a_replay_fails_if_nothing_of_its_range_is_left() -> None:
    stage = Stage()
    stage.stream.kept_s = 3600.0
    fill(stage, 1, age_s=1.0)

    async def play(stage: Stage) -> None:
        over = await stage.over(
            await stage.replay(since=EPOCH_BASE - 9000, until=EPOCH_BASE - 8000, function="audit")
        )
        assert over.state is FAILED
        assert over.result.endswith("is left in the stream, which keeps records for 1 h")
        assert stage.audit.calls == []

    perform(stage, play)


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({"until": "495"}, "to: a sequence number belongs to one shard"),
        ({"on_failure": "nowhere"}, "on_failure: 'nowhere' is no destination"),
        ({"function": "nobody"}, "function: there is no function 'nobody'; configured are audit, reader"),
        ({"function": "not a name!"}, "function: there is no function 'not a name!'"),
        ({"filter": "{"}, "filter: the pattern cannot be used"),
        ({"shard": SHARD}, "shard: replay is for a whole mapping"),
    ],
)
def test_a_replay_that_cannot_be_carried_out_is_refused_at_once(
    members: dict[str, str], refusal: str
) -> None:
    async def play(stage: Stage) -> None:
        with pytest.raises(ApiError) as refused:
            await stage.replay(**members)
        assert refused.value.text.startswith(refusal)

    perform(Stage(), play)


def test_a_second_replay_of_a_mapping_waits_for_the_first() -> None:
    async def play(stage: Stage) -> None:
        await stage.replay(function="audit", until=EPOCH_BASE + 60)
        with pytest.raises(
            ApiError, match="of this mapping is not over; wait until it is over, or cancel it"
        ):
            await stage.replay(function="audit")

    perform(Stage(), play)


def test_new_settings_of_its_function_restart_a_replay_where_it_was() -> None:
    stage = Stage(audit=FakeFunction(takes_s=0.5), plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, *range(1, 41))

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        functions = {"audit": FunctionPlan(name="audit", invoker="fake", timeout_s=7.0, max_concurrency=1)}
        stage.worker.replan(daemon_plan(stage.plan, functions=functions, worker="worker-1", tuning=QUICK))
        assert (await stage.over(operation)).state is DONE
        assert flat(stage.audit.calls) == list(range(1, 41))
        assert stage.site.open_now.count("audit") <= 1

    perform(stage, play)


def test_a_changed_mapping_leaves_its_replay_as_it_was_accepted() -> None:
    stage = Stage(audit=FakeFunction(takes_s=0.5), plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, *range(1, 21))

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        await asyncio.sleep(3)
        changed = replace(stage.plan, batch=replace(stage.plan.batch, records_max=50))
        functions = {"audit": FunctionPlan(name="audit", invoker="fake", timeout_s=30.0)}
        stage.worker.replan(daemon_plan(changed, functions=functions, worker="worker-1", tuning=QUICK))
        assert (await stage.over(operation)).state is DONE
        assert stage.audit.calls == [[number] for number in range(1, 21)]

    perform(stage, play)


def test_a_replay_waits_while_its_mapping_is_disabled() -> None:
    stage = Stage(audit=FakeFunction(takes_s=0.5), plan=mapping(batch=BATCHES_OF_ONE))
    fill(stage, *range(1, 21))

    async def play(stage: Stage) -> None:
        functions = {"audit": FunctionPlan(name="audit", invoker="fake", timeout_s=30.0)}

        def enable(enabled: bool) -> None:
            changed = replace(stage.plan, enabled=enabled)
            stage.worker.replan(daemon_plan(changed, functions=functions, worker="worker-1", tuning=QUICK))

        operation = await stage.replay(function="audit")
        await asyncio.sleep(4)
        enable(False)
        await asyncio.sleep(4)
        calls = len(stage.audit.calls)
        assert 0 < calls < 20
        await asyncio.sleep(60)
        assert len(stage.audit.calls) == calls
        enable(True)
        assert (await stage.over(operation)).state is DONE
        assert flat(stage.audit.calls) == list(range(1, 21))

    perform(stage, play)


def fails_until(moment: float) -> FakeFunction:
    def answer(_: list[int]) -> Outcome:
        return Succeeded(b"") if now() > moment else FunctionError("ValueError", "not yet")

    return FakeFunction(answer)


def test_a_function_that_recovers_in_time_does_not_end_the_replay() -> None:
    stage = Stage(audit=fails_until(6.0), plan=mapping(retry=RetryPolicy(retries_max=100)))
    fill(stage, 1, 2)

    async def play(stage: Stage) -> None:
        over = await stage.over(await stage.replay(function="audit"))
        assert over.state is DONE
        assert stage.audit.calls[-1] == [1, 2]

    perform(stage, play)
