"""Owns what was told of pods over time: by the API server, who was ready when; by containerd, how each pod ended."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cluster.control import Cluster

CONTAINER = "poller"
END_S_MAX = 10.0
EXIT_TOPIC = " /tasks/exit "

type Pod = dict[str, Any]
"""A pod as the API has it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The API server's answers to a watch, and containerd's events, in files."""

    file: Path
    events_file: Path

    def events(self) -> Iterator[tuple[str, Pod]]:
        """Kind (ADDED, MODIFIED or DELETED) and pod, in the order in which they came."""
        text, decoder, at = self.file.read_text(), json.JSONDecoder(), 0
        while (at := text.find("{", at)) >= 0:
            try:
                found, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                # The last one may be half written.
                return
            yield found["type"], found["object"]

    def ready_over_time(self) -> list[int]:
        """How many pods were ready after each event."""
        ready: set[str] = set()
        counts = []
        for kind, pod in self.events():
            uid = pod["metadata"]["uid"]
            if kind != "DELETED" and is_ready(pod):
                ready.add(uid)
            else:
                ready.discard(uid)
            counts.append(len(ready))
        return counts

    def ends(self) -> dict[str, int]:
        """Exit status by name, of each pod whose container has ended.

        containerd tells it: the kubelet forgets the status of some containers whose pods were deleted.
        """
        exits = dict(self._exits())
        return {name: exits[each] for each, name in self._containers().items() if each in exits}

    def _containers(self) -> dict[str, str]:
        """Names of pods by the ids of their containers."""
        return {
            each["containerID"].removeprefix("containerd://"): pod["metadata"]["name"]
            for _, pod in self.events()
            for each in pod["status"].get("containerStatuses", ())
            if each["name"] == CONTAINER and each.get("containerID")
        }

    def _exits(self) -> Iterator[tuple[str, int]]:
        """Ids and exit status of containers; a command that was run in one has an id of its own."""
        for line in self.events_file.read_text().splitlines():
            _, topic, content = line.partition(EXIT_TOPIC)
            if topic and content.endswith("}"):
                found = json.loads(content)
                if found["id"] == found["container_id"]:
                    yield found["id"], found.get("exit_status", 0)


def is_ready(pod: Pod) -> bool:
    """Whether it is, and is not on its way out."""
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@asynccontextmanager
async def watched(cluster: Cluster, namespace: str, file: Path) -> AsyncIterator[Watch]:
    """Writes down what happens to the pods of a namespace until the block ends."""
    options = ["--watch", "--output-watch-events", "--output=json"]
    command = cluster.command("--namespace", namespace, "get", "pods", *options)
    runtime = ("ctr", "--address", str(cluster.place.containerd), "--namespace", "k8s.io", "events")
    events = file.with_suffix(".events")
    async with _written(command, file), _written(runtime, events):
        yield Watch(file, events)


@asynccontextmanager
async def _written(command: Sequence[str], file: Path) -> AsyncIterator[None]:
    """Writes what a command says into a file until the block ends."""
    with file.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output)
    try:
        yield
    finally:
        process.terminate()
        async with asyncio.timeout(END_S_MAX):
            await process.wait()
