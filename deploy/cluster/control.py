"""Owns a cluster from its first process to its last, and kubectl towards it."""

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.demo.processes import Running, Unusable, free_port, plain_environment, running
from deploy.cluster import groups, images, keys, network, parts
from deploy.cluster.keys import NODE, Keys
from deploy.cluster.parts import PAUSE, Place, Ports

CALL_S_MAX = 300.0
READY_S_MAX = 120.0
PODS_END_S_MAX = 60.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs: asked by kubectl, as its administrator."""

    place: Place
    keys: Keys

    def command(self, *words: str) -> list[str]:
        """A kubectl command line."""
        config = f"--kubeconfig={self.keys.kubeconfig('admin')}"
        own_cache = f"--cache-dir={self.place.root / 'kubectl'}"
        return [str(self.place.programs / "kubectl"), config, own_cache, *words]

    def tried(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """What a kubectl command did, whether or not it was refused; `given` is its standard input."""
        command = self.command(*words)
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=CALL_S_MAX, check=False
        )

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """What a kubectl command prints; an AssertionError has its complaint."""
        done = self.tried(*words, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def get(self, *words: str) -> Any:
        """An object or a list, as the API has it."""
        return json.loads(self.kubectl("get", *words, "--output=json"))


@asynccontextmanager
async def cluster(programs: Path, folder: Path, *, snapshotter: str) -> AsyncIterator[Cluster]:
    """Starts everything on this machine, with one node; all of it is gone when the block ends. Needs root."""
    with ExitStack() as stack:
        place = _place(programs, folder, stack, snapshotter)
        secret = keys.make(folder / "keys", place.api_url, place.certificate)
        stack.enter_context(network.bridge())
        network.configuration(folder / "cni", folder / "addresses")
        found = Cluster(place, secret)
        stack.enter_context(groups.swept())
        stack.callback(_swept, place)
        begin = _starter(stack, place)
        await _api(found, begin)
        runtime = begin("containerd", parts.containerd(place))
        await _until(place.containerd.exists, runtime, "containerd")
        _pause(place)
        node = begin("kubelet", parts.kubelet(place, secret))
        # Ended first, so that nothing makes new pods while the last ones go.
        stack.callback(_emptied, found)
        begin("kube-controller-manager", parts.controller_manager(place, secret))
        begin("kube-scheduler", parts.scheduler(place, secret))
        await _until(lambda: _ready(found), node, "the node")
        yield found


@asynccontextmanager
async def control_plane(programs: Path, folder: Path) -> AsyncIterator[Cluster]:
    """Starts what a cluster is without a node: API server, its data, and the controllers. Nothing of it needs root."""
    with ExitStack() as stack:
        place = Place(programs, folder, folder, Ports(*(free_port() for _ in range(7))), "")
        found = Cluster(place, keys.make(folder / "keys", place.api_url, place.certificate))
        begin = _starter(stack, place)
        await _api(found, begin)
        begin("kube-controller-manager", parts.controller_manager(place, found.keys))
        yield found


async def _api(found: Cluster, begin: Callable[[str, Sequence[str]], Running]) -> None:
    await begin("etcd", parts.etcd(found.place)).answers(_etcd_health(found.place), READY_S_MAX)
    api = begin("kube-apiserver", parts.api_server(found.place, found.keys))
    await _until(lambda: not found.tried("get", "--raw=/readyz").returncode, api, "the API server")


def _place(programs: Path, folder: Path, stack: ExitStack, snapshotter: str) -> Place:
    """Sockets and mounts need short paths, so they are not in `folder`."""
    run = stack.enter_context(tempfile.TemporaryDirectory(prefix="pk-", dir="/run"))
    ports = Ports(*(free_port() for _ in range(7)))
    return Place(programs, folder, Path(run), ports, snapshotter)


def _starter(stack: ExitStack, place: Place) -> Callable[[str, Sequence[str]], Running]:
    env = plain_environment()

    def begin(name: str, command: Sequence[str]) -> Running:
        return stack.enter_context(running(name, command, env, place.root))

    return begin


def _etcd_health(place: Place) -> str:
    return f"http://127.0.0.1:{place.ports.etcd}/health"


async def _until(holds: Callable[[], bool], process: Running, what: str) -> None:
    """Returns when it holds; raises Unusable with the end of the process's output when it ends or time is up."""
    deadline = time.monotonic() + READY_S_MAX
    while not await asyncio.to_thread(holds):
        if process.exit_status is not None or time.monotonic() > deadline:
            raise Unusable(f"{what} is not ready\n{process.tail()}")
        await asyncio.sleep(LOOK_S)


def _ready(found: Cluster) -> bool:
    asked = found.tried("get", "node", NODE, "--output=json")
    conditions = json.loads(asked.stdout)["status"]["conditions"] if not asked.returncode else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _pause(place: Place) -> None:
    archive = place.root / "pause.tar"
    images.pause(place.programs / "pause", archive)
    images.load(place.containerd, archive, PAUSE, snapshotter=place.snapshotter)


def _emptied(found: Cluster) -> None:
    """Ends the pods while there is a kubelet to end them; what is left is swept with the rest."""
    limit = f"--timeout={PODS_END_S_MAX:g}s"
    found.tried("delete", "pods", "--all", "--all-namespaces", "--grace-period=1", limit)


def _swept(place: Place) -> None:
    """Takes away what outlives its process: container shims and mounts."""
    for pid in _shims(place.containerd):
        os.kill(pid, signal.SIGKILL)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([each for each in mounts if each.startswith(f"{place.run}/")]):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True, timeout=CALL_S_MAX)


def _shims(socket: Path) -> Iterator[int]:
    """Processes that were started for this cluster's containerd, by the path of its socket, which no other one has."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except (ProcessLookupError, FileNotFoundError):
            continue
        if str(socket).encode() in words and b"shim" in words[0]:
            yield int(file.parent.name)
