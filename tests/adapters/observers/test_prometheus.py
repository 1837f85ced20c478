"""Figures and their Prometheus names, read back through a parser of the text format."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.control.pressure import ClientConnections, Limits
from adapters.control.pressure_metrics import PressureFigures
from adapters.control.processes.merging import page_of_states
from adapters.observers import metrics as figures_module
from adapters.observers.mapping_events import APPLY, ERRORS
from adapters.observers.metrics import LINGER_S, LINGERING_MAX, Figures
from adapters.observers.prometheus import PrometheusObserver, plugin
from poller.domain.invocations import Ended
from poller.domain.records import Epoch, MappingId, Monotonic, Position, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.daemon_events import (
    AliasWeight,
    ApiChange,
    BreakerChanged,
    CallDeliveryFailed,
    CallLeftBehind,
    CallsWaiting,
    Capacity,
    CodeReloaded,
    ConfigurationReloaded,
    ConfigurationUnread,
    DaemonEnded,
    DaemonStarting,
    FleetSized,
    FunctionCalled,
    FunctionChanged,
    FunctionOpened,
    LoopBlocked,
    MemoryUsed,
    ObserverFailed,
    PayloadsShown,
    QueuedCallEnded,
    ShiftChanged,
    StopCutShort,
    StoreFailed,
    StrangerRefused,
    TaskEnded,
    VersionCalled,
)
from poller.domain.telemetry.labels import SourceCall
from poller.domain.telemetry.mapping_events import (
    Blocked,
    Deleted,
    DestinationFailed,
    Filtered,
    GroupsBlocked,
    InvocationStarted,
    LeaseMoved,
    MappingChanged,
    PlaceFound,
    Polled,
    Pollers,
    PortFailed,
    Retrying,
    ShardStarted,
    ShardStopped,
    SourceCalled,
    VisibilityTooShort,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.telemetry.operation_events import (
    OperationAccepted,
    OperationOver,
    PausesChanged,
    ReplayCounted,
    ReplayTroubled,
)
from poller.plugins import Environment, InstalledPlugins
from poller.testing.telemetry_events import (
    KINDS,
    MAPPING,
    QUEUE,
    QUEUE_ARN,
    SHARD,
    SetClock,
    changed,
    discarded,
    finished,
    one_of_each,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "operate" / "observability.md"
START = Position.horizon()


@dataclass
class Scraped:
    """An observer on a set clock, and its page as a table of series."""

    clock: SetClock = field(default_factory=SetClock)

    def __post_init__(self) -> None:
        self.observer = PrometheusObserver(Figures(self.clock), self.clock)

    def on(self, *events: AnyTelemetryEvent) -> None:
        for event in events:
            self.observer.on(event)

    def series(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        body, _ = self.observer.exposition()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series; `mapping` is the first stream's unless given."""
        labels.setdefault("mapping", MAPPING)
        return self.series().get((f"poller_{name}", tuple(sorted(labels.items()))))


def started(shard: ShardId = SHARD) -> ShardStarted:
    return ShardStarted(mapping=MAPPING, shard=shard, position=START)


def invoked(records: int, attempt: int = 0) -> InvocationStarted:
    return InvocationStarted(
        mapping=MAPPING, function="orders", records=records, request_id="r", attempt=attempt
    )


def test_every_event_has_its_way_into_the_figures() -> None:
    apart = {MappingChanged, Capacity, ConfigurationReloaded, StoreFailed}
    apart |= {
        OperationOver,
        PausesChanged,
        BreakerChanged,
        CodeReloaded,
        FunctionCalled,
        VersionCalled,
        AliasWeight,
        QueuedCallEnded,
        CallDeliveryFailed,
        CallsWaiting,
        FunctionOpened,
        ReplayCounted,
        ApiChange,
        TaskEnded,
        CallLeftBehind,
        ObserverFailed,
        LoopBlocked,
        FleetSized,
        StrangerRefused,
        MemoryUsed,
    }
    logged_only = {FunctionChanged, PlaceFound, VisibilityTooShort}
    logged_only |= {OperationAccepted, DaemonStarting, DaemonEnded, StopCutShort, ConfigurationUnread}
    logged_only |= {PayloadsShown, ReplayTroubled, ShiftChanged}
    assert APPLY.keys() | apart | logged_only == KINDS


