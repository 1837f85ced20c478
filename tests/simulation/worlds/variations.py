"""Owns what is drawn beside a base scenario: policies of queues, huge states of windows, permissions that come and go.

Each has a source of randomness of its own, so that a base scenario means the same with and without it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from poller.domain import operations
from poller.domain.function_facts import FunctionFacts
from poller.domain.plan import SourceKind, Start
from poller.domain.policies import BreakerPolicy, QueuePolicy, RatePolicy, RetryBackoff, ScalingPolicy
from tests.shapes import ODD_TEXTS
from tests.simulation.finding.worlds import found
from tests.simulation.pushing.worlds import pushed
from tests.simulation.services.contents import Content
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import Denial, Port
from tests.simulation.services.functions import OWN, OwnSettings, Period
from tests.simulation.services.wires import Shapes
from tests.simulation.worlds.aggregating import aggregated
from tests.simulation.worlds.calling import called_beside
from tests.simulation.worlds.redriving import redrives
from tests.simulation.worlds.scenario import (
    HEALED_S,
    WRITING_S,
    Action,
    CloseBreaker,
    Crash,
    EndTask,
    Join,
    Operate,
    Put,
    Restart,
    Scenario,
    Setup,
    Update,
    base,
)
from tests.simulation.worlds.seeking import seeks, seeks_beside
from tests.simulation.worlds.sharing import shared
from tests.virtual import EPOCH_BASE

PAYLOAD_BYTES_MIN = 2_000_000
"""A function's event must have room for a huge state."""
OPERATED_CHANCE = 0.6
MOVE_CHANCE = 0.4
OWN_SETTINGS_CHANCE = 0.15
REFUSING_CHANCE = 0.2
WAITING_CHANCE = 0.4
WAITS: tuple[tuple[Any, ...], ...] = (
    (0, 0.5, 3, 20),
    (None, 1, 45.5),
    (None, -1, "5", True, [3], {}, 2e9, 7),
)
"""What functions write at `retryAfterSeconds`, sound and not."""
FLOW_CONTROL_CHANCE = 0.25
CLOSING_CHANCE = 0.8
UPDATES_CHANCE = 0.3
LATE_MESSAGES_CHANCE = 0.3
LATE_NUMBER = 9_000
"""Beyond the number of any other message of a mapping."""
LONG_GRACE_S = 118.0
SHORT_GRACE_S = 8.0
"""Too short for most functions: what the last polls of a queue bring is given back."""
SHORT_GRACE_CHANCE = 0.25
ROLE = "arn:aws:iam::111122223333:role/function"
DAY_S = 86_400.0
CRAMPED_CHANCE = 0.4
ANSWER_BYTES = (1_000, 20_000, 100_000, 300_000, 600_000, 2_000_000)
KINESIS_BYTES_MAX = 10 * 1024 * 1024
MESSAGE_BYTES_MAX = 1024 * 1024
ITEM_BYTES_MAX = 400 * 1024
PAD_BYTES_ROOM = 500
"""For all else that a record holds."""
ANYTHING: frozenset[str] = frozenset()
STREAM_OPERATIONS = (ANYTHING, frozenset({"read"}), frozenset({"read", "cursor"}), frozenset({"list"}))
QUEUE_OPERATIONS = (ANYTHING, frozenset({"receive"}), frozenset({"delete"}), frozenset({"extend"}))


def draw(seed: int) -> Scenario:
    """The scenario of a seed with all that may vary in it; the same seed gives the same one."""
    return cramped(found(pushed(with_shared_reads(seed))))


def with_shared_reads(seed: int) -> Scenario:
    """The scenario of a seed without consumers, and with all shards listed each time."""
    return shared(aggregated(called_beside(without_calls(seed))))


def cramped(scenario: Scenario) -> Scenario:
    """A scenario in which readers wait for room in memory: there is little, and answers claim to be large."""
    rng = seeded(scenario.seed, "memory")
    tuning = replace(scenario.tuning, memory_mb=1 if rng.random() < CRAMPED_CHANCE else 64)
    if tuning.memory_mb == 1:
        sizes = tuple(rng.choices(ANSWER_BYTES, k=rng.choice((1, 3, 6))))
        scenario = replace(scenario, faults=replace(scenario.faults, answer_bytes=sizes))
    return replace(scenario, tuning=tuning)


def without_calls(seed: int) -> Scenario:
    """The scenario of a seed without calls beside mappings."""
    return seeks_beside(redriven(seed))


def redriven(seed: int) -> Scenario:
    """The scenario of a seed without seeks in windows and beside queues."""
    return redrives(operated(seed))


