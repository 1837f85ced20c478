"""Owns how the front answers probes and scrapes for all processes of a daemon.

It asks the others each time. A process that does not answer in time counts as not alive: its event loop is blocked.
One that has ended is started again, so that it is not ready, but nobody has to restart the daemon because of it.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from adapters.control.processes.merging import merged, page_of_states
from adapters.control.v1_api import Probes, probe_answer, probed
from poller.domain.supervision.processes import ProcessAnswer, Processes, ProcessQuestion
from poller.domain.untrusted.rendering import as_json
from poller.loop_turns import LoopTurns

SILENT = "does not answer: its event loop is blocked"
STARTING = "is starting"


class ProcessProbes:
    """The handlers of probes and scrapes of all processes; `own` are those of this process."""

    def __init__(self, own: Probes, processes: Processes) -> None:
        self._own = own
        self._processes = processes
        self._turns = LoopTurns()
        self._scraped = asyncio.Lock()
        processes.answer_with(
            {ProcessQuestion.METRICS: self._own_page, ProcessQuestion.HEALTH: self._own_health}
        )

    async def health(self, _request: web.Request) -> web.Response:
        """Answers whether all processes that run are alive."""
        body = await self._health()
        return probe_answer(body, good=body["alive"])

    async def readiness(self, _request: web.Request) -> web.Response:
        """Answers whether all processes run and are ready."""
        body = await self._health()
        return probe_answer(body, good=body["ready"])

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answers with the metrics of all processes."""
        async with self._scraped:
            others = await self._processes.ask(ProcessQuestion.METRICS)
            own, content_type = await self._own.page()
            pages = sorted([ProcessAnswer(self._processes.index, own), *others], key=lambda each: each.index)
            body = await self._turns.slices(merged(pages))
        states = page_of_states(self._processes.states(), frozenset(each.index for each in pages))
        return web.Response(body=body + states, headers={"Content-Type": content_type})

    async def _health(self) -> dict[str, Any]:
        """Returns what probes answer, over all processes. Lines of one process name it."""
        others = await self._processes.ask(ProcessQuestion.HEALTH)
        found = {each.index: json.loads(each.body) for each in others}
        found[self._processes.index] = json.loads(await self._own_health())
        states = self._processes.states()
        silent = [each.index for each in states if each.begun and each.index not in found]
        starting = [
            f"process {each.index}: {each.ended or STARTING}"
            for each in states
            if not each.begun and each.index not in found
        ]
        problems = [*starting, *(f"process {index}: {SILENT}" for index in silent)]
        for index, body in sorted(found.items()):
            problems += [f"process {index}: {each}" for each in body["problems"]]
        return {
            "alive": not silent and all(each["alive"] for each in found.values()),
            "ready": not problems and all(each["ready"] for each in found.values()),
            "problems": problems,
            "notes": _notes(found, but=starting),
        }

    async def _own_health(self) -> bytes:
        return as_json(probed(self._own.view.status()))

    async def _own_page(self) -> bytes:
        return (await self._own.page())[0]


def _notes(found: Mapping[int, Any], *, but: Sequence[str]) -> list[str]:
    """The notes of all processes without those in `but`. One that several have is told once, without a process."""
    told: dict[str, list[int]] = {}
    for index, body in sorted(found.items()):
        for note in body["notes"]:
            told.setdefault(note, []).append(index)
    return [
        note if len(by) > 1 else f"process {by[0]}: {note}" for note, by in told.items() if note not in but
    ]
