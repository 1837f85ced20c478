"""Freed memory of a page's size is used again instead of being asked for again."""

import os
import subprocess
import sys

import pytest

from poller.commands.run.malloc import keep_freed_memory

ROUNDS = 20
PAGES = """
import resource, sys
from poller.commands.run.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory({})
def pages():
    return [bytearray(2_000_000) for _ in range(20)]
pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(int(sys.argv[2])):
    pages()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PAGES, how, str(ROUNDS)]
    return int(subprocess.run(command, env=kept, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told how to treat freed memory")
def test_pages_that_come_and_go_cost_no_page_faults_once_they_have_been_there() -> None:
    assert _faults("keep") * 10 < _faults("leave")


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_chose_otherwise_is_left_alone(name: str) -> None:
    assert not keep_freed_memory({name: "1"})