def operated(seed: int) -> Scenario:
    """The scenario of a seed without redrives."""
    return seeks(operate(vary(base(seed))))


def operate(scenario: Scenario) -> Scenario:
    """A scenario with operators: they do something to streams at any moment, now and then with many workers."""
    rng = seeded(scenario.seed, "operators")
    if all(each.plan.kind is SourceKind.SQS for each in scenario.setups) or rng.random() > OPERATED_CHANCE:
        return scenario
    moves = [each.at for each in scenario.actions if isinstance(each, Crash | Restart | Join)]
    asked = tuple(_operations(rng, moves))
    workers = rng.choice((4, 8)) if rng.random() < 0.2 else scenario.workers
    moved = _moves_after_pauses(seeded(scenario.seed, "moves after pauses"), asked)
    actions: tuple[Action, ...] = (*scenario.actions, *asked, *moved)
    actions = tuple(sorted(actions, key=lambda each: each.at))
    return replace(scenario, actions=actions, workers=workers)


def _operations(rng: Random, moves: list[float]) -> Iterator[Operate]:
    """At any moment, and often when other workers have just taken shards."""
    for _ in range(rng.choice((1, 4, 12, 30))):
        at = rng.uniform(0.2, HEALED_S - 1.0)
        if moves and rng.random() < 0.4:
            at = min(rng.choice(moves) + rng.uniform(0.5, 20.0), HEALED_S - 1.0)
        yield Operate(
            at=at,
            action=rng.choices(
                (
                    operations.Action.RETRY,
                    operations.Action.RESET,
                    operations.Action.SKIP,
                    operations.Action.PAUSE,
                ),
                (2, 2, 4, 3),
            )[0],
            one_lane=rng.random() < 0.6,
            one_shard=rng.random() < 0.7,
            records=rng.choice(("first", "batch", "list")),
            send=rng.random() < 0.7,
            lasts_s=rng.choice((0.5, 5.0, 20.0)),
        )


def _moves_after_pauses(rng: Random, asked: Iterable[Operate]) -> Iterator[Restart | Join]:
    """Shards that move just after they were paused, to workers that may not have read of the pause yet."""
    for each in asked:
        if each.action is operations.Action.PAUSE and rng.random() < MOVE_CHANCE:
            at = min(each.at + rng.uniform(0.0, 2.5), HEALED_S - 0.5)
            yield Restart(at, rng.random()) if rng.random() < 0.7 else Join(at)


def vary(scenario: Scenario) -> Scenario:
    """A base scenario with its variations."""
    setups = tuple(_varied(scenario.seed, number, setup) for number, setup in enumerate(scenario.setups))
    setups = tuple(
        _shaped(seeded(scenario.seed, "shapes", number), setup) for number, setup in enumerate(setups)
    )
    actions = tuple(
        _sized(seeded(scenario.seed, "sizes"), _keyed(seeded(scenario.seed, "keys"), scenario), setups)
    )
    changes = _updates(seeded(scenario.seed, "updates"), setups)
    # A function of one's own that is cut short runs on, and would be called again beside itself.
    calm = any(each.script.own for each in setups)
    ends = () if calm else tuple(_ended_tasks(seeded(scenario.seed, "ended tasks")))
    setups = tuple(
        _flow_controlled(seeded(scenario.seed, "flow control", number), setup)
        for number, setup in enumerate(setups)
    )
    closings = tuple(_closings(seeded(scenario.seed, "closings"), setups))
    late = _late_messages(seeded(scenario.seed, "late messages"), setups)
    actions = tuple(sorted((*actions, *changes, *late, *ends, *closings), key=lambda each: each.at))
    denied = _denied(seeded(scenario.seed, "denials"), setups)
    tuning = scenario.tuning
    if any(each.script.own for each in setups):
        # What a stop cuts short runs on, and is called again elsewhere; here the grace is long enough for all runs.
        tuning = replace(tuning, grace_s=LONG_GRACE_S)
    elif seeded(scenario.seed, "grace").random() < SHORT_GRACE_CHANCE:
        tuning = replace(tuning, grace_s=SHORT_GRACE_S)
    lost_iterator = seeded(scenario.seed, "lost iterators").choice((0.0, 0.0, 0.02, 0.2))
    faults = replace(scenario.faults, denied=denied, lost_iterator=lost_iterator)
    return replace(scenario, setups=setups, actions=actions, faults=faults, tuning=tuning)