def test_the_wanted_workers_are_absent_until_they_are_known() -> None:
    page = Scraped()
    name = ("poller_wanted_workers", ())
    assert name not in page.series()
    page = Scraped()
    page.on(
        FleetSized(wanted=4, workers=2, reason="a shard is behind"),
        FleetSized(wanted=3, workers=4, reason="the workers have little to do"),
    )
    assert page.series()[name] == 3


def test_the_events_of_these_tests_are_of_every_kind() -> None:
    assert {type(event) for event in one_of_each()} == KINDS


def test_a_mapping_without_a_filter_has_no_filtered_series() -> None:
    page = Scraped()
    page.on(changed(), started(), Polled(mapping=MAPPING, shard=SHARD, records=5))
    assert page.value("filtered_out_event_count_total") is None


def test_a_filter_that_everything_matches_counts_zero() -> None:
    page = Scraped()
    page.on(changed(), Filtered(mapping=MAPPING, shard=SHARD, records=0, evaluated=5))
    assert page.value("filtered_out_event_count_total") == 0


def test_a_poll_with_nothing_counts_zero() -> None:
    page = Scraped()
    page.on(changed(), Polled(mapping=MAPPING, shard=SHARD, records=0))
    assert page.value("polled_event_count_total") == 0


def test_events_handed_over_are_counted_again_on_each_retry() -> None:
    page = Scraped()
    page.on(changed(), invoked(10), invoked(10, attempt=1))
    assert page.value("invoked_event_count_total") == 20


def test_a_partial_report_counts_only_the_reported_events_as_failed() -> None:
    page = Scraped()
    page.on(changed(), finished(Ended.PARTIAL, records=2, failed=1))
    assert page.value("failed_invoke_event_count_total") == 1
    assert page.value("records_processed_total") == 1


def test_a_delivered_batch_is_not_a_dropped_one() -> None:
    page = Scraped()
    page.on(changed(), discarded(7, delivered=True))
    assert page.value("dropped_event_count_total") == 0
    assert page.value("on_failure_destination_delivered_event_count_total") == 7


def test_an_undelivered_batch_is_dropped_with_or_without_a_destination() -> None:
    page = Scraped()
    page.on(changed(), discarded(3, delivered=False), discarded(4, delivered=False, destination=False))
    assert page.value("dropped_event_count_total") == 7
    assert page.value("on_failure_destination_delivered_event_count_total") == 0
    assert page.value("discards_total", condition="RetryAttemptsExhausted") == 2
    assert page.value("discarded_records_total", condition="RetryAttemptsExhausted") == 7


def test_a_failed_delete_counts_no_deleted_event() -> None:
    page = Scraped()
    page.on(changed(QUEUE, source_arn=QUEUE_ARN), Deleted(mapping=QUEUE, messages=0, lapsed=2, failed=3))
    assert page.value("deleted_event_count_total", mapping=QUEUE) == 0
    assert page.value("deletes_lapsed_total", mapping=QUEUE) == 2
    assert page.value("deletes_failed_total", mapping=QUEUE) == 3


def test_a_queue_has_no_series_of_streams_and_a_stream_none_of_queues() -> None:
    page = Scraped()
    page.on(changed(), changed(QUEUE, source_arn=QUEUE_ARN))
    names = {
        mapping: {name for name, labels in page.series() if ("mapping", mapping) in labels}
        for mapping in (MAPPING, QUEUE)
    }
    assert names[MAPPING] - names[QUEUE] >= {"poller_dropped_event_count_total", "poller_shards"}
    assert names[QUEUE] - names[MAPPING] >= {"poller_deleted_event_count_total"}


