"""The manifests and the image in a real Kubernetes: ready, restarted without loss, evicted with care, drained."""

import asyncio
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from deploy.checks.test_image import IMAGE, engine
from deploy.cluster import images
from deploy.cluster.rehearsal import Story, rehearse

__all__ = ["engine"]

PROGRAMS = Path(os.environ.get("CLUSTER", Path.home() / ".cache" / "poller-cluster")) / "bin"
SNAPSHOTTER = os.environ.get("SNAPSHOTTER", "overlayfs")
REPLICAS = 2
EVICTION_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget"

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def story(engine: list[str], tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Played once; the tests tell what must be true of it."""
    assert (PROGRAMS / "kubelet").exists(), f"no Kubernetes in {PROGRAMS}: make cluster-build"
    folder = tmp_path_factory.mktemp("cluster")
    images.save(engine, IMAGE, archive := folder / "poller.tar")
    name = f"poller:{version('esm-poller')}"
    return asyncio.run(rehearse(PROGRAMS, archive, name, folder, snapshotter=SNAPSHOTTER))


def test_the_deployment_becomes_ready_and_its_pods_are_behind_the_service(story: Story) -> None:
    assert story.version.startswith("v1.20.")
    assert len(story.first) == REPLICAS
    assert story.endpoints == REPLICAS
    assert "keeper" in story.status


def test_every_record_arrives_in_order_though_each_pod_was_replaced(story: Story) -> None:
    ledger = story.ledger
    assert not story.first & story.second
    assert len(ledger.pods) > REPLICAS
    assert ledger.complete
    assert not ledger.disorder
    assert sum(ledger.written.values()) > 0
    print(
        f"{sum(ledger.written.values())} records and {ledger.messages_written} messages by {len(ledger.pods)} pods, "
        f"{ledger.repeats} of them again"
    )


def test_a_rolling_restart_never_leaves_fewer_ready_pods_than_replicas(story: Story) -> None:
    assert min(story.ready) >= REPLICAS


def test_pods_that_are_told_to_go_drain_and_end_with_status_0(story: Story) -> None:
    ends = story.watch.ends()
    assert story.first | story.second <= ends.keys()
    assert set(ends.values()) == {0}, ends
    print(f"exit status of {len(ends)} pods: 0")


def test_the_disruption_budget_lets_one_pod_go_at_a_time(story: Story) -> None:
    first, second = story.evictions
    assert first == ""
    assert EVICTION_REFUSED in second


def test_the_daemons_account_has_no_rights_in_the_cluster(story: Story) -> None:
    assert set(story.rights.values()) == {"no"}, story.rights


def test_the_api_server_accepts_the_other_overlay(story: Story) -> None:
    assert "statefulset.apps/poller" in story.dry_runs["single"]
