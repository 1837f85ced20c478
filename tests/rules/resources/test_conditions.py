"""What the status of a resource says, and which events are told: once for each change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.resources.resource import ConditionType, MappingResource, ResourceStatus
from poller.domain.rows import MappingState
from poller.domain.status import LaneStatus, MappingStatus, MappingWorker, PauseStatus, ShardStatus
from poller.rules.resources.conditions import (
    LAG_WRITE_S,
    ResourceFacts,
    events_of,
    status_of,
    worth_writing,
    writer_of,
)

NOW = Epoch(1_800_000_000.0)
UID = "7d1f0f0e-0000-4000-8000-000000000001"


def resource(
    *, written: ResourceStatus | None = None, generation: int = 1, deleting: bool = False
) -> MappingResource:
    return MappingResource(
        namespace="work",
        name="orders",
        uid=UID,
        generation=generation,
        version="1",
        spec={},
        written=written,
        deleting=deleting,
    )


def mapping(
    state: MappingState = MappingState.ENABLED,
    *,
    reason: str = "",
    last_result: str = "OK",
    shards: tuple[ShardStatus, ...] = (),
    lanes: tuple[LaneStatus, ...] = (),
    paused: PauseStatus | None = None,
) -> MappingStatus:
    return MappingStatus(
        mapping=MappingId(UID),
        function="work",
        source_arn="arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        state=state,
        reason=reason,
        last_result=last_result,
        shards=shards,
        lanes=lanes,
        paused=paused,
    )


def shard(
    name: str = "shardId-0", *, state: str = "reading", behind_ms: int | None = 0, **lane: object
) -> ShardStatus:
    lanes = (LaneStatus(lane="0", state="waiting", **lane),) if lane else ()  # type: ignore[arg-type]
    return ShardStatus(shard=ShardId(name), state=state, position="1", behind_ms=behind_ms, lanes=lanes)


BLOCKED = shard(blocked_since=Epoch(NOW - 60), attempts=3, last_error="ValueError: no")
PAUSE = PauseStatus(operation="o1", by="ada", since=Epoch(NOW - 10), reason="deploy")


def said(facts: ResourceFacts, type_: ConditionType, **given_: bool) -> tuple[bool, str, str]:
    status = status_of(resource(**given_), facts, now=NOW)  # type: ignore[arg-type]
    found = next(each for each in status.conditions if each.type == type_)
    return found.holds, found.reason, found.message


READY, BLOCKED_, PAUSED, DEGRADED = (
    ConditionType.READY,
    ConditionType.BLOCKED,
    ConditionType.PAUSED,
    ConditionType.DEGRADED,
)


@pytest.mark.parametrize(
    ("facts", "type_", "expected"),
    [
        (ResourceFacts(), READY, (False, "Creating", "the mapping is being created")),
        (ResourceFacts(mapping=mapping()), READY, (True, "Running", "the mapping runs")),
        (
            ResourceFacts(mapping=mapping(MappingState.DISABLED)),
            READY,
            (True, "Disabled", "disabled by its spec"),
        ),
        (ResourceFacts(mapping=mapping(reason="no stream")), READY, (False, "NotOpen", "no stream")),
        (
            ResourceFacts(mapping=mapping(MappingState.UPDATING)),
            READY,
            (False, "Updating", "running invocations finish before the changed mapping starts"),
        ),
        (
            ResourceFacts(mapping=mapping(MappingState.BROKEN, reason="KeyError")),
            READY,
            (False, "Broken", "KeyError"),
        ),
        (
            ResourceFacts(invalid="Unrecognized event source."),
            READY,
            (False, "Invalid", "Unrecognized event source."),
        ),
        (
            ResourceFacts(invalid="no", mapping=mapping()),
            READY,
            (False, "Invalid", "no; the mapping goes on as before the change"),
        ),
        (ResourceFacts(conflict="twin"), READY, (False, "Conflict", "twin")),
        (ResourceFacts(mapping=mapping()), BLOCKED_, (False, "NotBlocked", "NotBlocked")),
        (
            ResourceFacts(mapping=mapping(shards=(shard("a"), BLOCKED))),
            BLOCKED_,
            (
                True,
                "BatchFails",
                "shard shardId-0 is blocked since 2027-01-15T07:59:00Z, 3 attempts: ValueError: no",
            ),
        ),
        (ResourceFacts(mapping=mapping()), PAUSED, (False, "NotPaused", "NotPaused")),
        (
            ResourceFacts(mapping=mapping(paused=PAUSE)),
            PAUSED,
            (True, "ByOperator", "paused by ada since 2027-01-15T07:59:50Z: deploy"),
        ),
        (
            ResourceFacts(mapping=mapping(MappingState.DISABLED)),
            PAUSED,
            (True, "Disabled", "disabled by its spec"),
        ),
        (ResourceFacts(mapping=mapping()), DEGRADED, (False, "AsExpected", "AsExpected")),
        (
            ResourceFacts(mapping=mapping(last_result="PROBLEM: Function call failed")),
            DEGRADED,
            (True, "LastResult", "PROBLEM: Function call failed"),
        ),
        (
            ResourceFacts(mapping=mapping(shards=(replace(shard(state="failing"), reason="denied"),))),
            DEGRADED,
            (True, "ShardNotRead", "shard shardId-0 cannot be read: denied"),
        ),
        (
            ResourceFacts(mapping=mapping(shards=(replace(shard(), losses=2),))),
            DEGRADED,
            (True, "RecordsLost", "records were lost 2 times before they could be read"),
        ),
    ],
)
def test_the_conditions(facts: ResourceFacts, type_: ConditionType, expected: tuple[bool, str, str]) -> None:
    assert said(facts, type_) == expected


def test_a_resource_that_is_deleted_is_not_ready() -> None:
    found = said(ResourceFacts(mapping=mapping(MappingState.DELETING)), READY, deleting=True)
    assert found == (False, "Deleting", "running invocations finish before the mapping is removed")


def test_only_a_spec_that_cannot_be_carried_out_is_stalled() -> None:
    def stalled(facts: ResourceFacts) -> list[str]:
        status = status_of(resource(), facts, now=NOW)
        return [each.reason for each in status.conditions if each.type == ConditionType.STALLED]

    assert stalled(ResourceFacts(mapping=mapping(reason="no stream"))) == []
    assert stalled(ResourceFacts(invalid="no")) == ["Invalid"]
    assert stalled(ResourceFacts(conflict="twin")) == ["Conflict"]


def test_a_blocked_batch_of_another_worker_that_is_only_counted_blocks_too() -> None:
    elsewhere = replace(
        mapping(), workers=(MappingWorker(worker="b", state=MappingState.ENABLED, blocked=2),)
    )
    assert said(ResourceFacts(mapping=elsewhere), BLOCKED_) == (
        True,
        "BatchFails",
        "2 shards or lanes blocked",
    )


def test_shards_and_lag() -> None:
    shards = (
        shard("a", behind_ms=1_500),
        shard("b", behind_ms=61_000),
        shard("c", state="ended", behind_ms=None),
    )
    status = status_of(resource(), ResourceFacts(mapping=mapping(shards=shards)), now=NOW)
    assert (status.shards, status.lag_s, status.uuid, status.state) == (2, 61, UID, "Enabled")
    queue = replace(mapping(), pollers=3)
    assert status_of(resource(), ResourceFacts(mapping=queue), now=NOW).shards is None


facts = st.builds(
    ResourceFacts,
    invalid=st.sampled_from(["", "no"]),
    conflict=st.sampled_from(["", "twin"]),
    mapping=st.none()
    | st.builds(
        mapping,
        st.sampled_from(list(MappingState)),
        reason=st.sampled_from(["", "why"]),
        shards=st.sampled_from([(), (shard(),), (BLOCKED,)]),
        paused=st.sampled_from([None, PAUSE]),
    ),
)


@given(st.lists(facts, min_size=1, max_size=8))
def test_a_moment_of_change_moves_only_when_the_condition_changes_and_each_change_is_told_once(
    course: list[ResourceFacts],
) -> None:
    written: ResourceStatus | None = None
    blocked = False
    keys: list[str] = []
    told: list[str] = []
    for step, each in enumerate(course):
        seen = resource(written=written)
        now = Epoch(NOW + 5.0 * step)
        status = status_of(seen, each, now=now)
        for condition in status.conditions:
            before = seen.condition(ConditionType(condition.type))
            same = before is not None and before.holds == condition.holds
            assert condition.since == (before.since if same and before is not None else now)
        for event in events_of(seen, status):
            keys.append(event.key)
            if event.reason in {"Blocked", "Freed"}:
                told.append(event.reason)
        holds = next(one.holds for one in status.conditions if one.type == ConditionType.BLOCKED)
        assert told[-1:] == (["Blocked"] if holds else ["Freed"] if blocked or told else [])
        blocked, written = holds, status
        # Whoever looks again without a change has nothing to write and nothing to tell.
        again = status_of(resource(written=written), each, now=Epoch(now + 1))
        assert not worth_writing(again, written, since_s=1.0)
        assert [one.reason for one in events_of(resource(written=written), again)] == []
    assert len(keys) == len(set(keys))


def test_a_lag_alone_is_written_now_and_then() -> None:
    status = status_of(resource(), ResourceFacts(mapping=mapping(shards=(shard(behind_ms=5_000),))), now=NOW)
    later = replace(status, lag_s=9)
    assert worth_writing(status, None, since_s=0.0)
    assert not worth_writing(status, status, since_s=0.0)
    assert not worth_writing(later, status, since_s=LAG_WRITE_S - 1)
    assert worth_writing(later, status, since_s=LAG_WRITE_S)
    assert worth_writing(replace(later, state="Updating"), status, since_s=0.0)


@given(
    st.text(min_size=1, max_size=8),
    st.sets(st.text(min_size=1, max_size=4), min_size=2, max_size=5),
    st.integers(0, 2**32),
)
def test_every_worker_names_the_same_writer_and_keeps_it_when_another_leaves(
    uid: str, workers: set[str], salt: int
) -> None:
    def rank(text: str) -> int:
        return hash((text, salt))

    writer = writer_of(uid, sorted(workers), rank)
    assert writer == writer_of(uid, sorted(workers, reverse=True), rank)
    leaver = next(each for each in sorted(workers) if each != writer)
    assert writer_of(uid, sorted(workers - {leaver}), rank) == writer
