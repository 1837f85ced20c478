"""The tasks of `poller run` beside the daemon itself: one that ends is told and started again, and nothing else is disturbed."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from poller.commands.run.command import ConfigurationFile, run_daemon
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.plugins import GivenPlugins
from poller.runtime import watched_tasks
from poller.runtime.watched_tasks import AGAIN_S
from tests.commands.test_cli import Diary, FakeEngine, plug_in, plug_ins, simple
from tests.runtime.fakes import Seen

KINDS = (TaskKind.CONTROL, TaskKind.CONFIGURATION_FILE, TaskKind.LOOP_WATCH)


class Ending(FakeEngine):
    """An engine whose process ends a task, and goes on for a moment."""

    def __init__(self, kind: TaskKind) -> None:
        super().__init__(Diary(), signals=0)
        self._kind = kind
        self.alive_again = False

    async def run(self) -> None:
        await asyncio.sleep(0.1)
        (task,) = self._tasks()
        task.cancel()
        await asyncio.sleep(AGAIN_S + 0.3)
        self.alive_again = [each is not task for each in self._tasks()] == [True]

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [each for each in asyncio.all_tasks() if each.get_name() == self._kind]


@pytest.mark.parametrize("how", TaskEnd)
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_beside_the_daemon_is_started_again(
    kind: TaskKind, how: TaskEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def breaking(name: str, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        except asyncio.CancelledError:
            if name != kind or ended:
                raise
            ended.append(name)
            if how is TaskEnd.RAISED:
                raise RuntimeError("a bug") from None
            if how is TaskEnd.RETURNED:
                return None
            raise

    monkeypatch.setattr(watched_tasks, "_shielded", breaking)
    path = tmp_path / "poller.yaml"
    path.write_text("store: memory://\n")
    diary, seen, engine = Diary(), Seen(), Ending(kind)
    registry = plug_ins(diary)
    registry = GivenPlugins({**registry._plugins, ("observers", "logs"): plug_in("logs", seen, diary)})
    status = run_daemon(simple(), registry, engine.make, place="f", file=ConfigurationFile(path, simple))
    assert status == 0
    assert engine.alive_again
    assert [(event.task, event.end) for event in seen.of(TaskEnded)] == [(kind, how)]
    assert len([line for line in diary.lines if line.startswith("serving")]) == 1 + (kind is TaskKind.CONTROL)
