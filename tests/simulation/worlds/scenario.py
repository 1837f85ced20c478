"""Owns what is drawn from a seed: mappings, what is written to their sources, what goes wrong, and when."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from poller.domain import operations
from poller.domain.plan import (
    DiscardPolicy,
    FunctionPlan,
    MappingPlan,
    OnDestinationFailure,
    SourceKind,
    Start,
    StreamPolicy,
    Tuning,
)
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import Epoch, MappingId, QueueFacts
from tests.simulation.finding.listings import Finding
from tests.simulation.pushing.service import Pushes
from tests.simulation.services.contents import Content, Kind
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import FaultPlan, Port
from tests.simulation.services.functions import Period, Script
from tests.simulation.services.wires import PLAIN, Shapes
from tests.virtual import EPOCH_BASE

DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:failed"
ACCOUNT = "eu-west-1:111122223333"
WRITING_S = 40.0
"""Everything is written within this time; faults may last a little longer."""
HEALED_S = 60.0
RECORDS_MAX = 90


@dataclass(frozen=True, slots=True)
class Put:
    """A record or a message is written; `key` is its partition key, item key or message group."""

    at: float
    source: str
    key: str
    content: Content
    inside: tuple[tuple[str, Content], ...] = ()
    """More user records of an aggregated record, with their keys."""


@dataclass(frozen=True, slots=True)
class Reshard:
    """A stream changes its shards: `how` is split, merge or roll; `pick` chooses among those that can."""

    at: float
    source: str
    how: str
    pick: float


@dataclass(frozen=True, slots=True)
class Remake:
    """A stream is deleted, and made again under its name with so many shards."""

    at: float
    source: str
    shards: int


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker dies; another starts `back_s` later. Here and below `pick` chooses among those that are there."""

    at: float
    back_s: float
    pick: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """A worker is stopped for `for_s` seconds; a new one starts `replaced_s` after the stop, if that is not None."""

    at: float
    for_s: float
    replaced_s: float | None
    pick: float = 0.0


@dataclass(frozen=True, slots=True)
class Restart:
    """A worker is asked to stop and drains; another starts when it has."""

    at: float
    pick: float = 0.0


@dataclass(frozen=True, slots=True)
class Join:
    """One more worker starts."""

    at: float


@dataclass(frozen=True, slots=True)
class Update:
    """The mappings of a worker's queues are changed, so that they drain and begin anew."""

    at: float
    pick: float = 0.0


@dataclass(frozen=True, slots=True)
class EndTask:
    """Somebody inside a worker cancels one of its tasks; `pick` chooses the worker, `task_pick` the task."""

    at: float
    pick: float
    task_pick: float


@dataclass(frozen=True, slots=True)
class Operate:
    """Somebody does something to a lane of a stream: retries, resets, skips, or pauses for `lasts_s` seconds.

    It is about `one_lane`, or its shard; a pause that is not of `one_shard` is of the mapping. `records` says what a
    skip is about: first, batch or list. With `anywhere` it is about any shard, also one that has ended or that no worker has.
    """

    at: float
    action: operations.Action
    one_lane: bool
    one_shard: bool = True
    records: str = "first"
    send: bool = True
    lasts_s: float = 0.0
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class CloseBreaker:
    """An operator closes the breaker of a function at a worker."""

    at: float
    function: str
    pick: float


@dataclass(frozen=True, slots=True)
class Seek:
    """Somebody moves the shards of a mapping, or `some_shards`; and cancels it `cancelled_s` seconds later unless that is None.

    `to` is TRIM_HORIZON, LATEST, `time` (`ago_s` seconds ago), or `sequence` (of the record that `pick` picks).
    """

    at: float
    setup: int
    to: str
    ago_s: float
    pick: float
    some_shards: bool
    skip: bool
    dry_run: bool
    cancelled_s: float | None = None


@dataclass(frozen=True, slots=True)
class Redrive:
    """Somebody has what a mapping gave up called again, or `limit` of it; and cancels that `cancelled_s` seconds later unless that is None."""

    at: float
    setup: int
    limit: int | None
    per_s: float | None
    dry_run: bool
    cancelled_s: float | None = None