def test_calls_of_a_source_are_counted_by_mapping_and_the_usual_ones_are_shown_from_the_start() -> None:
    page = Scraped()
    page.on(changed(), changed(QUEUE, source_arn=QUEUE_ARN))
    read = SourceCalled(mapping=MAPPING, call=SourceCall.GET_RECORDS)
    page.on(read, read, SourceCalled(mapping=QUEUE, call=SourceCall.GET_QUEUE_URL))
    counted = {
        (labels["mapping"], labels["call"]): value
        for name, pairs in page.series()
        if name == "poller_source_calls_total" and (labels := dict(pairs))
        for value in [page.series()[name, pairs]]
    }
    assert counted == {
        (MAPPING, "GetRecords"): 2,
        (MAPPING, "GetShardIterator"): 0,
        (MAPPING, "ListShards"): 0,
        (QUEUE, "ReceiveMessage"): 0,
        (QUEUE, "DeleteMessageBatch"): 0,
        (QUEUE, "ChangeMessageVisibilityBatch"): 0,
        (QUEUE, "GetQueueUrl"): 1,
    }


@pytest.mark.parametrize("ended", list(Ended))
def test_invocations_are_counted_by_how_they_ended(ended: Ended) -> None:
    page = Scraped()
    page.on(changed(), finished(ended), finished(ended))
    assert [page.value("invocations_total", ended=each) for each in Ended] == [
        2 if each is ended else 0 for each in Ended
    ]


def test_retries_are_counted_by_whether_they_use_one_up() -> None:
    page = Scraped()
    for free in (True, False, False):
        page.on(Retrying(mapping=MAPPING, shard=SHARD, attempt=1, wait_s=1, free=free))
    assert page.value("retries_total", kind="free") == 1
    assert page.value("retries_total", kind="counted") == 2


def test_a_mapping_is_in_exactly_one_state() -> None:
    page = Scraped()
    page.on(changed(state=MappingState.CREATING), changed(state=MappingState.BROKEN))
    assert {each: page.value("mapping_state", state=each) for each in MappingState} == {
        each: float(each is MappingState.BROKEN) for each in MappingState
    }


def test_durations_and_ages_fall_into_their_buckets() -> None:
    page = Scraped()
    page.on(changed(), started(), finished(age_ms=5000), finished(age_ms=6000))
    assert page.value("invocation_iterator_age_seconds_bucket", le="5") == 1
    assert page.value("invocation_iterator_age_seconds_bucket", le="15") == 2
    assert page.value("invocation_iterator_age_seconds_sum") == 11
    assert page.value("invocation_duration_seconds_bucket", le="0.1") == 0
    assert page.value("invocation_duration_seconds_count") == 2


def test_the_iterator_age_is_that_of_the_oldest_shard() -> None:
    page, other = Scraped(), ShardId("shardId-1")
    page.on(changed(), started(), started(other))
    page.on(finished(age_ms=9000), finished(shard=other, age_ms=1000))
    assert page.value("iterator_age_seconds") == 9


def test_an_idle_shard_at_the_tip_has_no_age() -> None:
    page = Scraped()
    page.on(changed(), started(), finished(age_ms=9000))
    page.on(Polled(mapping=MAPPING, shard=SHARD, records=0, behind_ms=0))
    assert page.value("iterator_age_seconds") == 0


def test_a_blocked_shard_keeps_its_age_while_polls_find_nothing() -> None:
    page = Scraped()
    page.on(changed(), started(), Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=True))
    page.on(finished(Ended.FUNCTION_ERROR, age_ms=9000))
    page.on(Polled(mapping=MAPPING, shard=SHARD, records=0, behind_ms=0))
    assert page.value("iterator_age_seconds") == 9


def test_a_blocked_shard_is_named_with_the_time_its_first_lane_failed() -> None:
    page = Scraped()
    page.on(changed(), started(), Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=True))
    page.clock.at += 60
    page.on(Blocked(mapping=MAPPING, shard=SHARD, lane=1, blocked=True))
    since = page.value("shard_blocked_since_timestamp_seconds", shard=SHARD)
    assert since == page.clock.at - 60
    assert (page.value("blocked_lanes"), page.value("blocked_shards")) == (2, 1)


def test_a_shard_that_got_through_is_no_longer_named() -> None:
    page = Scraped()
    page.on(changed(), started(), Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=True))
    page.on(Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=False))
    assert page.value("shard_blocked_since_timestamp_seconds", shard=SHARD) is None
    assert (page.value("blocked_lanes"), page.value("blocked_shards")) == (0, 0)


