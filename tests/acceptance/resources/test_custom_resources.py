"""A real daemon that follows custom resources of an API server on loopback: made, changed, wrong, deleted, and the daemon away."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.clients.test_aws_clients import SOON_S, World, a_queue, becomes, gone, send, until
from tests.acceptance.daemons import command
from tests.adapters.resources.api_server import ApiServer, running
from tests.adapters.resources.test_cluster import kubeconfig
from tests.conftest import fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

FOLLOWED_S = 20.0
"""A change has reached the daemon, its effect the status, and the status the API server."""


class Cluster:
    """An API server in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: ApiServer) -> None:
        self._loop = loop
        self.server = server

    def put(self, name: str, **given: Any) -> str:
        """Makes or changes a resource; returns its uid."""
        made = self._done(self.server.put(name, **given))
        return str(made["metadata"]["uid"])

    def remove(self, name: str) -> None:
        """Deletes a resource."""
        self._done(self.server.remove(name))

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """A condition of a resource; empty if it is not there, or about another generation."""
        found = self.server.objects[name]
        for each in found["status"].get("conditions", ()):
            if each["type"] == kind and each["observedGeneration"] == found["metadata"]["generation"]:
                return dict(each)
        return {}

    def is_(self, name: str, kind: str, status: str = "True") -> None:
        """Waits until a condition of a resource is so."""
        until(
            lambda: self.condition(name, kind).get("status") == status,
            within_s=FOLLOWED_S,
            told=lambda: str(self.server.objects[name]["status"]),
        )

    def _done(self, work: Coroutine[Any, Any, dict[str, Any] | None]) -> dict[str, Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=SOON_S) or {}


@contextmanager
def api_server() -> Iterator[Cluster]:
    """An API server until the block ends."""
    ready, ended = threading.Event(), threading.Event()
    held: list[Cluster] = []

    async def serve() -> None:
        async with running() as server:
            held.append(Cluster(asyncio.get_running_loop(), server))
            ready.set()
            while not ended.is_set():
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(SOON_S)
        yield held[0]
    finally:
        ended.set()
        thread.join()


class Following(World):
    """A daemon that follows the resources of an API server."""

    url_of_cluster = ""

    def configuration(self, mappings: list[dict[str, Any]]) -> dict[str, Any]:
        own = {"enabled": True, "kubeconfig": kubeconfig(self.folder, self.url_of_cluster)}
        return super().configuration(mappings) | {"resources": own}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with api_server() as found:
        yield found


@pytest.fixture
def world(ministack: Emulator, tmp_path: Any, cluster: Cluster) -> Following:
    found = Following(ministack.url, fresh_account(), tmp_path)
    found.url_of_cluster = cluster.server.url
    return found


def test_a_resource_leads_a_mapping_of_a_real_daemon_through_its_life(
    world: Following, cluster: Cluster
) -> None:
    queue = a_queue(world, VisibilityTimeout="6")
    spec = {"functionName": "reader", "eventSourceARN": queue}
    with world.daemon():
        api = world.api()
        mapping = cluster.put("orders", spec=spec, uid=str(uuid4()))
        cluster.is_("orders", "Ready")
        send(world, "one")
        until(lambda: world.texts() == ["one"], within_s=SOON_S)
        assert cluster.server.objects["orders"]["status"]["uuid"] == mapping

        with pytest.raises(ClientError, match="comes from the custom resource pipelines/orders"):
            api.update_event_source_mapping(UUID=mapping, BatchSize=3)
        cluster.put("orders", spec=spec | {"batchSize": 3}, generation=2)
        cluster.is_("orders", "Ready")
        assert api.get_event_source_mapping(UUID=mapping)["BatchSize"] == 3

        cluster.put("orders", spec=spec | {"batchSize": 0}, generation=3)
        cluster.is_("orders", "Stalled")
        assert (
            "at 'batchSize' failed to satisfy constraint" in cluster.condition("orders", "Ready")["message"]
        )
        cluster.put("orders", spec=spec | {"enabled": False}, generation=4)
        becomes(api, mapping, "Disabled", within_s=FOLLOWED_S)
        cluster.is_("orders", "Paused")

        cluster.remove("orders")
        until(lambda: gone(api, mapping), within_s=FOLLOWED_S)
    reasons = [each["reason"] for each in cluster.server.events.values()]
    assert reasons == ["Invalid", "Paused"]


def test_what_happened_to_resources_while_no_daemon_ran_is_carried_out(
    world: Following, cluster: Cluster
) -> None:
    specs = [
        {"functionName": "reader", "eventSourceARN": a_queue(world, name)} for name in ("orders", "mails")
    ]
    with world.daemon():
        first = cluster.put("orders", spec=specs[0], uid=str(uuid4()))
        cluster.is_("orders", "Ready")
    cluster.remove("orders")
    assert cluster.server.objects == {}, "nothing of the daemon keeps a resource"
    second = cluster.put("mails", spec=specs[1], uid=str(uuid4()))
    with world.daemon():
        cluster.is_("mails", "Ready")
        until(lambda: gone(world.api(), first), within_s=FOLLOWED_S)
        listed = world.api().list_event_source_mappings()["EventSourceMappings"]
        assert [each["UUID"] for each in listed] == [second]


def test_check_says_what_is_wrong_with_the_settings(world: Following) -> None:
    config = world.folder / "poller.yaml"
    config.write_text("resources: {enabled: true, namespace: Up, labels: a}\n")
    done = command("check", "--config", str(config))
    assert done.status == 2
    assert "resources.namespace" in done.err
    assert "resources.labels" in done.err
    config.write_text(f"store: 'memory://'\nresources: {{enabled: true, kubeconfig: {world.folder}/none}}\n")
    run = command("run", "--config", str(config), "--listen", world.listen)
    assert run.status == 2
    assert "resources: no way to a cluster" in run.err
