"""Owns what a worker's mappings say about its load at one moment, and what of it more workers could help with.

A blocked or paused shard does not count at all: its lag grows for ever, and no worker can change that. What the function holds
back on all workers (an open breaker, its rate, the mapping's maximum) does not call for more workers. But it is no reason to
remove some either, because there is work to catch up with afterwards.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from poller.domain.records import MappingId

LATE_S = 60.0
"""A shard that is so far behind is late. The time in which a batch may gather comes on top."""
CALM_LAG_S = 15.0
"""A calm worker has no shard that is further behind."""
CALM_USE = 0.4
"""A calm worker uses at most this part of the room of each function. With a quarter fewer workers it stays well below all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUse:
    """The room of one function on this worker: running and waiting calls, and how many may run (None: any number).

    `held_back` says that an open breaker or the rate keeps calls waiting, which more workers do not change.
    """

    function: str
    in_flight: int
    waiting: int
    limit: int | None
    held_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLoad:
    """A stream on this worker: how many seconds each of its shards that get on is behind (None: not known yet).

    `gather_s` is how long records may wait for their batch, and a quiet shard for its next read.
    """

    use: FunctionUse
    lags_s: Sequence[float | None] = ()
    gather_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLoad:
    """A queue on this worker. `pollers` run here, `working` of them have messages, and `ceiling` may run.

    `hungry`: receives come back full. `maximum` is how many calls all workers together may have (None: any number); `at_maximum`
    says that this worker uses all of its share. `held_back`: the queue receives nothing, because of a pause or a refusal.
    """

    use: FunctionUse
    pollers: int
    working: int
    ceiling: int
    hungry: bool
    maximum: int | None = None
    at_maximum: bool = False
    held_back: bool = False


type MappingLoad = StreamLoad | QueueLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSample:
    """The load of one worker at one moment.

    `lag_s` is the greatest lag that more workers could help with, in the mapping `late`. `full` is a queue that has more messages
    than this worker has room for. `restless`: there is work that waits and that more workers would not help with. `use` is the
    greatest used part of the room of a function, 0 to 1. The others are as in WorkerLoad.
    """

    lag_s: float = 0.0
    late: str = ""
    full: str = ""
    restless: bool = False
    use: float = 0.0
    shards: int = 0
    calls: int = 0
    unbounded: bool = False

    @property
    def busy(self) -> bool:
        """Whether more workers could help."""
        return self.lag_s >= LATE_S or bool(self.full)

    @property
    def calm(self) -> bool:
        """Whether fewer workers would do."""
        return not self.busy and not self.restless and self.lag_s < CALM_LAG_S and self.use <= CALM_USE


def sample_of(loads: Mapping[MappingId, MappingLoad]) -> LoadSample:
    """The load of a worker with these mappings."""
    streams = {each: load for each, load in loads.items() if isinstance(load, StreamLoad)}
    queues = {each: load for each, load in loads.items() if isinstance(load, QueueLoad)}
    shards = sum(len(load.lags_s) for load in streams.values())
    lags = {each: _lag_s(load) for each, load in streams.items()}
    # A worker with one shard and nothing else has nothing that it could hand over.
    divisible = shards + len(queues) > 1
    helped = {each: lag_s for each, lag_s in lags.items() if divisible and not streams[each].use.held_back}
    late = max(helped, key=lambda each: (helped[each], each), default=None)
    rest = [lag_s for each, lag_s in lags.items() if each not in helped]
    unknown = any(None in load.lags_s for load in streams.values())
    full = sorted(each for each, load in queues.items() if _full(load))
    hungry = any(load.hungry for load in queues.values())
    maxima = [load.maximum for load in queues.values() if load.maximum is not None]
    return LoadSample(
        lag_s=helped[late] if late is not None else 0.0,
        late=late or "",
        full=full[0] if full else "",
        restless=unknown or hungry or max(rest, default=0.0) >= CALM_LAG_S,
        use=max((*_uses(loads.values()), *map(_queue_use, queues.values())), default=0.0),
        shards=shards,
        calls=sum(maxima),
        unbounded=len(maxima) < len(queues),
    )


def _lag_s(load: StreamLoad) -> float:
    """How far the last of its shards is behind, beyond what gathering explains."""
    return max(0.0, max((lag for lag in load.lags_s if lag is not None), default=0.0) - load.gather_s)


def _full(load: QueueLoad) -> bool:
    """Whether the queue has more messages than there is room for here, and another worker would have room."""
    use = load.use
    if not load.hungry or load.held_back or use.held_back or load.at_maximum:
        return False
    no_slot = use.limit is not None and use.in_flight >= use.limit and use.waiting > 0
    return load.pollers >= load.ceiling or no_slot


def _queue_use(load: QueueLoad) -> float:
    return load.working / load.ceiling if load.ceiling else 0.0


def _uses(loads: Iterable[MappingLoad]) -> Iterable[float]:
    """The used part of each function's room. A poller that only waits for messages holds room, too, but uses none."""
    uses: dict[str, FunctionUse] = {}
    waiting: dict[str, int] = {}
    for load in loads:
        uses[load.use.function] = load.use
        if isinstance(load, QueueLoad):
            idle = max(0, load.pollers - load.working)
            waiting[load.use.function] = waiting.get(load.use.function, 0) + idle
    for name, use in uses.items():
        if use.limit:
            yield min(1.0, max(0, use.in_flight - waiting.get(name, 0)) / use.limit)
