"""Owns what tests of the page show: a server with models behind it, a browser that looks at it, and things in trouble."""

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters.control.settings import ApiSettings
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
    PartResult,
)
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import (
    BreakerStatus,
    DaemonStatus,
    ErrorDocument,
    FaultyRecord,
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
from poller.domain.telemetry.history import HistoryPoint, MappingHistory, MappingPoint, RecentHistory
from poller.domain.telemetry.labels import BreakerState
from poller.testing.telemetry_events import MAPPING, QUEUE, STREAM_ARN
from tests.adapters.control.invoke.callers import CallerModel
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.browser import Browser
from tests.adapters.control.peeked import PeekModel
from tests.adapters.control.serving import Running, Setting, View, serving
from tests.adapters.control.test_access import write

FIFO_ARN = "arn:aws:sqs:eu-west-1:111122223333:mails.fifo"
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:orders-failed"
WELL = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb03")
HELD = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb04")
TOKENS = {"view": "see-1", "operate": "do-2", "admin": "all-3"}
NAMES = {"view": "vera", "operate": "oscar", "admin": "alice"}
PATIENCE_S = 240.0


def ago(seconds: float) -> Epoch:
    """A moment so long before now."""
    return Epoch(time.time() - seconds)


def shard(number: int, **more: Any) -> ShardStatus:
    """A shard that gets on."""
    given: dict[str, Any] = {
        "shard": ShardId(f"shardId-{number:012d}"),
        "state": "reading",
        "position": f"AFTER:{49_000 + number}",
        "behind_ms": 1500,
        "owner": "ann",
    }
    return ShardStatus(**{**given, **more})


def blocked_lane(**more: Any) -> LaneStatus:
    """A lane that three records block."""
    given: dict[str, Any] = {
        "lane": "0",
        "state": "waiting",
        "attempts": 7,
        "blocked_since": ago(240),
        "next_try": ago(-90),
        "last_error": "ValueError: no stock for this",
        "error": ErrorDocument(
            errorType="ValueError", errorMessage="no stock for this", stackTrace=("File a", "  b")
        ),
        "records": (
            FaultyRecord(identifier="49617300281234567890", key="order-7", arrived=ago(300)),
            FaultyRecord(identifier="49617300281234567891", key="order-8", arrived=ago(299)),
        ),
        "records_count": 3,
        "retained_until": ago(-80_000),
    }
    return LaneStatus(**{**given, **more})


def stream(shards: Sequence[ShardStatus], **more: Any) -> MappingStatus:
    """A mapping of a stream."""
    given: dict[str, Any] = {
        "mapping": MAPPING,
        "function": "orders",
        "source_arn": STREAM_ARN,
        "state": MappingState.ENABLED,
        "destination": DESTINATION,
        "last_result": "OK",
    }
    return MappingStatus(shards=tuple(shards), **{**given, **more})


def queue(lanes: Sequence[LaneStatus], **more: Any) -> MappingStatus:
    """A mapping of a FIFO queue that two workers run."""
    given: dict[str, Any] = {
        "mapping": QUEUE,
        "function": "mails",
        "source_arn": FIFO_ARN,
        "state": MappingState.ENABLED,
        "pollers": 4,
        "workers": (
            MappingWorker(worker="ann", state=MappingState.ENABLED, pollers=2, blocked=1),
            MappingWorker(worker="bob", state=MappingState.ENABLED, pollers=2),
        ),
    }
    return MappingStatus(lanes=tuple(lanes), **{**given, **more})


def pause(operation: str = "op-pause", reason: str = "repair of the database") -> PauseStatus:
    """A pause by an operator."""
    return PauseStatus(operation=operation, by="carol", since=ago(600), reason=reason)


def status(*mappings: MappingStatus, **more: Any) -> DaemonStatus:
    """What worker ann answers."""
    workers = (
        WorkerStatus(worker="ann", state=WorkerState.ALIVE),
        WorkerStatus(worker="bob", state=WorkerState.SILENT, age_s=7.0, out_of_date=True),
    )
    given: dict[str, Any] = {"worker": "ann", "ready": True, "alive": True, "workers": workers}
    return DaemonStatus(mappings=mappings, **{**given, **more})


def everything() -> DaemonStatus:
    """One of each thing that the page has a view for."""
    group = blocked_lane(lane="customer-9", attempts_max=10, worker="ann", error=None, records_count=1)
    group = replace(group, records=group.records[:1], retained_until=None)
    return status(
        stream([shard(1)], mapping=WELL, function="audit"),
        stream([shard(0, paused=pause()), shard(1, paused=pause())], mapping=HELD, function="bills", paused=pause()),
        queue([group, LaneStatus(lane="poller 1", state="invoking", worker="bob")]),
        stream([shard(0, state="blocked", lanes=(blocked_lane(),)), shard(1, owner="bob"), shard(2)]),
        notes=("the configuration file was refused: mappings: no such field",),
        functions=(breaking(BreakerState.OPEN),),
    )  # fmt: skip


def breaking(state: BreakerState) -> FunctionStatus:
    """A function with a rate, and a breaker in this state at worker bob."""
    breaker = BreakerStatus(state=state, since=ago(30), reason="9 of 10 calls failed", calls=10, failed=9)
    return FunctionStatus(
        function="orders",
        rate=RateStatus(invocations_per_s=5.0, records_per_s=None, share=0.5, waiting=2),
        breakers=(
            WorkerBreaker(worker="ann", breaker=BreakerStatus(state=BreakerState.CLOSED, since=ago(30))),
            WorkerBreaker(worker="bob", breaker=breaker),
        ),
    )


def operation(name: str, action: Action = Action.PAUSE, **more: Any) -> Operation:
    """An operation that runs."""
    given: dict[str, Any] = {
        "mapping": MAPPING,
        "request": OperationRequest(
            action=action, target=OperationTarget(shard=ShardId("shardId-000000000000")), reason="ticket 4711"
        ),
        "by": "carol",
        "created": ago(60),
        "state": OperationState.RUNNING,
        "wanted": ("shardId-000000000000", "shardId-000000000001"),
        "parts": {"shardId-000000000000": PartResult(state=OperationState.DONE)},
    }
    return Operation(operation=OperationId(name), **{**given, **more})


@dataclass
class HistoryModel:
    """A HistorySource whose history a test sets."""

    series: dict[MappingId, MappingHistory] = field(default_factory=dict)
    ended: int = 0
    newest: dict[MappingId, MappingPoint] = field(default_factory=dict)

    def steps(self) -> int:
        return self.ended

    def point(self) -> HistoryPoint:
        return HistoryPoint(now=ago(0), mappings=self.newest)

    def slices(self, mapping: MappingId | None = None) -> Generator[None, None, RecentHistory]:
        yield
        found = {name: each for name, each in self.series.items() if mapping in (None, name)}
        return RecentHistory(worker="ann", now=ago(0), mappings=found)

    def add(self, mapping: MappingId, point: MappingPoint) -> None:
        """A step has ended."""
        self.newest = {mapping: point}
        self.ended += 1


@dataclass
class Scene:
    """The server, what is behind it, and the page in the browser."""

    run: Running
    page: Browser
    view: View
    operations: OperationModel
    mappings: MappingModel
    peeking: PeekModel
    history: HistoryModel

    async def sign_in(self, token: str) -> None:
        """Enters a token on the page."""
        await self.page.click("Enter a token")
        await self.page.fill("Token", token)
        await self.page.click("Use it")
        await self.page.wait(css="dialog", gone=True)

    def asked(self) -> list[Any]:
        """What operations were asked for, each with its mapping and without its id."""
        found = [value for verb, value in self.operations.asked if verb == "submit"]
        return [
            (mapping, {name: value for name, value in request.items() if name != "id"})
            for mapping, request, _ in found
        ]


@dataclass(frozen=True, slots=True)
class Room:
    """Where a test is: a folder of its own, and the browser of this process of the test run."""

    folder: Path
    browser: Browser


@dataclass
class Stage:
    """How a scene is set. `token` is entered before the test begins; `seen` are what the browser may complain of."""

    room: Room
    status: DaemonStatus = field(default_factory=everything)
    operations: OperationModel = field(default_factory=OperationModel)
    mappings: MappingModel = field(default_factory=MappingModel)
    peeking: PeekModel = field(default_factory=PeekModel)
    history: HistoryModel = field(default_factory=HistoryModel)
    calls: CallerModel | None = None
    token: str = TOKENS["admin"]
    api: dict[str, Any] = field(default_factory=dict)
    width: int = 1600
    dark: bool = False
    first: str = "Live."
    """A text that shows that the page is ready; empty if there is nothing to wait for."""
    answers: int = 200
    """The status with which the page is answered."""


def play[T](use: Callable[[Scene], Awaitable[T]], stage: Stage) -> T:
    """Runs `use` with the page open; fails if the browser complained of anything."""

    page = stage.room.browser

    async def run(running: Running) -> T:
        scene = Scene(running, page, view, stage.operations, stage.mappings, stage.peeking, stage.history)
        assert await page.open(running.url, width=stage.width, dark=stage.dark) == stage.answers
        try:
            if stage.first:
                await page.sees(stage.first)
            if stage.token:
                await scene.sign_in(stage.token)
                await page.sees("You are ")
            found = await use(scene)
            complaints = await page.seen()
            assert not complaints, complaints
        finally:
            await page.leave()
        return found

    view = View(now=stage.status)
    tokens = stage.room.folder / "tokens.yaml"
    write(tokens, "".join(f"{NAMES[role]}: {{token: {TOKENS[role]}, role: {role}}}\n" for role in TOKENS))
    return serving(
        run,
        Setting(
            view=view,
            api=ApiSettings(tokens_file=tokens, **stage.api),
            control=stage.mappings,
            operations=stage.operations,
            peeking=stage.peeking,
            functions=stage.mappings,
            history=stage.history,
            calls=stage.calls,
            patience_s=PATIENCE_S,
        ),
    )
