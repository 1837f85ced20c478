"""The supervisor with real processes that do nothing but speak with it."""

import asyncio
import json
import os
import random
import sys
from pathlib import Path

from poller.commands.run.ending import LAST_RESORT_S
from poller.commands.supervise.children import Child, Slot, start_child
from poller.commands.supervise.place import ProcessPlace
from poller.commands.supervise.supervisor import LATE_S, ProcessSupervisor

PROCESS = """
import json, os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
place = json.loads(sys.argv[-1])
link = socket.socket(fileno=place["link"])
def send(**members):
    link.sendall(json.dumps({**members, "bytes": 0}).encode() + b"\\n")
send(kind="begun")
send(kind="working")
for line in link.makefile("rb"):
    frame = json.loads(line)
    with open(f"heard-{place['index']}", "a") as heard:
        heard.write(json.dumps(frame) + "\\n")
    if frame["kind"] == "front":
        send(kind="ask", ask=7, question="health")
    if frame["kind"] == "ask":
        send(kind="answer", ask=frame["ask"], to=frame["to"])
    if frame["kind"] == "end":
        os._exit(1)
"""


def _supervisor(folder: Path, *, grace_s: float = 30.0) -> ProcessSupervisor:
    command = [sys.executable, "-I", "-c", f"import os; os.chdir({str(folder)!r})\n{PROCESS}"]

    async def start(slot: Slot) -> Child:
        place = ProcessPlace(
            index=slot.index, processes=2, worker=slot.worker, link=-1, listening=0, supervisor=os.getpid()
        )
        return await start_child(command, place)

    return ProcessSupervisor(start, ["w-0", "w-1"], grace_s=grace_s, rng=random.Random(1))


def _heard(folder: Path, index: int, kind: str) -> list[dict[str, object]]:
    file = folder / f"heard-{index}"
    lines = file.read_text().splitlines() if file.exists() else []
    return [frame for line in lines if (frame := json.loads(line))["kind"] == kind]


def _run(folder: Path, signals: int, *, grace_s: float = 30.0) -> int:
    """Sends signals when both processes run; returns the exit status."""

    async def main() -> int:
        supervisor = _supervisor(folder, grace_s=grace_s)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervisor.run(), name="supervisor")
            while not (_heard(folder, 0, "front") and _heard(folder, 1, "states")):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
            for _ in range(signals):
                supervisor.on_signal("SIGTERM")
        return running.result()

    return asyncio.run(main())


def test_a_second_signal_cuts_all_processes_short(tmp_path: Path) -> None:
    assert _run(tmp_path, 2) == 1
    assert [len(_heard(tmp_path, index, "end")) for index in (0, 1)] == [1, 1]


def test_a_process_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    assert _run(tmp_path, 1, grace_s=0.3 - LAST_RESORT_S - LATE_S) == 1
    assert _heard(tmp_path, 0, "end") == []


def test_the_first_process_is_the_front_and_hears_of_all(tmp_path: Path) -> None:
    _run(tmp_path, 2)
    assert len(_heard(tmp_path, 0, "front")) == 1
    assert _heard(tmp_path, 1, "front") == []
    states = _heard(tmp_path, 1, "states")[-1]["states"]
    assert isinstance(states, list)
    assert [(each["worker"], each["restarts"]) for each in states] == [("w-0", 0), ("w-1", 0)]
