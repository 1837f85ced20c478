"""Owns the order of acceptance tests: those that take minutes begin first, one in each process of the run."""

import os

import pytest

LONG = (
    "test_redrives_killed",
    "test_seeks_killed",
    "test_replicas",
    "test_kill",
    "test_queues",
    "test_resharding",
)
"""Modules with tests that take a minute and more, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process begins with a part of the list and takes over from the others' ends: a long test leads each part."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    leading = sorted((item for item in items if _rank(item) < len(LONG)), key=_rank)[:processes]
    if not leading:
        return
    others = [item for item in items if item not in leading]
    # The run gives the later processes the longer parts.
    parts = [others[processes - 1 - number :: processes] for number in range(processes)]
    items[:] = [item for number, part in enumerate(parts) for item in (*leading[number : number + 1], *part)]


def _rank(item: pytest.Item) -> int:
    module = item.nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
    return LONG.index(module) if module in LONG else len(LONG)