def test_few_of_many_blocked_shards_are_named_and_all_are_counted() -> None:
    page = Scraped()
    page.on(changed())
    for number in range(100):
        page.clock.at += 1
        shard = ShardId(f"shardId-{number:012d}")
        page.on(started(shard), Blocked(mapping=MAPPING, shard=shard, lane=0, blocked=True))
    named = [labels for name, labels in page.series() if name.startswith("poller_shard_blocked_since")]
    assert page.value("blocked_shards") == 100
    assert named == [(("mapping", MAPPING), ("shard", f"shardId-{number:012d}")) for number in range(20)]


@pytest.mark.parametrize(
    "end",
    [
        ShardStopped(mapping=MAPPING, shard=SHARD, ended=True),
        LeaseMoved(mapping=MAPPING, shard=SHARD, held=False),
        changed(state=MappingState.DISABLED),
        changed(state=MappingState.BROKEN),
        changed(state=MappingState.DELETING),
    ],
    ids=["stopped", "lost", "disabled", "broken", "deleting"],
)
def test_nothing_of_a_shard_is_shown_after_its_end(end: AnyTelemetryEvent) -> None:
    page = Scraped()
    page.on(changed(), LeaseMoved(mapping=MAPPING, shard=SHARD, held=True), started())
    page.on(Polled(mapping=MAPPING, shard=SHARD, records=1, behind_ms=90_000), finished(age_ms=9000))
    page.on(Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=True))
    page.on(DestinationFailed(mapping=MAPPING, shard=SHARD, reason="no", wait_s=1))
    assert page.value("behind_seconds") == 90
    page.on(end, finished(age_ms=8000), Polled(mapping=MAPPING, shard=SHARD, records=1, behind_ms=7))
    assert page.value("behind_seconds") is None
    assert page.value("iterator_age_seconds") is None
    assert page.value("shard_blocked_since_timestamp_seconds", shard=SHARD) is None
    gauges = ("shards", "leases_held", "blocked_lanes", "blocked_shards", "destinations_failing")
    assert [page.value(name) for name in gauges] == [0] * len(gauges)


def test_a_lease_that_is_lost_is_counted_once() -> None:
    page, lost = Scraped(), LeaseMoved(mapping=MAPPING, shard=SHARD, held=False)
    page.on(changed(), LeaseMoved(mapping=MAPPING, shard=SHARD, held=True), started(), lost, lost)
    assert page.value("leases_taken_total") == 1
    assert page.value("leases_lost_total") == 1


def test_a_destination_fails_until_the_batch_is_settled() -> None:
    page = Scraped()
    page.on(changed(), started(), DestinationFailed(mapping=MAPPING, shard=SHARD, reason="", wait_s=1))
    assert page.value("destinations_failing") == 1
    page.on(discarded(1, delivered=True))
    assert page.value("destinations_failing") == 0
    assert page.value("destination_delivery_failures_total") == 1


def test_a_destination_whose_notice_was_dropped_no_longer_fails() -> None:
    page = Scraped()
    page.on(changed(), started(), DestinationFailed(mapping=MAPPING, shard=SHARD, reason="", wait_s=None))
    assert page.value("destinations_failing") == 0


def test_a_deleted_mapping_keeps_its_series_for_the_last_scrapes_only() -> None:
    page = Scraped()
    page.on(*one_of_each(), changed(state=MappingState.DELETING), finished())
    page.clock.at += LINGER_S - 1
    assert page.value("invocations_total", ended="success") == 1
    page.clock.at += 1
    assert not [labels for _, labels in page.series() if ("mapping", MAPPING) in labels]


def test_late_events_of_a_forgotten_mapping_bring_nothing_back() -> None:
    page = Scraped()
    page.on(changed(), changed(state=MappingState.DELETING))
    page.clock.at += LINGER_S
    page.series()
    page.on(finished(), Capacity(function="orders", in_flight=0, limit=1))
    assert not [labels for _, labels in page.series() if labels and labels[0][0] in {"mapping", "function"}]


def test_a_mapping_that_comes_back_is_shown_again() -> None:
    page = Scraped()
    page.on(changed(), changed(state=MappingState.DELETING))
    page.clock.at += LINGER_S
    page.series()
    page.on(changed(), Capacity(function="orders", in_flight=1, limit=None))
    assert page.value("mapping_state", state="Enabled") == 1
    assert page.series()["poller_function_in_flight", (("function", "orders"),)] == 1


