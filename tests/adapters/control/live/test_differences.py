"""What of a status is sent to somebody who has an earlier one: everything that matters at once, and the rest before long."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.control.live import differences
from adapters.control.live.differences import FUNCTIONS_EVERY, HEAD, MINOR_MAX, SentStatus
from poller.domain.functions.waiting_calls import CallsStatus
from poller.domain.records import Epoch, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import (
    BreakerStatus,
    DaemonStatus,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    MappingWorker,
    PauseStatus,
    RateStatus,
    ShardStatus,
    WorkerBreaker,
    WorkerState,
    WorkerStatus,
)
from poller.domain.untrusted.rendering import as_json
from tests.adapters.control.serving import LANE, QUEUED, STREAM

SHARD = ShardStatus(
    shard=ShardId("s-0"), state="reading", position="AFTER:1", behind_ms=0, owner="w", age_s=1.5
)
BREAKER = BreakerStatus(state="closed", since=Epoch(1.0), calls=1)
FUNCTION = FunctionStatus(
    function="orders",
    rate=RateStatus(invocations_per_s=1.0, records_per_s=None, share=1.0),
    breaker=BREAKER,
    breakers=(WorkerBreaker(worker="v", breaker=BREAKER, age_s=2.0),),
)
CALLS = CallsStatus(function="f", calls=3, seen=3, waiting=3, oldest=Epoch(1.0))
PAUSE = PauseStatus(operation="o", by="b", since=Epoch(1.0), reason="r")
STATUS = DaemonStatus(
    worker="w",
    mappings=(
        replace(STREAM, shards=(SHARD,), workers=(MappingWorker(worker="v", state=MappingState.ENABLED),)),
        replace(QUEUED, lanes=(replace(LANE, lane="g", worker="v"),)),
    ),
    ready=True,
    alive=True,
    workers=(WorkerStatus(worker="w", state=WorkerState.ALIVE, age_s=0.2),),
    functions=(FUNCTION,),
    calls=(CALLS,),
)
STREAM_NAME, QUEUE_NAME = STATUS.mappings[0].mapping, STATUS.mappings[1].mapping


def stream(**changes: Any) -> DaemonStatus:
    return replace(STATUS, mappings=(replace(STATUS.mappings[0], **changes), STATUS.mappings[1]))


def shard(**changes: Any) -> DaemonStatus:
    return stream(shards=(replace(SHARD, **changes),))


def queue(**changes: Any) -> DaemonStatus:
    return replace(STATUS, mappings=(STATUS.mappings[0], replace(STATUS.mappings[1], **changes)))


def lane(**changes: Any) -> DaemonStatus:
    return queue(lanes=(replace(STATUS.mappings[1].lanes[0], **changes),))


def function(**changes: Any) -> DaemonStatus:
    return replace(STATUS, functions=(replace(FUNCTION, **changes),))


SHARDS, LANES = {"shards": {STREAM_NAME}}, {"lanes": {QUEUE_NAME}}
CASES: dict[str, tuple[DaemonStatus, Any]] = {
    "nothing": (STATUS, {}),
    "a position": (shard(position="AFTER:2"), SHARDS),
    "a lag": (shard(behind_ms=7), SHARDS),
    "a shard's state": (shard(state="blocked"), SHARDS),
    "a lane of a shard": (shard(lanes=(LANE,)), SHARDS),
    "a shard's pause": (shard(paused=PAUSE), SHARDS),
    "a shard's age": (shard(age_s=9.0), {}),
    "a shard that is out of date": (shard(out_of_date=True), SHARDS),
    "a lane of a queue": (lane(state="invoking"), LANES),
    "lanes that came": (queue(lanes=(LANE, LANE)), LANES),
    "lanes that went": (queue(lanes=()), LANES),
    "a mapping's state": (stream(state=MappingState.BROKEN), {"mappings": [STREAM_NAME]}),
    "a mapping's last result": (stream(result_at=Epoch(5.0)), {"mappings": [STREAM_NAME]}),
    "a mapping's pollers": (queue(pollers=9), {"mappings": [QUEUE_NAME]}),
    "the age of a mapping's worker": (
        stream(workers=(MappingWorker(worker="v", state=MappingState.ENABLED, age_s=4.0),)),
        {},
    ),
    "the state of a mapping's worker": (
        stream(workers=(MappingWorker(worker="v", state=MappingState.BROKEN),)),
        {"mappings": [STREAM_NAME]},
    ),
    "a worker's age within a second": (
        replace(STATUS, workers=(replace(STATUS.workers[0], age_s=0.4),)),
        {},
    ),
    "a worker's age": (replace(STATUS, workers=(replace(STATUS.workers[0], age_s=3.2),)), {"workers": 1}),
    "a worker that is never heard": (
        replace(STATUS, workers=(replace(STATUS.workers[0], age_s=None),)),
        {"workers": 1},
    ),
    "problems": (replace(STATUS, problems=("draining",), ready=False), {"problems": 1, "ready": False}),
    "notes": (replace(STATUS, notes=("n",)), {"notes": 1}),
    "completeness": (replace(STATUS, complete=False), {"complete": False}),
    "a breaker": (function(breaker=replace(BREAKER, state="open")), {"functions": 1}),
    "another worker's breaker": (
        function(breakers=(WorkerBreaker(worker="v", breaker=replace(BREAKER, state="open")),)),
        {"functions": 1},
    ),
    "the age of another worker's breaker": (
        function(breakers=(WorkerBreaker(worker="v", breaker=BREAKER, age_s=8.0),)),
        {},
    ),
}
CASES |= {
    "asynchronous calls that went": (replace(STATUS, calls=()), {"calls": 0}),
    "an error of asynchronous calls": (
        replace(STATUS, calls=(replace(CALLS, last_error="no"),)),
        {"calls": 1},
    ),
    "asynchronous calls that are not delivered": (
        replace(STATUS, calls=(replace(CALLS, undelivered=1),)),
        {"calls": 1},
    ),
}
WHOLE = {
    "a shard came": stream(shards=(SHARD, replace(SHARD, shard=ShardId("s-1")))),
    "a shard went": stream(shards=()),
    "another shard": shard(shard=ShardId("s-9")),
    "a mapping went": replace(STATUS, mappings=STATUS.mappings[:1]),
    "a worker came": replace(STATUS, workers=(*STATUS.workers, WorkerStatus(worker="x", state=WorkerState.ALIVE))),
    "a function went": replace(STATUS, functions=()),
    "another worker answers": replace(STATUS, worker="x"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_differs_is_sent_and_nothing_else(case: str) -> None:
    status, expected = CASES[case]
    sent = SentStatus(STATUS)
    found = sent.changes(status)
    assert found is not None
    shown = {name: shape(name, value) for name, value in found.items()}
    assert shown == expected
    assert sent.changes(status) == {}


def shape(name: str, value: Any) -> Any:
    """What of a member the table names."""
    match name:
        case "shards" | "lanes":
            return set(value)
        case "mappings":
            return [each["mapping"] for each in value]
        case "ready" | "complete" | "alive":
            return value
        case _:
            return len(value)


@pytest.mark.parametrize("case", WHOLE)
def test_when_something_came_or_went_the_whole_status_is_needed(case: str) -> None:
    assert SentStatus(STATUS).changes(WHOLE[case]) is None


def test_a_mapping_is_sent_with_every_member_but_shards_and_lanes() -> None:
    found = SentStatus(STATUS).changes(stream(state=MappingState.BROKEN))
    assert found is not None
    (mapping,) = found["mappings"]
    assert tuple(mapping) == HEAD
    assert {*HEAD, "shards", "lanes"} == set(json.loads(as_json(STATUS.mappings[0])))


def test_counts_of_functions_are_sent_now_and_then() -> None:
    sent, when = SentStatus(STATUS), []
    for update in range(1, 3 * FUNCTIONS_EVERY + 1):
        if sent.changes(function(breaker=replace(BREAKER, calls=update + 1))):
            when.append(update)
    assert when == [FUNCTIONS_EVERY, 2 * FUNCTIONS_EVERY, 3 * FUNCTIONS_EVERY]


def test_counts_of_asynchronous_calls_are_sent_now_and_then() -> None:
    sent, when = SentStatus(STATUS), []
    for update in range(1, 3 * FUNCTIONS_EVERY + 1):
        if sent.changes(replace(STATUS, calls=(replace(CALLS, calls=3 + update),))):
            when.append(update)
    assert when == [FUNCTIONS_EVERY, 2 * FUNCTIONS_EVERY, 3 * FUNCTIONS_EVERY]


def many(count: int, **changes: Any) -> DaemonStatus:
    found = tuple(replace(SHARD, shard=ShardId(f"s-{number}"), **changes) for number in range(count))
    return stream(shards=found)


def test_of_busy_shards_a_limited_number_is_sent_and_each_comes_in_turn() -> None:
    count = 5 * MINOR_MAX
    sent, seen = SentStatus(many(count)), list[set[str]]()
    for update in range(1, 11):
        found = sent.changes(many(count, position=f"AFTER:{update}", behind_ms=update))
        assert found is not None
        seen.append({each.shard for each in found["shards"][STREAM_NAME]})
    assert {len(each) for each in seen} == {MINOR_MAX}
    for first in (0, 5):
        assert len(set[str]().union(*seen[first : first + 5])) == count


def test_what_matters_is_sent_at_once_however_busy_the_others_are() -> None:
    count = 5 * MINOR_MAX
    sent = SentStatus(many(count))
    busy = many(count, position="AFTER:2")
    shards = list(busy.mappings[0].shards)
    for number in range(0, count, 2):
        shards[number] = replace(shards[number], state="blocked", lanes=(LANE,))
    found = sent.changes(stream(shards=tuple(shards)))
    assert found is not None
    told = {each.shard: each.state for each in found["shards"][STREAM_NAME]}
    assert sum(state == "blocked" for state in told.values()) == count // 2
    assert sum(state == "reading" for state in told.values()) == MINOR_MAX


class Client:
    """A reader that has the whole status once, and changes it by what comes."""

    def __init__(self, status: DaemonStatus) -> None:
        self.state: dict[str, Any] = {}
        self.sent = SentStatus(status)
        self.whole(status)

    def whole(self, status: DaemonStatus) -> None:
        self.state = json.loads(as_json(status))

    def look(self, status: DaemonStatus) -> None:
        changes = self.sent.changes(status)
        if changes is None:
            self.sent = SentStatus(status)
            self.whole(status)
            return
        found = json.loads(as_json(changes))
        shards, lanes = found.pop("shards", {}), found.pop("lanes", {})
        heads = {each["mapping"]: each for each in found.pop("mappings", [])}
        for mapping in self.state["mappings"]:
            name = mapping["mapping"]
            mapping |= heads.get(name, {})
            mapping["lanes"] = lanes.get(name, mapping["lanes"])
            new = {each["shard"]: each for each in shards.get(name, [])}
            mapping["shards"] = [new.get(each["shard"], each) for each in mapping["shards"]]
        self.state |= found


def without_ages(value: Any) -> Any:
    match value:
        case dict():
            return {name: without_ages(each) for name, each in value.items() if name != "age_s"}
        case list():
            return [without_ages(each) for each in value]
        case _:
            return value


LANES_DRAWN = st.lists(
    st.builds(
        LaneStatus,
        lane=st.sampled_from("ab"),
        state=st.sampled_from(["idle", "invoking"]),
        attempts=st.integers(0, 2),
        blocked_since=st.none() | st.just(Epoch(1.0)),
        last_error=st.sampled_from(["", "e"]),
    ),
    max_size=3,
).map(tuple)
SHARDS_DRAWN = st.lists(
    st.builds(
        ShardStatus,
        shard=st.sampled_from(["1", "2", "3"]).map(ShardId),
        state=st.sampled_from(["reading", "blocked"]),
        position=st.sampled_from(["AFTER:1", "AFTER:2"]),
        behind_ms=st.none() | st.integers(0, 3),
        lanes=LANES_DRAWN,
        age_s=st.floats(0, 5),
    ),
    max_size=3,
    unique_by=lambda each: each.shard,
).map(tuple)
MAPPINGS_DRAWN = st.lists(
    st.builds(
        MappingStatus,
        mapping=st.sampled_from([STREAM_NAME, QUEUE_NAME]),
        function=st.just("f"),
        source_arn=st.just("a"),
        state=st.sampled_from([MappingState.ENABLED, MappingState.BROKEN]),
        shards=SHARDS_DRAWN,
        lanes=LANES_DRAWN,
        result_at=st.none() | st.floats(0, 9).map(Epoch),
    ),
    max_size=2,
    unique_by=lambda each: each.mapping,
).map(tuple)
STATUSES = st.builds(
    DaemonStatus,
    worker=st.just("w"),
    mappings=MAPPINGS_DRAWN,
    ready=st.booleans(),
    alive=st.booleans(),
    notes=st.lists(st.sampled_from("xy"), max_size=2).map(tuple),
    functions=st.sampled_from([(), (FUNCTION,), (replace(FUNCTION, breaker=replace(BREAKER, calls=7)),)]),
    calls=st.sampled_from(
        [(), (CALLS,), (replace(CALLS, calls=7),), (CALLS, replace(CALLS, function="g", last_error="no"))]
    ),
)


def in_order(state: Any) -> Any:
    """A status without ages, its shards by name: readers sort them, so that another order alone is not sent."""
    found = without_ages(state)
    for mapping in found["mappings"]:
        mapping["shards"].sort(key=lambda shard: shard["shard"])
    return found


@given(st.lists(STATUSES, min_size=2, max_size=8))
def test_a_reader_has_the_whole_status_before_long(statuses: list[DaemonStatus]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differences, "MINOR_MAX", 2)
        client = Client(statuses[0])
        for status in statuses:
            client.look(status)
        for _ in range(20):
            client.look(statuses[-1])
    assert in_order(client.state) == in_order(json.loads(as_json(statuses[-1])))
    assert client.sent.changes(statuses[-1]) == {}
