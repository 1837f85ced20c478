"""A source whose permissions are taken away for a while: nothing is lost or reordered, and work goes on when they are back."""

from dataclasses import dataclass, field, replace

import pytest

from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.policies import Backoff, BatchPolicy
from poller.domain.records import MappingId, QueueFacts
from poller.domain.telemetry.mapping_events import InvocationFinished, PortFailed
from poller.runtime.queues.queue_poller import SLOW_RETRY_S
from poller.runtime.streams.reader import REFUSED_PAUSE_S
from tests.simulation.services.contents import Content
from tests.simulation.services.faults import Denial, FaultPlan, History, Marks, Port, epoch
from tests.simulation.services.functions import Period, Script
from tests.simulation.worlds.scenario import Put, Scenario, Setup
from tests.simulation.worlds.variations import ANYTHING
from tests.simulation.worlds.world import World, run_world
from tests.virtual import EPOCH_BASE

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:readings"
RECORDS = 60
WRITTEN_S = 60.0
DENIED = Period(EPOCH_BASE + 20.0, EPOCH_BASE + 35.0)
TUNING = Tuning(port_backoff=Backoff(base_s=0.2, cap_s=2.0), discovery_s=5.0)
CALL_S_MAX = 1.0


@dataclass
class Watched(World):
    """A world that writes down when records were delivered, and which refusals the engine told."""

    delivered: list[float] = field(default_factory=list)
    refused: list[PortFailed] = field(default_factory=list)

    def __post_init__(self) -> None:
        World.__post_init__(self)
        hear = self.court.hears

        def listen(line: object, event: object) -> None:
            hear(line, event)  # type: ignore[arg-type] # passed on as it came
            match event:
                case InvocationFinished(records=records):
                    self.delivered += [epoch()] * records
                case PortFailed(error="AccessDenied"):
                    self.refused.append(event)

        self.court.hears = listen  # type: ignore[method-assign] # a wire tap

    def between(self, start: float, end: float) -> int:
        """How many records were delivered between two moments."""
        return sum(start < moment <= end for moment in self.delivered)


def denied(arn: str, operations: frozenset[str], tuning: Tuning = TUNING) -> Watched:
    """A world in which a permission is missing for 15 s, and nothing else is wrong; a record a second."""
    queue = arn == QUEUE
    plan = MappingPlan(
        mapping=MappingId("00000000-0000-4000-8000-000000000000"),
        kind=SourceKind.SQS if queue else SourceKind.KINESIS,
        source_arn=arn,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        batch=BatchPolicy(10),
    )
    setup = Setup(plan, FunctionPlan(name="reader", invoker="sim", timeout_s=5.0), Script(), shards=2)
    if queue:
        setup = replace(setup, facts=QueueFacts(30, False))
    faults = FaultPlan(
        denied={Port.SOURCE: (Denial(DENIED, operations),)}, heals_at=EPOCH_BASE + WRITTEN_S + 5.0
    )
    puts = tuple(
        Put(WRITTEN_S * number / RECORDS, arn, f"key-{number % 7}", Content(number))
        for number in range(RECORDS)
    )
    worlds: list[Watched] = []

    def make(marks: Marks, history: History) -> Watched:
        worlds.append(Watched(Scenario(1, (setup,), faults, puts, tuning), marks, history))
        return worlds[0]

    run_world(make, 1)
    return worlds[0]


@pytest.mark.parametrize("operations", [ANYTHING, frozenset({"read"})], ids=["everything", "reads"])
def test_a_shard_goes_on_soon_after_its_source_may_be_read_again(operations: frozenset[str]) -> None:
    world = denied(STREAM, operations)
    assert world.between(DENIED.start + CALL_S_MAX, DENIED.end) == 0
    again_s = TUNING.port_backoff.cap_s + CALL_S_MAX
    assert world.between(DENIED.end, DENIED.end + again_s) >= 15
    assert len(world.delivered) == RECORDS
    assert world.marks["source: allowed again"] >= 2


def test_a_refused_listing_leaves_shards_at_work_alone() -> None:
    world = denied(STREAM, frozenset({"list"}))
    assert world.between(DENIED.start, DENIED.end) >= 13
    assert {each.port for each in world.refused} == {"discovery"}
    assert len(world.delivered) == RECORDS


@pytest.mark.parametrize("operations", [ANYTHING, frozenset({"receive"})], ids=["everything", "receives"])
def test_a_queue_goes_on_after_its_messages_may_be_received_again(operations: frozenset[str]) -> None:
    world = denied(QUEUE, operations)
    assert world.between(DENIED.start + CALL_S_MAX, DENIED.end) == 0
    assert world.between(DENIED.end, DENIED.end + SLOW_RETRY_S + CALL_S_MAX) >= 15
    assert len(world.delivered) == RECORDS


def test_messages_that_may_not_be_deleted_are_kept_and_deleted_later() -> None:
    # A delete is tried eight times, which at the default back-off takes longer than the permission is missing.
    world = denied(QUEUE, frozenset({"delete"}), Tuning())
    assert world.between(DENIED.start, DENIED.end) >= 13
    assert len(world.delivered) == RECORDS
    assert world.marks["source: allowed again"] > 0


def test_every_refusal_is_reported_with_the_wait_that_follows() -> None:
    world = denied(STREAM, frozenset({"read"}))
    waits = [each.wait_s for each in world.refused]
    assert len(waits) >= 2 * (DENIED.end - DENIED.start) / (TUNING.port_backoff.cap_s + CALL_S_MAX)
    assert all(REFUSED_PAUSE_S <= wait_s <= TUNING.port_backoff.cap_s for wait_s in waits)