def _flow_controlled(rng: Random, setup: Setup) -> Setup:
    """Now and then a function with a rate, a breaker, or both."""
    if rng.random() > FLOW_CONTROL_CHANCE:
        return setup
    kind = rng.choice(("rate", "breaker", "both"))
    rate = RatePolicy(rng.choice((0.5, 1.0, 3.0, 20.0)), rng.choice((None, 5.0, 50.0)))
    if rng.random() < 0.3:
        rate = RatePolicy(records_per_s=rng.choice((1.0, 3.0)))
    breaker = BreakerPolicy(rng.choice((0.2, 0.5, 1.0)), rng.choice((10.0, 60.0)), rng.choice((3.0, 15.0)))
    function = replace(
        setup.function,
        rate=None if kind == "breaker" else rate,
        breaker=None if kind == "rate" else breaker,
    )
    small = rng.random() < 0.6 and not setup.plan.stream.tumbling_window_s
    # Many small batches need more calls than the rate allows.
    batch = replace(setup.plan.batch, records_max=1, window_s=0.0) if small else setup.plan.batch
    return replace(setup, plan=replace(setup.plan, batch=batch), function=function)


def _closings(rng: Random, setups: tuple[Setup, ...]) -> Iterator[Action]:
    """Now and then an operator closes a breaker, whether it is open or not."""
    for name in (each.function.name for each in setups if each.function.breaker is not None):
        if rng.random() < CLOSING_CHANCE:
            for _ in range(rng.choice((2, 5))):
                yield CloseBreaker(rng.uniform(1, HEALED_S), name, rng.random())


def _ended_tasks(rng: Random) -> Iterator[EndTask]:
    """Now and then a task of the engine is cancelled from inside, as by a function that cancels what it should not."""
    if rng.random() > 0.25:
        return
    for _ in range(rng.choice((1, 1, 2, 4))):
        yield EndTask(rng.uniform(1, WRITING_S), rng.random(), rng.random())


def _varied(seed: int, number: int, setup: Setup) -> Setup:
    if setup.plan.kind is SourceKind.SQS:
        given = _queue(seeded(seed, "queue policy", number), setup)
        given = _waiting(seeded(seed, "retry waits", number), given)
        crowded = _refusing(seeded(seed, "refusals", number), _crowded(seeded(seed, "crowd", number), given))
        return _with_own_settings(seeded(seed, "own settings", number), crowded)
    setup = _with_own_settings(seeded(seed, "own settings", number), setup)
    lag_s = seeded(seed, "listing lag", number).choice((0.0, 0.0, 0.5, 4.0))
    setup = replace(setup, listing_lag_s=lag_s)
    if setup.script.windowed and setup.plan.batch.payload_bytes_max > PAYLOAD_BYTES_MIN:
        return _windows(seeded(seed, "huge states", number), setup)
    return setup


def _refusing(rng: Random, setup: Setup) -> Setup:
    """Now and then a function that always refuses events with some of the messages, until the world heals."""
    if rng.random() > REFUSING_CHANCE:
        return setup
    return replace(setup, script=replace(setup.script, refuses_every=rng.choice((5, 11, 37))))


def _updates(rng: Random, setups: tuple[Setup, ...]) -> Iterator[Action]:
    if any(each.plan.kind is SourceKind.SQS for each in setups) and rng.random() < UPDATES_CHANCE:
        for _ in range(rng.choice((1, 2, 3))):
            yield Update(rng.uniform(0, WRITING_S), rng.random())


def _late_messages(rng: Random, setups: tuple[Setup, ...]) -> Iterator[Action]:
    """Now and then a worker is asked to stop, and messages come while its last polls are under way."""
    queues = [each.plan for each in setups if each.plan.kind is SourceKind.SQS]
    if not queues or rng.random() > LATE_MESSAGES_CHANCE:
        return
    at = rng.uniform(1, WRITING_S)
    yield Restart(at, rng.random())
    for plan in queues:
        serial = int(plan.mapping[-3:]) * 10_000 + LATE_NUMBER
        for number in range(serial, serial + rng.choice((1, 3, 10))):
            later = min(at + rng.expovariate(0.2), HEALED_S)
            yield Put(later, plan.source_arn, f"key-{rng.randrange(3)}", Content(number))


