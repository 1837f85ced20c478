"""Owns what is drawn beside a base scenario: policies of queues, huge states of windows, permissions that come and go.

Each has a source of randomness of its own, so that a base scenario means the same with and without it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

from poller.plan import SourceKind
from poller.rules.policies import QueuePolicy, ScalingPolicy
from tests.simulation.faults import Denial, Port
from tests.simulation.functions import Period
from tests.simulation.plugs import seeded
from tests.simulation.scenario import HEALED_S, WRITING_S, Scenario, Setup, base
from tests.virtual import EPOCH_BASE

PAYLOAD_BYTES_MIN = 2_000_000
"""A function's event must have room for a huge state."""
ANYTHING: frozenset[str] = frozenset()
STREAM_OPERATIONS = (ANYTHING, frozenset({"read"}), frozenset({"read", "cursor"}), frozenset({"list"}))
QUEUE_OPERATIONS = (ANYTHING, frozenset({"receive"}), frozenset({"delete"}), frozenset({"extend"}))


def draw(seed: int) -> Scenario:
    """The scenario of a seed with all that may vary in it; the same seed gives the same one."""
    return vary(base(seed))


def vary(scenario: Scenario) -> Scenario:
    """A base scenario with its variations."""
    setups = tuple(_varied(scenario.seed, number, setup) for number, setup in enumerate(scenario.setups))
    denied = _denied(seeded(scenario.seed, "denials"), setups)
    return replace(scenario, setups=setups, faults=replace(scenario.faults, denied=denied))


def _varied(seed: int, number: int, setup: Setup) -> Setup:
    if setup.plan.kind is SourceKind.SQS:
        given = _queue(seeded(seed, "queue policy", number), setup)
        return _crowded(seeded(seed, "crowd", number), given)
    if setup.script.windowed and setup.plan.batch.payload_bytes_max > PAYLOAD_BYTES_MIN:
        return _windows(seeded(seed, "huge states", number), setup)
    return setup


def _windows(rng: Random, setup: Setup) -> Setup:
    script = replace(setup.script, huge_state_chance=rng.choice((0.0, 0.1, 0.4)))
    return replace(setup, script=script)


def _queue(rng: Random, setup: Setup) -> Setup:
    fifo, facts = setup.plan.fifo, setup.facts
    assert facts is not None, "a queue without settings"
    policy = QueuePolicy(
        extend_visibility=rng.random() < 0.7,
        one_group_per_batch=fifo and rng.random() < 0.4,
        group_aware_failures=fifo and rng.random() < 0.5,
    )
    # AWS takes no queue whose messages show again while the function may still run; we do when they are extended.
    times_s = (
        (facts.visibility_timeout_s, 6, 3) if policy.extend_visibility else (facts.visibility_timeout_s, 6)
    )
    facts = replace(facts, visibility_timeout_s=rng.choice(times_s))
    plan = replace(setup.plan, queue=policy, scaling=_scaling(rng, setup.plan.scaling, fifo=fifo))
    return _patient(rng, _reporting(rng, replace(setup, plan=plan, facts=facts)))


def _patient(rng: Random, setup: Setup) -> Setup:
    """A function may take longer than messages are hidden, where their time is extended."""
    if not setup.plan.queue.extend_visibility or rng.random() > 0.3:
        return setup
    function = replace(setup.function, timeout_s=15.0)
    return replace(setup, function=function, script=replace(setup.script, slow_s=(4.0, 13.0)))


def _scaling(rng: Random, drawn: ScalingPolicy, *, fifo: bool) -> ScalingPolicy:
    kind = rng.choices(("drawn", "serial", "provisioned"), (7, 1, 0 if fifo else 1))[0]
    match kind:
        case "serial":
            return ScalingPolicy(concurrency_max=1)
        case "provisioned":
            minimum = rng.choice((1, 2))
            return ScalingPolicy(provisioned_min=minimum, provisioned_max=minimum + rng.choice((0, 1)))
        case _:
            return drawn


def _reporting(rng: Random, setup: Setup) -> Setup:
    """Group-aware failures need reports; a function may report to a mapping that does not ask for it."""
    plan, reports = setup.plan, setup.plan.retry.report_failures
    if plan.queue.group_aware_failures and rng.random() < 0.7:
        reports = True
    useless = not reports and rng.random() < 0.3
    plan = replace(plan, retry=replace(plan.retry, report_failures=reports))
    return replace(setup, plan=plan, script=replace(setup.script, reports=reports or useless))


def _crowded(rng: Random, setup: Setup) -> Setup:
    """Now and then a function so slow, and batches so small, that more pollers are wanted than a mapping begins with."""
    if setup.plan.fifo or setup.plan.scaling.concurrency_max is not None or rng.random() > 0.25:
        return setup
    plan = replace(setup.plan, batch=replace(setup.plan.batch, records_max=1))
    function = replace(setup.function, max_concurrency=None)
    return replace(setup, plan=plan, function=function, script=replace(setup.script, quick_s=(1.0, 3.0)))


def _denied(rng: Random, setups: tuple[Setup, ...]) -> Mapping[Port, tuple[Denial, ...]]:
    if rng.random() > 0.2:
        return {}
    queues = [each.plan.kind is SourceKind.SQS for each in setups]
    operations = (QUEUE_OPERATIONS if any(queues) else ()) + (STREAM_OPERATIONS if not all(queues) else ())
    return {Port.SOURCE: tuple(_denials(rng, operations))}


def _denials(rng: Random, operations: tuple[frozenset[str], ...]) -> Iterator[Denial]:
    for _ in range(rng.choice((1, 1, 2))):
        start = EPOCH_BASE + rng.uniform(0, WRITING_S)
        end = min(start + rng.uniform(2, 20), EPOCH_BASE + HEALED_S)
        yield Denial(Period(start, end), rng.choice(operations))