def test_a_function_is_shown_as_long_as_a_mapping_calls_it() -> None:
    page = Scraped()
    page.on(changed(), Capacity(function="orders", in_flight=1, limit=2))
    assert page.series()["poller_function_concurrency_limit", (("function", "orders"),)] == 2
    page.on(changed(function="other"))
    assert ("poller_function_in_flight", (("function", "orders"),)) not in page.series()


def test_a_function_without_a_limit_has_no_limit_series() -> None:
    page = Scraped()
    page.on(
        Capacity(function="orders", in_flight=1, limit=2),
        Capacity(function="orders", in_flight=1, limit=None),
    )
    assert ("poller_function_concurrency_limit", (("function", "orders"),)) not in page.series()


def test_pollers_of_a_disabled_queue_are_not_shown() -> None:
    page = Scraped()
    page.on(changed(QUEUE, source_arn=QUEUE_ARN), Pollers(mapping=QUEUE, pollers=5))
    assert page.value("pollers", mapping=QUEUE) == 5
    page.on(changed(QUEUE, MappingState.DISABLED, source_arn=QUEUE_ARN))
    assert page.value("pollers", mapping=QUEUE) is None


@pytest.mark.parametrize("error", sorted(ERRORS))
def test_errors_of_ports_keep_their_class_name(error: str) -> None:
    page = Scraped()
    page.on(PortFailed(mapping=MAPPING, shard=SHARD, port="source", error=error, reason="", wait_s=1))
    assert page.value("port_failures_total", port="source", error=error) == 1


def test_what_is_not_in_a_closed_set_is_called_other() -> None:
    page = Scraped()
    page.on(PortFailed(mapping=MAPPING, shard=SHARD, port="x", error="y", reason="", wait_s=1))
    assert page.value("port_failures_total", port="other", error="other") == 1


def test_many_mappings_with_many_events_have_a_bounded_number_of_series() -> None:
    page = Scraped()
    mappings = [MappingId(f"00000000-0000-0000-0000-{number:012d}") for number in range(100)]
    for number, mapping in enumerate(mappings):
        for turn in range(5):
            for event in one_of_each(mapping, ShardId(f"shard-{number}-{turn}"), number * 5 + turn)[:-1]:
                page.on(event)
    series = Counter(
        dict(labels).get("mapping", "") for name, labels in page.series() if name.startswith("poller_")
    )
    values = {
        (label, value)
        for _, labels in page.series()
        for label, value in labels
        if label not in {"mapping", "shard", "le", "version", "python"}
    }
    assert max(series[mapping] for mapping in mappings) <= 120
    assert len(values) <= 110


def test_mappings_that_come_and_go_leave_no_more_than_the_limit() -> None:
    page = Scraped()
    for number in range(LINGERING_MAX + 50):
        mapping = MappingId(f"mapping-{number}")
        page.clock.at += 0.001
        page.on(changed(mapping), changed(mapping, MappingState.DELETING))
    names = {dict(labels)["mapping"] for name, labels in page.series() if name == "poller_mapping_info"}
    assert len(names) == LINGERING_MAX
    assert "mapping-0" not in names


def test_forgotten_names_are_themselves_forgotten() -> None:
    gone = figures_module.RemovedIds(2)
    for name in "abc":
        gone.add(name)
    assert ["a" in gone, "b" in gone, "c" in gone] == [False, True, True]


def test_two_observers_share_nothing() -> None:
    one, two = Scraped(), Scraped()
    one.on(changed())
    assert two.value("mapping_state", state="Enabled") is None


def test_a_costly_page_is_shown_again_for_a_while() -> None:
    class SlowClock(SetClock):
        """A clock on which each look takes 0.1 s, so that a page seems to take as long."""

        def monotonic(self) -> Monotonic:
            self.at += 0.1
            return super().monotonic()

    page = Scraped(SlowClock())
    page.on(changed())
    before = page.observer.exposition()
    page.on(changed(state=MappingState.BROKEN))
    assert page.observer.exposition() == before
    page.clock.at += 1000
    assert page.value("mapping_state", state="Broken") == 1