@dataclass(frozen=True, slots=True)
class CallFunction:
    """Somebody calls a function of a mapping at a worker; it takes `takes_s` seconds."""

    at: float
    function: str
    takes_s: float
    pick: float


@dataclass(frozen=True, slots=True)
class RemoveConsumer:
    """Somebody removes one of a stream's consumers; `pick` chooses."""

    at: float
    source: str
    pick: float


type Action = (
    Put
    | Reshard
    | Remake
    | Crash
    | Pause
    | Restart
    | Join
    | Update
    | EndTask
    | Operate
    | CloseBreaker
    | CallFunction
    | Seek
    | Redrive
    | RemoveConsumer
)


@dataclass(frozen=True, slots=True)
class Setup:
    """One mapping with its source and its function; `facts` for queues, `shards` and `retention_s` for streams."""

    plan: MappingPlan
    function: FunctionPlan
    script: Script
    facts: QueueFacts | None = None
    duplicates: float = 0.0
    shards: int = 1
    retention_s: float = 86_400.0
    listing_lag_s: float = 0.0
    """For how long a listing does not show yet that shards were closed and opened."""
    shapes: Shapes = PLAIN
    pushes: Pushes | None = None
    """How the service pushes the stream's records, if it has consumers."""
    finding: Finding | None = None
    """How the shards are found; None: all of them are listed each time."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a seed stands for."""

    seed: int
    setups: tuple[Setup, ...]
    faults: FaultPlan
    actions: tuple[Action, ...]
    tuning: Tuning
    workers: int = 1


def base(seed: int) -> Scenario:
    """The scenario of a seed, without its variations; the same seed gives the same one."""
    rng = seeded(seed, "scenario")
    kinds = rng.choices(("kinesis", "dynamodb", "standard", "fifo"), (5, 2, 2, 2), k=rng.choice((1, 1, 2)))
    stormy = rng.random() < 0.7
    setups = tuple(_setup(rng, number, kind, stormy=stormy) for number, kind in enumerate(kinds))
    actions = [action for setup in setups for action in _writes(rng, setup)]
    if stormy:
        actions += _outages(rng)
    actions.sort(key=lambda each: each.at)
    faults, workers = _faults(rng, stormy=stormy), rng.choice((1, 1, 1, 2, 3))
    if any(each.plan.stream.tumbling_window_s and each.plan.kind is SourceKind.DYNAMODB for each in setups):
        # DynamoDB tells no lag: nobody can know that an empty page has records behind it, and a window closes too early.
        faults = replace(faults, empty_page=0.0)
    return Scenario(seed, setups, faults, tuple(actions), _tuning(rng), workers)


def _tuning(rng: Random) -> Tuning:
    return Tuning(
        discovery_s=rng.choice((5.0, 30.0)),
        checkpoint_s=rng.choice((0.5, 1.0, 5.0)),
        read_records_max=rng.choice((5, 100, 10_000)),
        look_ahead_records_max=rng.choice((20, 10_000)),
        port_backoff=Backoff(base_s=0.2, cap_s=rng.choice((2.0, 10.0))),
    )


def _faults(rng: Random, *, stormy: bool) -> FaultPlan:
    heals_at = EPOCH_BASE + HEALED_S
    if not stormy:
        return FaultPlan(heals_at=heals_at)
    ports = (Port.SOURCE, Port.DESTINATION, Port.STORE)
    chances = (0.0, 0.01, 0.05, 0.15)
    return FaultPlan(
        latency_s=rng.choice(((0.001, 0.03), (0.01, 0.5))),
        throttled={port: rng.choice(chances) for port in ports},
        unavailable={port: rng.choice(chances) for port in (*ports, Port.FUNCTION)},
        lost_reply={port: rng.choice(chances) for port in (*ports, Port.FUNCTION)},
        outages={port: (_period(rng),) for port in ports if rng.random() < 0.25},
        expired_cursor=rng.choice((0.0, 0.02, 0.1)),
        empty_page=rng.choice((0.0, 0.1)),
        heals_at=heals_at,
    )


def _period(rng: Random) -> Period:
    start = EPOCH_BASE + rng.uniform(1, WRITING_S)
    return Period(start, min(start + rng.uniform(1, 20), EPOCH_BASE + HEALED_S))


