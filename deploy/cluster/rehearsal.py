"""Owns the whole story: install, work, restart in rolling fashion, evict, drain; and what was seen of it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cluster import images
from deploy.cluster.control import Cluster, cluster
from deploy.cluster.installing import NAMESPACE, adapted, inside, install, pods, rolled_out
from deploy.cluster.surroundings import Ledger, Surroundings, surroundings
from deploy.cluster.watching import Watch, watched

WORK_S = 5.0
"""Under load before and after each change."""
SETTLED_S_MAX = 120.0
GONE_S_MAX = 90.0
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:poller"
RIGHTS = (("get", "secrets"), ("list", "pods"), ("create", "leases.coordination.k8s.io"))


@dataclass(frozen=True, slots=True)
class Story:
    """What was seen."""

    version: str
    ledger: Ledger
    watch: Watch
    first: frozenset[str]
    """Pods before anything was restarted."""
    second: frozenset[str]
    """Pods after the rolling restart."""
    ready: Sequence[int]
    """How many pods were ready, from before the rolling restart until after it."""
    endpoints: int
    """Addresses behind the Service while all was well."""
    status: str
    """What `poller status` says in a pod."""
    evictions: Sequence[str]
    """What the API server said to two evictions in a row; nothing when it did as it was told."""
    rights: dict[str, str]
    """What the API server says the daemon's service account may do."""
    dry_runs: dict[str, str]


async def rehearse(programs: Path, archive: Path, image: str, folder: Path, *, snapshotter: str) -> Story:
    """Plays it; the cluster is gone when this returns."""
    async with cluster(programs, folder, snapshotter=snapshotter) as found:
        await asyncio.to_thread(
            images.load,
            found.place.containerd,
            archive,
            f"docker.io/library/{image}",
            snapshotter=snapshotter,
        )
        async with surroundings(folder) as around:
            await asyncio.to_thread(_installed, found, around, folder)
            async with watched(found, NAMESPACE, folder / "pods.json") as watch:
                return await _under_load(found, around, watch, folder)


def _installed(found: Cluster, around: Surroundings, folder: Path) -> None:
    install(found, adapted("replicas", folder / "replicas", configuration=around.configuration()))


async def _under_load(found: Cluster, around: Surroundings, watch: Watch, folder: Path) -> Story:
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as scope:
        scope.create_task(around.write(enough), name="write")
        await asyncio.sleep(WORK_S)
        first = _names(found)
        seen = await asyncio.to_thread(_looks, found, folder)
        await asyncio.to_thread(_restart, found)
        second, ready = _names(found), watch.ready_over_time()
        await asyncio.sleep(WORK_S)
        evictions = await asyncio.to_thread(_evict, found, sorted(second))
        await asyncio.to_thread(rolled_out, found)
        await asyncio.sleep(WORK_S)
        enough.set()
    await _settled(around.ledger)
    await asyncio.to_thread(_drain, found)
    return Story(
        version=found.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"],
        ledger=around.ledger,
        watch=watch,
        first=first,
        second=second,
        ready=ready[ready.index(len(first)) :],
        evictions=evictions,
        **seen,
    )


def _names(found: Cluster) -> frozenset[str]:
    return frozenset(each["metadata"]["name"] for each in pods(found))


def _looks(found: Cluster, folder: Path) -> dict[str, Any]:
    """What can be asked while all is well."""
    behind = found.get("endpoints", "poller", "--namespace", NAMESPACE)
    url = "http://127.0.0.1:8080"
    single = adapted("single", folder / "single")
    return {
        "endpoints": sum(len(each.get("addresses", ())) for each in behind["subsets"]),
        "status": inside(found, "exec", "deployment/poller", "--", "poller", "status", "--url", url),
        "rights": {" ".join(each): _may(found, *each) for each in RIGHTS},
        "dry_runs": {"single": found.kubectl("apply", "--dry-run=server", "--filename=-", given=single)},
    }


def _may(found: Cluster, verb: str, resource: str) -> str:
    return found.tried("auth", "can-i", verb, resource, "--as", ACCOUNT, "-n", NAMESPACE).stdout.strip()


def _restart(found: Cluster) -> None:
    inside(found, "rollout", "restart", "deployment/poller")
    rolled_out(found)


def _evict(found: Cluster, names: Sequence[str]) -> list[str]:
    """As `kubectl drain` asks it, one pod right after the other."""
    told = []
    for name in names:
        eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        done = found.tried("create", "--raw", path, "--filename=-", given=json.dumps(eviction))
        told.append(done.stderr.strip() if done.returncode else "")
    return told


async def _settled(ledger: Ledger) -> None:
    async with asyncio.timeout(SETTLED_S_MAX):
        while not ledger.complete:
            ledger.news.clear()
            await ledger.news.wait()


def _drain(found: Cluster) -> None:
    """Takes the Deployment to nothing, and waits until its last pod has gone."""
    inside(found, "scale", "deployment/poller", "--replicas=0")
    limit = f"--timeout={GONE_S_MAX:g}s"
    inside(found, "wait", "pods", "--all", "--for=delete", limit)