def _with_own_settings(rng: Random, setup: Setup) -> Setup:
    """Now and then a function on a service of its own, slower than others may be, whose limit and role may change.

    What is configured for it may be nothing, or too little.
    """
    if rng.random() > OWN_SETTINGS_CHANCE or not setup.plan.queue.extend_visibility:
        return setup
    limit_s, at = rng.choice((45.0, 60.0)), EPOCH_BASE + rng.uniform(1, HEALED_S)
    first = FunctionFacts(timeout_s=limit_s, role_arn=ROLE, state="Active")
    later = replace(
        first, timeout_s=limit_s * rng.choice((1.0, 2.0, 2.0)), role_arn=rng.choice((ROLE, f"{ROLE}-2"))
    )
    period = Period(start := EPOCH_BASE + rng.uniform(0, WRITING_S), start + rng.uniform(5, 400))
    script = replace(
        setup.script,
        own=(OwnSettings(EPOCH_BASE, first), OwnSettings(at, later)),
        slow_s=(30.0, 1.8 * limit_s),
        unseen=(period,) if rng.random() < 0.3 else (),
    )
    function = replace(setup.function, invoker=OWN, timeout_s=rng.choice((None, None, 10.0, 30.0, 90.0)))
    return replace(setup, plan=replace(setup.plan, role_arn=""), function=function, script=script)


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


def _waiting(rng: Random, setup: Setup) -> Setup:
    """Now and then a mapping whose failed messages wait, and a function that says how long."""
    if rng.random() < WAITING_CHANCE:
        base_s, factor = rng.choice((0.3, 1.0, 4.0)), rng.choice((1.0, 2.0, 3.5))
        backoff = RetryBackoff(base_s, factor, rng.choice((4.0, 9.0, 40.0)))
        setup = replace(
            setup, plan=replace(setup.plan, queue=replace(setup.plan.queue, retry_backoff=backoff))
        )
    if setup.script.reports and rng.random() < WAITING_CHANCE:
        setup = replace(setup, script=replace(setup.script, retry_after=rng.choice(WAITS)))
    return setup


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


def _shaped(rng: Random, setup: Setup) -> Setup:
    """Now and then a source whose records and messages lack what may be absent."""
    if rng.random() < 0.4:
        return setup
    plan, odd = setup.plan, rng.choice((0.05, 0.2, 0.4))
    unreadable = rng.choice((0.0, 0.0, 0.03))
    if plan.kind is SourceKind.SQS:
        shapes = Shapes(
            odd=odd,
            unreadable=unreadable,
            tenants=not plan.fifo and rng.random() < 0.8,
            dead_letters=rng.random() < 0.3,
        )
    else:
        # Where times decide over what is delivered, they are there.
        timeless = (
            plan.retry.age_max_s is None
            and plan.stream.start == Start()
            and not plan.stream.tumbling_window_s
        )
        shapes = Shapes(
            odd=odd,
            unreadable=unreadable,
            keyless=rng.choice((0.0, 0.2, 1.0)),
            undated=timeless and setup.retention_s >= DAY_S and rng.random() < 0.5,
        )
    return replace(setup, shapes=shapes)


def _keyed(rng: Random, scenario: Scenario) -> tuple[Action, ...]:
    """Now and then keys with odd characters, except of message groups, which have few."""
    queues = {each.plan.source_arn for each in scenario.setups if each.plan.kind is SourceKind.SQS}
    if rng.random() < 0.7:
        return scenario.actions
    odd = rng.choice(ODD_TEXTS)
    return tuple(
        replace(each, key=each.key + odd) if isinstance(each, Put) and each.source not in queues else each
        for each in scenario.actions
    )


def _sized(rng: Random, actions: tuple[Action, ...], setups: tuple[Setup, ...]) -> Iterator[Action]:
    """Now and then records and messages as large as the service takes them, where there is a way for them."""
    largest = {each.plan.source_arn: size for each in setups if (size := _largest(each)) is not None}
    seldom, left = rng.random() < 0.1, 3
    for each in actions:
        if seldom and left and isinstance(each, Put) and each.source in largest and rng.random() < 0.2:
            left -= 1
            yield replace(each, content=replace(each.content, pad=largest[each.source]))
        else:
            yield each


def _largest(setup: Setup) -> int | None:
    """The largest pad that the source takes; None where such a record would never leave it."""
    plan = setup.plan
    match plan.kind:
        case SourceKind.KINESIS if plan.retry.retries_max is not None or plan.retry.age_max_s is not None:
            return KINESIS_BYTES_MAX - PAD_BYTES_ROOM
        case SourceKind.DYNAMODB if plan.batch.payload_bytes_max > ITEM_BYTES_MAX * 2:
            return ITEM_BYTES_MAX - PAD_BYTES_ROOM
        case SourceKind.SQS if plan.batch.payload_bytes_max > MESSAGE_BYTES_MAX * 2:
            return MESSAGE_BYTES_MAX - PAD_BYTES_ROOM
        case _:
            return None


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
