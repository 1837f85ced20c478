"""A cluster's control groups go with it, by both versions of the kernel's interface, and no other kubelet's."""

from pathlib import Path

import pytest

from adapters.demo.processes import Unusable
from deploy.cluster import groups

POD = "kubepods/burstable/pod-1/container"


@pytest.fixture(params=["version 1", "version 2"])
def hierarchies(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """What is mounted, without anything of a kubelet."""
    (tmp_path / "system.slice").mkdir()
    if request.param == "version 2":
        (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
        return [tmp_path]
    found = [tmp_path / name for name in ("cpu,cpuacct", "memory", "unified")]
    for each in found:
        each.mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    return found


def test_groups_are_gone_with_their_kubelet(hierarchies: list[Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with groups.swept(tmp_path):
        for each in hierarchies:
            (each / POD).mkdir(parents=True)
        assert sorted(tmp_path.rglob("*")) != before
    assert sorted(tmp_path.rglob("*")) == before


def test_beside_another_kubelet_nothing_begins_and_nothing_is_taken_away(
    hierarchies: list[Path], tmp_path: Path
) -> None:
    (hierarchies[-1] / POD).mkdir(parents=True)
    with pytest.raises(Unusable, match="stop the other kubelet"), groups.swept(tmp_path):
        raise AssertionError("a cluster began")
    assert (hierarchies[-1] / POD).is_dir()
