"""Owns the pods' control groups, by version 1 or 2 of the kernel's interface."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adapters.demo.processes import Unusable

MOUNTED = Path("/sys/fs/cgroup")
NAME = "kubepods"
"""Below it a kubelet makes the groups of all pods, and ends those that it does not know."""


@contextmanager
def swept(mounted: Path = MOUNTED) -> Iterator[None]:
    """Takes away a kubelet's groups when the block ends; by then no process may be in them.

    Raises Unusable when there are some before: two kubelets would end each other's pods.
    """
    if found := _groups(mounted):
        raise Unusable(f"{found[0]} is there already: stop the other kubelet, or remove what one has left")
    try:
        yield
    finally:
        for group in _groups(mounted):
            for each in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
                each.rmdir()
            group.rmdir()


def _groups(mounted: Path) -> Sequence[Path]:
    """Version 2 has one hierarchy; version 1 one for some controllers each, with links to it by the name of each."""
    if (mounted / "cgroup.controllers").exists():
        hierarchies = [mounted]
    else:
        hierarchies = [each for each in sorted(mounted.iterdir()) if not each.is_symlink()]
    return [each / NAME for each in hierarchies if (each / NAME).is_dir()]
