"""Tests of what a replay is made of: its range, and the plan of its hidden mapping."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.operations import Action, Operation, OperationId, OperationRequest
from poller.domain.plan import (
    DiscardPolicy,
    MappingPlan,
    OnDestinationFailure,
    SourceKind,
    Start,
    StreamPolicy,
)
from poller.domain.policies import RetryPolicy
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import REPLAY_PREFIX
from poller.rules.operations.reading import OperationRefused
from poller.rules.replays.asking import planned, prepared, range_of, replay_mapping, shown, stops_at_failure

NOW = Epoch(1_780_000_000.0)
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:failed"


def plan(**changes: Any) -> MappingPlan:
    base = MappingPlan(
        mapping=MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"),
        kind=SourceKind.KINESIS,
        source_arn="arn:aws:kinesis:eu-west-1:111122223333:stream/readings",
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        source_settings={"consumer": "secret"},
    )
    return replace(base, **changes)


def replay(**members: Any) -> Operation:
    given_members = {"from": "TRIM_HORIZON", "to": "LATEST", **members}
    request = OperationRequest(action=Action.REPLAY, members=given_members)
    return Operation(operation=OperationId("r-1"), mapping=plan().mapping, request=request, created=NOW)


def ready(of: MappingPlan | None = None, **members: Any) -> MappingPlan:
    """The plan of the hidden mapping of a replay with these members."""
    return planned(prepared(replay(**members), of or plan()), source_settings={"mine": 1})


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("TRIM_HORIZON", "LATEST", (None, NOW)),
        ("TRIM_HORIZON", NOW - 5, (None, NOW - 5)),
        (NOW - 60, "LATEST", (NOW - 60, NOW)),
        (NOW - 60, NOW - 5.5, (NOW - 60, NOW - 5.5)),
        (NOW - 60, NOW + 60, (NOW - 60, NOW + 60)),
        ("2026-01-31T08:00:00Z", "2026-01-31T09:00:00+01:00", None),
        ("2026-01-31T08:00:00Z", "2026-01-31T09:00:00", (1769846400.0, 1769850000.0)),
    ],
)
def test_a_range_has_a_begin_and_an_end(since: Any, until: Any, found: tuple[Any, Any] | None) -> None:
    members = {"from": since, "to": until}
    if found is None:
        with pytest.raises(OperationRefused, match="to: 2026-01-31T08:00:00Z is not after from"):
            range_of(members, created=NOW)
    else:
        got = range_of(members, created=NOW)
        assert (got.since, got.until) == found


@pytest.mark.parametrize(
    ("since", "until", "refusal"),
    [
        ("LATEST", "LATEST", "from: there is nothing behind LATEST to replay; write TRIM_HORIZON or a time"),
        ("TRIM_HORIZON", "TRIM_HORIZON", "to: there is nothing before TRIM_HORIZON; write LATEST or a time"),
        ("495:3", "LATEST", "from: a sequence number belongs to one shard, and a replay reads all shards; write a time"),
        ("495", "LATEST", "from: a sequence number belongs to one shard, and a replay reads all shards; write a time"),
        ("TRIM_HORIZON", "495", "to: a sequence number belongs to one shard, and a replay reads all shards; write a time"),
        (NOW, "LATEST", f"from: {shown(NOW)} is not in the past; write TRIM_HORIZON or an earlier time"),
        (NOW - 5, NOW - 5, f"to: {shown(Epoch(NOW - 5))} is not after from, which is {shown(Epoch(NOW - 5))}; write a later time"),
        (NOW - 5, NOW + 86_401, f"to: {shown(Epoch(NOW + 86_401))} is more than a day ahead; write LATEST or an earlier time"),
    ],
)  # fmt: skip
def test_a_range_without_records_is_refused_with_the_remedy(since: Any, until: Any, refusal: str) -> None:
    with pytest.raises(OperationRefused) as refused:
        range_of({"from": since, "to": until}, created=NOW)
    assert str(refused.value) == refusal


def test_a_replay_has_the_plan_of_its_mapping_with_a_begin_and_without_an_age() -> None:
    of = plan(
        retry=RetryPolicy(retries_max=5, age_max_s=60.0, bisect=True, report_failures=True),
        stream=StreamPolicy(start=Start(latest=True), lanes=3),
        discard=DiscardPolicy(QUEUE, OnDestinationFailure.DROP),
        filters=('{"data":{"a":[1]}}',),
    )
    found = ready(of, **{"from": NOW - 60})
    assert found.mapping == replay_mapping(OperationId("r-1"))
    assert found.mapping.startswith(REPLAY_PREFIX)
    assert found.retry == RetryPolicy(retries_max=5, bisect=True, report_failures=True)
    assert found.stream == StreamPolicy(start=Start(since=Epoch(NOW - 60)), lanes=3)
    assert (found.filters, found.batch, found.function) == (of.filters, of.batch, of.function)


def test_retries_without_a_limit_become_two() -> None:
    assert ready(plan(retry=RetryPolicy())).retry.retries_max == 2
    assert ready(plan(retry=RetryPolicy(retries_max=0))).retry.retries_max == 0


@pytest.mark.parametrize(
    ("members", "stops", "discard"),
    [
        ({}, True, DiscardPolicy()),
        ({"on_failure": "stop"}, True, DiscardPolicy()),
        ({"on_failure": "skip"}, False, DiscardPolicy()),
        ({"on_failure": QUEUE}, False, DiscardPolicy(QUEUE, include_payload=True)),
        ({"on_failure": "file:///failed"}, False, DiscardPolicy("file:///failed", include_payload=True)),
    ],
)
def test_what_fails_goes_where_the_replay_says(
    members: dict[str, Any], *, stops: bool, discard: DiscardPolicy
) -> None:
    of = plan(discard=DiscardPolicy("s3://bucket/x", OnDestinationFailure.DROP, include_payload=True))
    assert ready(of, **members).discard == discard
    assert stops_at_failure(replay(**members)) is stops


def test_a_word_that_is_no_destination_is_refused() -> None:
    with pytest.raises(OperationRefused) as refused:
        ready(on_failure="ignore")
    text = "on_failure: 'ignore' is no destination; write stop, skip, or the ARN or URL of a destination"
    assert str(refused.value) == text


def test_a_filter_of_its_own_takes_the_place_of_the_mapping_s() -> None:
    of = plan(filters=('{"data":{"a":[1]}}',))
    assert ready(of, filter='{"data":{"b":[2]}}').filters == ('{"data":{"b":[2]}}',)


@pytest.mark.parametrize("pattern", ["{", '{"data": 5}', '{"data":{"a":[{"unknown":1}]}}'])
def test_a_filter_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(OperationRefused, match=r"^filter: the pattern cannot be used: "):
        ready(filter=pattern)


def test_a_mapping_with_windows_takes_no_filter() -> None:
    of = plan(stream=StreamPolicy(tumbling_window_s=60))
    with pytest.raises(OperationRefused, match=r"^filter: a mapping with tumbling windows has no filter"):
        ready(of, filter='{"data":{"b":[2]}}')


def test_how_the_source_is_reached_is_not_noted() -> None:
    noted = prepared(replay(), plan())
    assert "secret" not in msgspec.json.encode(noted.notes).decode()
    assert planned(noted, source_settings={"consumer": "mine"}).source_settings == {"consumer": "mine"}


@pytest.mark.parametrize("notes", [{}, {"plan": 5}, {"plan": {"mapping": "replay:1"}}])
def test_a_plan_of_another_version_is_reported(notes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the plan of the replay does not fit this version"):
        planned(replace(replay(), notes=notes), source_settings={})


@given(
    since=st.one_of(st.sampled_from(["TRIM_HORIZON", "LATEST"]), st.floats(0, 4e9)),
    until=st.one_of(st.sampled_from(["TRIM_HORIZON", "LATEST"]), st.floats(0, 4e9)),
)
def test_an_accepted_range_begins_before_it_ends(since: Any, until: Any) -> None:
    try:
        found = range_of({"from": since, "to": until}, created=NOW)
    except OperationRefused:
        return
    assert found.since is None or found.since < min(found.until, NOW)
    assert found.until <= NOW + 86_400


@given(
    retry=st.builds(
        RetryPolicy,
        retries_max=st.none() | st.integers(0, 10_000),
        age_max_s=st.none() | st.floats(60, 604_800),
        bisect=st.booleans(),
        report_failures=st.booleans(),
    ),
    lanes=st.integers(1, 10),
    on_failure=st.sampled_from(["stop", "skip", QUEUE]),
)
def test_a_noted_plan_is_the_one_that_runs(retry: RetryPolicy, lanes: int, on_failure: str) -> None:
    of = plan(retry=retry, stream=StreamPolicy(lanes=lanes))
    noted = prepared(replay(on_failure=on_failure), of)
    through_json = msgspec.json.decode(msgspec.json.encode(noted.notes))
    again = Operation(
        operation=noted.operation, mapping=noted.mapping, request=noted.request, created=NOW, notes=through_json
    )  # fmt: skip
    first, second = (planned(each, source_settings={}) for each in (noted, again))
    assert first == second
    assert first.retry.retries_max is not None
    assert first.retry.age_max_s is None
    assert first.stream.lanes == lanes