def _outages(rng: Random) -> Iterator[Action]:
    """What happens to the worker itself."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        at, pick = rng.uniform(2, WRITING_S), rng.random()
        match rng.choice(("crash", "crash", "pause", "replace", "restart", "join")):
            case "crash":
                yield Crash(at, rng.choice((0.5, 5.0, 30.0)), pick)
            case "pause":
                yield Pause(at, rng.uniform(5, 40), None, pick)
            case "replace":
                pause_s = rng.uniform(5, 40)
                yield Pause(at, pause_s, rng.uniform(1, pause_s), pick)
            case "join":
                yield Join(at)
            case _:
                yield Restart(at, pick)


def _setup(rng: Random, number: int, kind: str, *, stormy: bool) -> Setup:
    if kind in ("kinesis", "dynamodb"):
        return _stream(rng, number, SourceKind(kind), stormy=stormy)
    return _queue(rng, number, fifo=kind == "fifo", stormy=stormy)


def _stream(rng: Random, number: int, kind: SourceKind, *, stormy: bool) -> Setup:
    retry = RetryPolicy(
        retries_max=rng.choice((None, 0, 1, 3)),
        age_max_s=rng.choice((None, None, None, 10.0)),
        bisect=rng.random() < 0.5,
        report_failures=rng.random() < 0.5,
        backoff=Backoff(cap_s=rng.choice((1.0, 5.0))),
    )
    destination = DESTINATION if retry.age_max_s or rng.random() < 0.7 else None
    start = _start(rng, kind)
    plan = MappingPlan(
        **_common(number, _stream_arn(kind, number)),
        kind=kind,
        batch=_batch(rng, windows=(0.0, 0.0, 1.0, 5.0)),
        retry=retry,
        stream=StreamPolicy(start=start, lanes=rng.choice((1, 1, 2, 4))),
        filters=_filters(rng, kind),
        discard=DiscardPolicy(
            destination, rng.choice((OnDestinationFailure.KEEP, OnDestinationFailure.DROP))
        ),
    )
    if rng.random() < 0.2:
        # Windows go with neither filters nor lanes.
        windowed = StreamPolicy(start=start, tumbling_window_s=rng.choice((2, 5, 20)))
        plan = replace(plan, stream=windowed, filters=())
    hopeless = retry.retries_max is not None or retry.age_max_s is not None
    script = _script(rng, stormy=stormy, reports=retry.report_failures, poison_heals=not hopeless)
    return Setup(
        plan,
        _function(rng, number),
        replace(script, windowed=plan.stream.tumbling_window_s > 0),
        shards=rng.choice((1, 1, 2, 3)),
        retention_s=rng.choice((86_400.0,) * 7 + (25.0,)),
    )


def _queue(rng: Random, number: int, *, fifo: bool, stormy: bool) -> Setup:
    facts = QueueFacts(rng.choice((10, 30)), fifo, rng.choice((None, 3, 5)))
    plan = MappingPlan(
        **_common(number, f"arn:aws:sqs:{ACCOUNT}:queue-{number}{'.fifo' if fifo else ''}"),
        kind=SourceKind.SQS,
        batch=BatchPolicy(rng.choice((1, 3, 10))) if fifo else _batch(rng, windows=(0.0, 1.0, 3.0)),
        retry=RetryPolicy(report_failures=rng.random() < 0.5),
        scaling=ScalingPolicy(concurrency_max=rng.choice((None, 2, 5))),
        filters=_filters(rng, SourceKind.SQS),
    )
    if plan.batch.records_max > 10 and not plan.batch.window_s:
        plan = replace(plan, batch=replace(plan.batch, records_max=10))
    poison_heals = facts.redrive_receives_max is None
    script = _script(rng, stormy=stormy, reports=plan.retry.report_failures, poison_heals=poison_heals)
    return Setup(
        plan,
        _function(rng, number, timeout_s=5.0),
        replace(script, slow_s=(1.0, 4.0)),
        facts=facts,
        duplicates=rng.choice((0.0, 0.02)) if not fifo else 0.0,
    )


def _common(number: int, arn: str) -> dict[str, Any]:
    return {
        "mapping": MappingId(f"00000000-0000-4000-8000-{number:012d}"),
        "source_arn": arn,
        "function": f"function-{number}",
        "function_arn": f"arn:aws:lambda:{ACCOUNT}:function:function-{number}",
        "role_arn": "arn:aws:iam::111122223333:role/reader",
    }


def _stream_arn(kind: SourceKind, number: int) -> str:
    if kind is SourceKind.KINESIS:
        return f"arn:aws:kinesis:{ACCOUNT}:stream/stream-{number}"
    return f"arn:aws:dynamodb:{ACCOUNT}:table/table-{number}/stream/2026-01-01T00:00:00.000"


def _start(rng: Random, kind: SourceKind) -> Start:
    choices = [Start(), Start(), Start(latest=True)]
    if kind is SourceKind.KINESIS:
        choices.append(Start(since=Epoch(EPOCH_BASE - 5.0)))
    return rng.choice(choices)


def _batch(rng: Random, *, windows: tuple[float, ...]) -> BatchPolicy:
    return BatchPolicy(
        rng.choice((1, 3, 10, 100)), rng.choice(windows), rng.choice((6_000_000, 6_000_000, 6000))
    )


def _filters(rng: Random, kind: SourceKind) -> tuple[str, ...]:
    if rng.random() < 0.7:
        return ()
    match kind:
        case SourceKind.KINESIS:
            return ('{"data":{"keep":["yes"]}}',)
        case SourceKind.DYNAMODB:
            return ('{"dynamodb":{"NewImage":{"keep":{"S":["yes"]}}}}',)
        case SourceKind.SQS:
            return ('{"body":{"keep":["yes"]}}',)


def _function(rng: Random, number: int, *, timeout_s: float = 10.0) -> FunctionPlan:
    return FunctionPlan(
        name=f"function-{number}",
        invoker="sim",
        timeout_s=timeout_s,
        max_concurrency=rng.choice((None, 1, 3)),
    )


def _script(rng: Random, *, stormy: bool, reports: bool, poison_heals: bool) -> Script:
    heals_at = EPOCH_BASE + HEALED_S
    script = Script(
        reports=reports,
        malformed_chance=rng.choice((0.0, 0.2)),
        poison_heals_at=heals_at if poison_heals else None,
        heals_at=heals_at,
    )
    if not stormy:
        return script
    return replace(
        script,
        error_chance=rng.choice((0.0, 0.05, 0.2)),
        throttle_chance=rng.choice((0.0, 0.1)),
        throttled=(_period(rng),) if rng.random() < 0.2 else (),
        unreachable=(_period(rng),) if rng.random() < 0.2 else (),
    )


def _writes(rng: Random, setup: Setup) -> Iterator[Action]:
    """Records in bursts over the first seconds, some written before the worker starts; and reshardings."""
    plan = setup.plan
    keys = [f"key-{number}" for number in range(rng.choice((1, 4, 12)))]
    total = rng.randint(10, RECORDS_MAX)
    spread_s = rng.choice((0.5, 10.0, WRITING_S))
    weights = (20, 1, 2, 1, 1) if rng.random() < 0.8 else (1, 0, 0, 0, 0)
    for number in range(total):
        at = rng.choice((-2.0, rng.uniform(0, spread_s), rng.uniform(0, spread_s)))
        kind = rng.choices(tuple(Kind), weights)[0]
        pad = rng.choice((0, 0, 0, 900)) if plan.batch.payload_bytes_max < 10_000 else 0
        pad = 7000 if pad and rng.random() < 0.1 and _gives_up(plan) else pad
        serial = int(plan.mapping[-3:]) * 10_000 + number
        content = Content(serial, kind, rng.random() < 0.8, pad)
        yield Put(at, plan.source_arn, rng.choice(keys), content)
    if plan.kind is not SourceKind.SQS:
        yield from _reshards(rng, plan)


def _gives_up(plan: MappingPlan) -> bool:
    """Whether a record that can never be delivered has a way out."""
    return plan.retry.retries_max is not None or plan.retry.age_max_s is not None


def _reshards(rng: Random, plan: MappingPlan) -> Iterator[Action]:
    hows = ("split", "split", "merge", "roll") if plan.kind is SourceKind.KINESIS else ("roll",)
    for _ in range(rng.choice((0, 1, 2, 4))):
        yield Reshard(rng.uniform(0, WRITING_S), plan.source_arn, rng.choice(hows), rng.random())
