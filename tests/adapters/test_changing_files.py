"""Files that change while the daemon runs: every change of content is seen once, and nothing is waited for."""

import os
from pathlib import Path

import pytest

from adapters.changing_files import FRESH_NS, ChangingFiles, content_of

BYTES_MAX = 100
LONG_AGO_NS = 1_600_000_000_000_000_000


def old(path: Path, *, ns: int = LONG_AGO_NS) -> None:
    """Gives a file a time stamp of long ago."""
    os.utime(path, ns=(ns, ns))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    old(path)
    return path


def test_the_first_question_is_a_change_and_the_next_ones_are_none(file: Path) -> None:
    files = ChangingFiles([file], bytes_max=BYTES_MAX)
    assert [files.changed() for _ in range(3)] == [True, False, False]


def test_no_files_never_change() -> None:
    assert not ChangingFiles([], bytes_max=BYTES_MAX).changed()


def test_another_content_is_a_change_once(file: Path) -> None:
    files = ChangingFiles([file], bytes_max=BYTES_MAX)
    files.changed()
    file.write_text("another")
    assert [files.changed() for _ in range(3)] == [True, False, False]


def test_the_same_content_with_another_stamp_is_no_change(file: Path) -> None:
    files = ChangingFiles([file], bytes_max=BYTES_MAX)
    files.changed()
    old(file, ns=LONG_AGO_NS + 1)
    assert not files.changed()


def test_a_change_with_the_same_stamp_is_seen_if_the_file_was_fresh(file: Path) -> None:
    os.utime(file)
    stamp_ns = file.stat().st_mtime_ns
    files = ChangingFiles([file], bytes_max=BYTES_MAX)
    files.changed()
    file.write_text("two")
    os.utime(file, ns=(stamp_ns, stamp_ns))
    assert FRESH_NS > 0
    assert files.changed()


def test_a_file_that_goes_and_comes_back_changes_twice(file: Path) -> None:
    files = ChangingFiles([file], bytes_max=BYTES_MAX)
    files.changed()
    file.unlink()
    gone = files.changed()
    file.write_text("one")
    assert (gone, files.changed(), files.changed()) == (True, True, False)


def test_one_of_several_files_is_enough(file: Path, tmp_path: Path) -> None:
    (second := tmp_path / "second").write_text("two")
    files = ChangingFiles([file, second], bytes_max=BYTES_MAX)
    files.changed()
    second.write_text("three")
    assert files.changed()


def test_what_a_link_leads_to_counts(file: Path, tmp_path: Path) -> None:
    (other := tmp_path / "other").write_text("two")
    old(other)
    (link := tmp_path / "link").symlink_to(file)
    files = ChangingFiles([link], bytes_max=BYTES_MAX)
    files.changed()
    link.unlink()
    link.symlink_to(other)
    assert files.changed()


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "fifo")
    with pytest.raises(OSError, match="is no regular file"):
        content_of(path, bytes_max=BYTES_MAX)
    assert ChangingFiles([path], bytes_max=BYTES_MAX).changed()


def test_no_more_is_read_than_shows_that_a_file_is_too_long(file: Path) -> None:
    file.write_text("x" * 1000)
    assert len(content_of(file, bytes_max=BYTES_MAX)[0]) == BYTES_MAX + 1
