"""Owns what the API server told of pods over time: who was ready when, and how each pod ended."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cluster.control import Cluster

CONTAINER = "poller"
END_S_MAX = 10.0

type Pod = dict[str, Any]
"""A pod as the API has it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch's answers, in a file."""

    file: Path

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
        """Exit status by name, of each pod whose container has ended."""
        found = {}
        for _, pod in self.events():
            for each in pod["status"].get("containerStatuses", ()):
                if each["name"] == CONTAINER and "terminated" in each["state"]:
                    found[pod["metadata"]["name"]] = each["state"]["terminated"]["exitCode"]
        return found


def is_ready(pod: Pod) -> bool:
    """Whether it is, and is not on its way out."""
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@asynccontextmanager
async def watched(cluster: Cluster, namespace: str, file: Path) -> AsyncIterator[Watch]:
    """Writes down what happens to the pods of a namespace until the block ends."""
    options = ["--watch", "--output-watch-events", "--output=json"]
    command = cluster.command("--namespace", namespace, "get", "pods", *options)
    with file.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output)
    try:
        yield Watch(file)
    finally:
        process.terminate()
        async with asyncio.timeout(END_S_MAX):
            await process.wait()
