"""How a change of settings is told: what differs, no more than that, on bounded lines without secrets."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.config.daemon_plan import daemon_plan
from poller.config.settings import FileMapping, FunctionEntry, Settings
from poller.domain.member_changes import CHANGES_MAX, changes_between
from poller.rules.plan_changes import plan_changes
from tests.hostile_texts import HOSTILE, fit

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({}, {}, ()),
        ({"BatchSize": 10}, {"BatchSize": 50}, ("BatchSize: 10 -> 50",)),
        ({"BatchSize": 10}, {}, ("BatchSize: 10 -> none",)),
        ({"ScalingConfig": {}}, {"ScalingConfig": None}, ()),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "arn:a"}}},
            {"DestinationConfig": {"OnFailure": {}}},
            ("DestinationConfig.OnFailure.Destination: arn:a -> none",),
        ),
        (
            {"FunctionResponseTypes": []},
            {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
            ('FunctionResponseTypes: none -> ["ReportBatchItemFailures"]',),
        ),
        ({"Enabled": True}, {"Enabled": False}, ("Enabled: true -> false",)),
        ({"d": "https://h/x?token=abc"}, {"d": None}, ("d: https://h/[hidden] -> none",)),
        ({"d": "https://h/T00/abc"}, {"d": "file:///a?b=c"}, ("d: https://h/[hidden] -> file:///a?…",)),
    ],
)
def test_each_member_that_differs_is_a_line(
    before: dict[str, Any], after: dict[str, Any], lines: tuple[str, ...]
) -> None:
    assert changes_between(before, after) == lines


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(sorted(HOSTILE.values())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(sorted(HOSTILE.values())), VALUES, max_size=30
)


@settings(max_examples=30)
@given(before=MEMBERS, after=MEMBERS)
def test_any_change_is_a_few_bounded_lines(before: dict[str, Any], after: dict[str, Any]) -> None:
    lines = changes_between(before, after)
    assert len(lines) <= CHANGES_MAX + 1
    assert all(fit(line) and len(line) <= 1000 for line in lines)
    assert changes_between(before, before) == ()
    assert len(changes_between(after, before)) == len(lines)


def mapping(arn: str, **more: Any) -> FileMapping:
    start = {"StartingPosition": "TRIM_HORIZON"} if arn == STREAM else {}
    return FileMapping.model_validate({"FunctionName": "reader", "EventSourceArn": arn} | start | more)


MAPPINGS = st.one_of(
    st.builds(
        mapping,
        st.just(STREAM),
        BatchSize=st.sampled_from([None, 1, 50]),
        MaximumRetryAttempts=st.sampled_from([None, 3]),
        on_destination_failure=st.sampled_from([None, "drop"]),
        DestinationConfig=st.just({"OnFailure": {"Destination": QUEUE}}),
        include_payload=st.sampled_from([None, True]),
        shared_reads=st.sampled_from([None, False]),
        source=st.sampled_from([{}, {"enhanced_fan_out": True}]),
    ),
    st.builds(
        mapping,
        st.just(QUEUE),
        Enabled=st.sampled_from([None, False]),
        extend_visibility=st.sampled_from([None, False]),
        retry_backoff=st.sampled_from([None, {"base_s": 5}]),
    ),
)
FUNCTIONS = st.builds(
    FunctionEntry,
    invoker=st.sampled_from(["python", "lambda"]),
    timeout_s=st.sampled_from([None, 5.0]),
    handler=st.sampled_from(["a:b", "geheim:c"]),
)
SETTINGS = st.builds(
    Settings,
    store=st.just("memory://"),
    worker=st.just("w"),
    functions=st.dictionaries(st.sampled_from(["reader", "other"]), FUNCTIONS, max_size=2),
    mappings=st.lists(MAPPINGS, max_size=2, unique_by=lambda each: each.EventSourceArn).map(tuple),
    on_destination_failure=st.sampled_from(["keep", "drop"]),
    tuning=st.sampled_from([{}, {"grace_s": 5.0}]),
)


@settings(max_examples=25)
@given(before=SETTINGS, after=SETTINGS)
def test_a_reload_reports_a_change_exactly_when_something_changed(before: Settings, after: Settings) -> None:
    old, new = daemon_plan(before), daemon_plan(after)
    lines = plan_changes(old, new)
    assert bool(lines) is (old != new)
    assert not any("geheim" in line for line in lines)
    assert all(fit(line) for line in lines)


def test_a_reload_names_mappings_and_functions() -> None:
    one = Settings(
        store="memory://",
        worker="w",
        functions={
            "reader": FunctionEntry.model_validate({"invoker": "http", "url": "http://a", "timeout_s": 5})
        },
        mappings=(mapping(STREAM, BatchSize=10), mapping(QUEUE)),
    )
    other = one.model_copy(
        update={
            "functions": {
                "reader": FunctionEntry.model_validate({"invoker": "http", "url": "http://geheim"})
            },
            "mappings": (
                mapping(
                    STREAM,
                    BatchSize=20,
                    on_destination_failure="drop",
                    DestinationConfig={"OnFailure": {"Destination": QUEUE}},
                    include_payload=True,
                    payload_prefix="s3://failed/events",
                    source={"enhanced_fan_out": True},
                ),
                mapping(QUEUE + "2"),
            ),
        }
    )
    old, new = daemon_plan(one), daemon_plan(other)
    ids = {each.source_arn: each.mapping for each in (*old.mappings, *new.mappings)}
    assert plan_changes(old, replace(new, default_invoker="http")) == (
        "default_invoker: lambda -> http",
        "functions.reader.timeout_s: 5.0 -> none",
        "functions.reader.url: changed",
        f"mapping {ids[QUEUE]} (reader ← orders): removed",
        f"mapping {ids[STREAM]} (reader ← stream/orders): BatchSize: 10 -> 20",
        f"mapping {ids[STREAM]} (reader ← stream/orders): DestinationConfig.OnFailure.Destination: none -> arn:aws:sqs:eu-west-1:111122223333:orders",
        f"mapping {ids[STREAM]} (reader ← stream/orders): on_destination_failure: keep -> drop",
        f"mapping {ids[STREAM]} (reader ← stream/orders): include_payload: false -> true",
        f"mapping {ids[STREAM]} (reader ← stream/orders): payload_prefix: none -> s3://failed/events",
        f"mapping {ids[STREAM]} (reader ← stream/orders): source.enhanced_fan_out: changed",
        f"mapping {ids[QUEUE + '2']} (reader ← orders2): added",
    )