def test_the_plugin_is_installed_and_gives_an_observer_with_a_page() -> None:
    async def opened() -> tuple[bytes, str]:
        found = InstalledPlugins().plugin("observers", "prometheus")
        async with found.open(found.settings(), Environment(clock=SetClock())) as observer:
            observer.on(changed())
            page: tuple[bytes, str] = observer.exposition()
            return page

    assert InstalledPlugins().plugin("observers", "prometheus") is plugin
    body, content_type = asyncio.run(opened())
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"poller_build_info{" in body


def test_the_document_names_every_metric_and_no_other() -> None:
    page = Scraped()
    pages = (page.observer, PressureFigures(ClientConnections(Limits(), page.clock.monotonic)))
    body = b"".join(each.exposition()[0] for each in pages) + page_of_states((), frozenset())
    shown = {line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE poller_")}
    rows = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `poller_")
    ]
    assert {row.split("`")[1] for row in rows} == shown


def test_a_pause_is_shown_since_when_until_it_ends() -> None:
    page = Scraped()
    page.on(changed(), PausesChanged(mapping=MAPPING, pauses=2, since=Epoch(1_700_000_000.0)))
    assert page.value("paused_since_timestamp_seconds") == 1_700_000_000.0
    page.on(PausesChanged(mapping=MAPPING, pauses=0, since=None))
    assert page.value("paused_since_timestamp_seconds") is None


def test_operations_are_counted_by_action_and_result() -> None:
    page = Scraped()
    over = next(each for each in one_of_each() if isinstance(each, OperationOver))
    page.on(over, over)
    assert page.series()["poller_operations_total", (("action", "skip"), ("result", "failed"))] == 2


def test_a_refused_configuration_is_counted_and_shows_until_a_good_one_comes() -> None:
    page = Scraped()
    started = page.clock.at
    success = ("poller_configuration_last_reload_success_timestamp_seconds", ())
    successful = ("poller_configuration_last_reload_successful", ())
    assert (page.series()[successful], page.series()[success]) == (1, started)
    page.clock.at += 10
    page.on(ConfigurationReloaded(ok=False, reason="mappings[0]: wrong"))
    assert (page.series()[successful], page.series()[success]) == (0, started)
    page.clock.at += 10
    page.on(ConfigurationReloaded(ok=True))
    assert (page.series()[successful], page.series()[success]) == (1, started + 20)
    counts = [
        page.series()["poller_configuration_reloads_total", (("result", result),)]
        for result in ("success", "failure")
    ]
    assert counts == [1, 1]


def test_failed_calls_to_the_store_are_counted_by_class_of_error() -> None:
    page = Scraped()
    page.on(StoreFailed(error="ServiceThrottled", reason="slow down", wait_s=1.0))
    page.clock.at += 10
    page.on(StoreFailed(error="Odd", reason="?", wait_s=1.0))
    counts = page.series()
    assert counts["poller_store_failures_total", (("error", "ServiceThrottled"),)] == 1
    assert counts["poller_store_failures_total", (("error", "other"),)] == 1


def test_a_blocked_message_group_is_a_time_of_its_mapping_and_names_no_group() -> None:
    page = Scraped()
    page.on(changed(QUEUE, source_arn=f"{QUEUE_ARN}.fifo"), GroupsBlocked(mapping=QUEUE, since=Epoch(5.0)))
    assert page.value("queue_blocked_since_timestamp_seconds", mapping=QUEUE) == 5.0
    page.on(GroupsBlocked(mapping=QUEUE, since=None))
    assert page.value("queue_blocked_since_timestamp_seconds", mapping=QUEUE) is None


@pytest.mark.parametrize("state", [MappingState.DISABLED, MappingState.BROKEN])
def test_no_group_of_a_queue_that_nobody_polls_is_shown_as_blocked(state: MappingState) -> None:
    page = Scraped()
    page.on(changed(QUEUE, source_arn=f"{QUEUE_ARN}.fifo"), GroupsBlocked(mapping=QUEUE, since=Epoch(5.0)))
    page.on(changed(QUEUE, source_arn=f"{QUEUE_ARN}.fifo", state=state))
    assert page.value("queue_blocked_since_timestamp_seconds", mapping=QUEUE) is None
