"""Takes the pictures of the page for the documentation: `python -m tests.adapters.control.page.pictures FOLDER`.

They show made-up mappings. The moments in them are those at which they are taken, so they differ from run to run.
"""

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poller.domain.operations import Action, OperationRequest
from poller.domain.status import DaemonStatus, LaneStatus, MappingStatus, WorkerState, WorkerStatus
from poller.domain.telemetry.history import STEPS_MAX, MappingHistory
from poller.testing.telemetry_events import MAPPING, QUEUE
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.browser import NARROW, WIDE, browser
from tests.adapters.control.page.scenes import (
    WELL,
    HistoryModel,
    Room,
    Scene,
    Stage,
    ago,
    blocked_lane,
    operation,
    pause,
    play,
    queue,
    shard,
    status,
    stream,
)
from tests.adapters.control.page.small_png import small_png

BYTES_MAX = 100_000
HEIGHTS = {NARROW: 900, WIDE: 620}
CUSTOMER_SHARDS = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """What one picture shows, and a text that shows that it is ready."""

    name: str
    status: DaemonStatus
    ready: str
    operations: OperationModel
    troubled: bool = False


def pictures() -> Sequence[Picture]:
    """The pictures."""
    return (
        Picture("blocked-shard", blocked(), "no stock for this", OperationModel(), troubled=True),
        Picture("paused-group", paused(), "is paused", OperationModel()),
        Picture("replay-running", replayed(), "replay of orders", replaying()),
    )


def two_workers(*mappings: MappingStatus) -> DaemonStatus:
    """What ann answers while bob is well."""
    workers = tuple(WorkerStatus(worker=name, state=WorkerState.ALIVE) for name in ("ann", "bob"))
    return replace(status(), mappings=mappings, workers=workers)


def orders(first: str = "reading", *lanes: LaneStatus) -> list[MappingStatus]:
    """The mapping of a stream of four shards."""
    shards = [
        shard(number, owner="ann" if number % 2 else "bob", behind_ms=400 + 90 * number)
        for number in range(CUSTOMER_SHARDS)
    ]
    shards[0] = replace(shards[0], state=first, owner="ann", lanes=lanes)
    result = "OK" if first == "reading" else "PROBLEM: Function call failed"
    return [
        stream(shards, last_result=result),
        stream([shard(0), shard(1, owner="bob")], mapping=WELL, function="audit"),
    ]


def blocked() -> DaemonStatus:
    """One record that the function does not take."""
    return two_workers(*orders("blocked", blocked_lane()))


def paused() -> DaemonStatus:
    """One message group that somebody has paused."""
    lanes = [
        LaneStatus(
            lane="customer-9", state="paused", paused=pause(reason="waits for a refund"), worker="ann"
        ),
        LaneStatus(lane="poller 1", state="invoking", worker="ann"),
        LaneStatus(lane="poller 1", state="idle", worker="bob"),
    ]
    found = queue(lanes)
    well = tuple(replace(each, blocked=0) for each in found.workers)
    return two_workers(replace(found, workers=well), *orders())


def replayed() -> DaemonStatus:
    """A mapping that gets on."""
    return two_workers(*orders())


def replaying() -> OperationModel:
    """A replay of it."""
    members = {
        "from": "2026-01-31T08:00:00Z",
        "to": "2026-01-31T09:00:00Z",
        "on_failure": "stop",
        "records_per_s": 200.0,
    }
    asked = OperationRequest(action=Action.REPLAY, members=members, reason="totals of the morning")
    progress = {
        "shards": CUSTOMER_SHARDS,
        "ended": 1,
        "records": 48_210,
        "filtered": 312,
        "at": 1_769_848_800,
    }
    found = operation(
        "replay-7", Action.REPLAY, wanted=(), parts={}, progress=progress, request=asked, created=ago(260)
    )
    model = OperationModel()
    model.known = {found.operation: found}
    return model


def history(*, troubled: bool) -> HistoryModel:
    """An hour of three mappings; with `troubled` the first gets stuck four minutes ago."""
    stuck = STEPS_MAX - 16 if troubled else STEPS_MAX
    lag = tuple(max(300, 15_000 * (step - stuck)) + 60 * (step % 7) for step in range(STEPS_MAX))
    rates = tuple(round(_wave(step) * (0.7 if step > stuck else 1), 1) for step in range(STEPS_MAX))
    failures = tuple(2 if step > stuck else int(step % 61 == 0) for step in range(STEPS_MAX))
    well = MappingHistory(lag_ms=lag[:stuck], records_per_s=rates[:stuck], failures=(0,) * stuck)
    pollers = tuple(2 + (step // 40) % 3 for step in range(STEPS_MAX))
    return HistoryModel(
        {
            MAPPING: MappingHistory(lag_ms=lag, records_per_s=rates, failures=failures),
            WELL: well,
            QUEUE: MappingHistory(records_per_s=rates, failures=failures, pollers=pollers),
        }
    )


def _wave(step: int) -> float:
    return 180 + 60 * math.sin(step / 18) + 25 * math.sin(step / 3)


def take(picture: Picture, room: Room, folder: Path, width: int) -> Path:
    """Takes one picture; returns its file."""
    path = folder / f"page-{picture.name}-{width}.png"

    async def use(scene: Scene) -> None:
        await scene.page.ask("size", width=width, height=HEIGHTS[width])
        await scene.page.sees(picture.ready)
        await scene.page.sees("Lag: ")
        await scene.page.ask("screenshot", path=str(path))

    play(
        use,
        Stage(
            room, picture.status, picture.operations, history=history(troubled=picture.troubled), width=width
        ),
    )
    return path


def main() -> None:
    """Takes all pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as page, tempfile.TemporaryDirectory() as scratch:
        room = Room(Path(scratch), page)
        for picture in pictures():
            for width in (NARROW, WIDE):
                path = take(picture, room, folder, width)
                path.write_bytes(small_png(path.read_bytes()))
                size = path.stat().st_size
                print(f"{path}: {size} bytes")
                if size > BYTES_MAX:
                    sys.exit(f"{path} is larger than {BYTES_MAX} bytes")


if __name__ == "__main__":
    main()
