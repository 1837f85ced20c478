"""Files of modules as they are looked at and kept: what is no file, and what is too large."""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from adapters.invokers.function_code.kept_sources import KEPT_BYTES_MAX, KeptSources
from adapters.invokers.function_code.source_files import SourceFiles, digest


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a socket": bound,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_not_there(what: str, tmp_path: Path) -> None:
    beside, path = tmp_path / "beside.py", tmp_path / "helper.py"
    beside.write_text("1")
    NO_FILES[what](path)
    found = SourceFiles().look([str(path), str(beside)], with_folders=False)
    assert found == {str(path): None, str(beside): digest(b"1")}


LARGE = KEPT_BYTES_MAX + 1


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([LARGE, 10, 20], [10, 20]),
        ([10, LARGE, 20], [10, 20]),
        ([KEPT_BYTES_MAX, 1, 0], [KEPT_BYTES_MAX, 0]),
        ([KEPT_BYTES_MAX - 5, 10, 5, 1], [KEPT_BYTES_MAX - 5, 5]),
        ([LARGE, LARGE], []),
    ],
)
def test_a_source_that_is_too_large_leaves_room_for_those_behind_it(
    sizes: Sequence[int], kept: Sequence[int], tmp_path: Path
) -> None:
    sources = KeptSources()
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.py"
        path.write_bytes(b"#" * size)
        assert len(sources.source(str(path))) == size, "it is imported in any case"
    assert [len(each) for each in sources.read.values()] == kept
