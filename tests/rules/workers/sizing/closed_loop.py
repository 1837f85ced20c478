"""Owns a model of a closed loop: workers with shards whose load goes up and down, and an autoscaler that does what they recommend.

The autoscaler is like KEDA with the HPA: every 15 s it asks one worker, whichever; a number that differs by a tenth or less changes
nothing; pods take a while to start; and it goes down to the greatest recommendation of the last minutes only. A worker's digest reaches the others a few seconds later. Workers are named
anew whenever a pod starts.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from poller.domain.records import MappingId, Monotonic, WorkerId
from poller.domain.sizing.fleet_size import FleetSize, WorkerLoad
from poller.rules.workers.sizing import recommendation
from poller.rules.workers.sizing.meter import PressureMeter
from poller.rules.workers.sizing.samples import FunctionUse, StreamLoad, sample_of

STEP_S = 5.0
ASK_S = 15.0
START_S = 40.0
DIGEST_S = 5.0
DOWN_WINDOW_S = 300.0
TOLERANCE = 0.1
MAPPING = MappingId("orders")


@dataclass
class Shard:
    """A shard into which `rate` records a second come. `waiting` are not processed yet."""

    waiting: float = 0.0
    blocked: bool = False
    rate: float = 0.0

    @property
    def lag_s(self) -> float:
        return self.waiting / self.rate if self.rate else 0.0


@dataclass
class Pod:
    """One worker. It is one of the workers from `ready_at` on. `told` has its digests, the last one last."""

    name: WorkerId
    ready_at: float
    meter: PressureMeter = field(default_factory=PressureMeter)
    load: WorkerLoad | None = None
    size: FleetSize | None = None
    told: deque[tuple[float, WorkerLoad]] = field(default_factory=deque)
    mute: bool = False

    def heard(self, now: float) -> WorkerLoad | None:
        """What the others know of it."""
        while len(self.told) > 1 and self.told[1][0] <= now - DIGEST_S:
            self.told.popleft()
        known = self.told and self.told[0][0] <= now - DIGEST_S and not self.mute
        return self.told[0][1] if known else None


@dataclass
class Loop:
    """The whole. `capacity` is how many records a second one worker processes; `rate(now)` how many come, over all shards."""

    rate: Callable[[float], float]
    shards: int = 8
    capacity: float = 100.0
    limit: int = 20
    seed: int = 1
    replicas_max: int = 20
    now: float = 0.0
    replicas: int = 2

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.held = [Shard() for _ in range(self.shards)]
        self.pods: list[Pod] = []
        self.started = 0
        self.asked: deque[tuple[float, int]] = deque()
        self.answers: list[tuple[float, int]] = []
        self.changes: list[tuple[float, int]] = []
        """The moments at which the recommendation was made that is answered from then on."""
        self.lag_s_max = 0.0
        self.recommended = self.replicas
        for _ in range(self.replicas):
            self.start(at=0.0)

    def start(self, at: float) -> None:
        self.started += 1
        self.pods.append(Pod(WorkerId(f"pod-{self.started}"), at))

    @property
    def ready(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.ready_at <= self.now]

    def run(self, for_s: float) -> None:
        until = self.now + for_s
        while self.now < until:
            self.step()

    def step(self) -> None:
        self.now += STEP_S
        self._work()
        self._measure()
        if self.now % ASK_S == 0:
            self._autoscale()

    def _work(self) -> None:
        """Each worker shares its capacity out among its shards that have something."""
        rate = self.rate(self.now) / self.shards
        parts: dict[int, list[Shard]] = {}
        for number, shard in enumerate(self.held):
            shard.rate = rate
            shard.waiting += rate * STEP_S
            parts.setdefault(number % len(self.ready), []).append(shard)
        for part in parts.values():
            left = self.capacity * STEP_S
            busy = sorted((each for each in part if not each.blocked), key=lambda each: each.waiting)
            for position, shard in enumerate(busy):
                done = min(shard.waiting, left / (len(busy) - position))
                shard.waiting -= done
                left -= done
        self.lag_s_max = max((each.lag_s for each in self.held if not each.blocked), default=0.0)

    def _measure(self) -> None:
        ready = self.ready
        for number, pod in enumerate(ready):
            part = self.held[number :: len(ready)]
            used = min(1.0, sum(each.rate for each in part if not each.blocked) / self.capacity)
            late = any(each.lag_s > 1 for each in part if not each.blocked)
            use = FunctionUse(
                function="f",
                in_flight=round(self.limit * (1.0 if late else used)),
                waiting=int(late),
                limit=self.limit,
            )
            lags = [each.lag_s for each in part if not each.blocked]
            sample = sample_of({MAPPING: StreamLoad(use=use, lags_s=lags)})
            now = Monotonic(self.now)
            pod.meter = pod.meter.observed(sample, workers=len(ready), now=now)
            pod.load = WorkerLoad(
                pressure=pod.meter.pressure(now),
                workers=len(ready),
                shards=sample.shards,
                reason=pod.meter.reason,
                size=pod.size,
            )
            if not pod.told or pod.told[-1][1] != pod.load:
                pod.told.append((self.now, pod.load))

    def ask(self, pod: Pod) -> int | None:
        """What one worker answers, as `FleetSizing.look` does it."""
        assert pod.load is not None
        others = {each.name: each.heard(self.now) for each in self.ready if each is not pod}
        loads = {**others, pod.name: replace(pod.load, size=pod.size)}
        before = pod.size
        pod.size = recommendation.newest(each.size for each in loads.values() if each is not None)
        if pod.size is not None or self.now - pod.ready_at >= 60.0:
            pod.size = recommendation.decided(pod.size, loads)
        if pod.size != before and pod.size is not None and pod.size.workers != self.recommended:
            self.recommended = pod.size.workers
            self.changes.append((self.now, pod.size.workers))
        return pod.size.workers if pod.size is not None else None

    def _autoscale(self) -> None:
        answer = self.ask(self.rng.choice(self.ready))
        if answer is None:
            return
        self.answers.append((self.now, answer))
        seen = self.replicas if abs(1 - answer / self.replicas) <= TOLERANCE else answer
        wanted = max(1, min(self.replicas_max, seen))
        self.asked.append((self.now, wanted))
        while self.asked[0][0] < self.now - DOWN_WINDOW_S:
            self.asked.popleft()
        stable = max(number for _, number in self.asked)
        target = wanted if wanted > self.replicas else min(self.replicas, stable)
        for _ in range(self.replicas, target):
            self.start(at=self.now + START_S)
        while len(self.pods) > max(target, 1):
            self.pods.pop()
        self.replicas = target
