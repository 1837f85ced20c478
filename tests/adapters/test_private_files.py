"""Files that the daemon makes are its user's alone from their first moment; what stands in a file's place is not followed."""

import ast
import asyncio
import logging
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.commands.export import Exported, write_export
from adapters.demo.journal import Journal, Line
from adapters.demo.load import Item, Kind, Source
from adapters.demo.processes import running
from adapters.destinations.checks import check_directory
from adapters.private_files import make_private_directories, open_private
from poller.domain.errors import AccessDenied, InvalidConfiguration
from poller.domain.findings import Severity
from poller.testing.destination import MAPPING, notice
from tests.adapters.stores.test_sqlite_store import opened
from tests.contracts.destinations import destination

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_mask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but the mode of a call makes a file private, and none is made private afterwards."""

    def late(*_: object, **__: object) -> None:
        raise AssertionError("a mode that is changed afterwards was another before")

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, late, raising=False)
    before = os.umask(0)
    yield
    os.umask(before)


def sqlite_store(folder: Path) -> None:
    async def use() -> None:
        async with opened(folder / "made" / "too" / "state.db") as store:
            assert await store.mappings() == []
            assert {each.name for each in (folder / "made" / "too").iterdir()} == {
                "state.db",
                "state.db-wal",
                "state.db-shm",
            }
            modes(folder)

    asyncio.run(use())


def file_destination(folder: Path) -> None:
    asyncio.run(sent(folder))


async def sent(folder: Path) -> None:
    async with destination("file", folder.as_uri()) as found:
        await found.send(notice())


def export(folder: Path) -> None:
    write_export(Exported("text", ()), folder / "poller.yaml", force=False)
    write_export(Exported("text", ()), folder / "poller.yaml", force=True)


def journal(folder: Path) -> None:
    made = Journal(folder / "journal.jsonl")
    item = Item(next(iter(Source)), "lane", 0, next(iter(Kind)))
    made.write(Line(item.source, "request", 0, began=True, items=(item,)))
    assert made.first_time(item)


def output_of_a_process(folder: Path) -> None:
    with running("daemon", [sys.executable, "-c", "1"], dict(os.environ), folder) as process:
        process.process.wait(20)


def modes(folder: Path) -> dict[str, str]:
    """The modes of all files and folders, which must be private."""
    found = {str(each.relative_to(folder)): each.stat().st_mode for each in folder.rglob("*")}
    assert found
    for name, mode in found.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), name
    return {name: oct(mode) for name, mode in found.items()}


@pytest.mark.usefixtures("no_mask")
@pytest.mark.parametrize("make", [sqlite_store, file_destination, export, journal, output_of_a_process])
def test_what_is_made_is_private(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    modes(tmp_path)


def creations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that may make a file or directory with the mode that the process's mask leaves."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [*node.args, *(each.value for each in node.keywords)]
        texts = [each.value for word in words for each in ast.walk(word) if isinstance(each, ast.Constant)]
        given = {each.arg for each in node.keywords}
        writes = any(isinstance(text, str) and text in WRITING for text in texts)
        plain = name == "open" and writes and "opener" not in given
        by_flag = name == "open" and "O_CREAT" in ast.dump(node) and 0o600 not in texts
        touched = name == "touch" and not node.args
        if name in MAKING or touched or plain or by_flag:
            yield node.lineno, name
        elif name == "connect" and "sqlite3" in ast.dump(node.func):
            yield node.lineno, "sqlite3.connect"


MAKING = {"write_text", "write_bytes", "mkdir", "makedirs", "mkfifo", "copyfile", "copytree"}
WRITING = {f"{first}{more}" for first in "wax" for more in ("", "b", "t", "+", "b+", "+b")}
KNOWN = {
    ("adapters/private_files.py", "mkdir"),
    # A first configuration and its schema hold no secret, and others of the team read them; the third is in a folder of its own.
    ("poller/commands/init/command.py", "open"),
    ("poller/commands/init/command.py", "write_text"),
    # Its file was made before; the other only reads.
    ("adapters/stores/sqlite/connection.py", "sqlite3.connect"),
    ("adapters/stores/sqlite/store.py", "sqlite3.connect"),
}


def test_every_call_that_makes_a_file_says_its_mode() -> None:
    found = {
        (str(path.relative_to(ROOT)), name, line)
        for folder in ("poller", "adapters")
        for path in (ROOT / folder).rglob("*.py")
        for line, name in creations(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {(path, name) for path, name, _ in found} <= KNOWN, sorted(found)
    assert ("adapters/private_files.py", "mkdir") in {(path, name) for path, name, _ in found}


def a_link(path: Path, aside: Path) -> None:
    aside.write_bytes(b"theirs")
    path.symlink_to(aside)


def a_hard_link(path: Path, aside: Path) -> None:
    aside.write_bytes(b"theirs")
    path.hardlink_to(aside)


def a_link_to_nothing(path: Path, aside: Path) -> None:
    path.symlink_to(aside)


def a_fifo(path: Path, _aside: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_fifo(path: Path, aside: Path) -> None:
    os.mkfifo(aside)
    path.symlink_to(aside)


def a_directory(path: Path, _aside: Path) -> None:
    path.mkdir()


def a_socket(path: Path, _aside: Path) -> None:
    # Addresses are short; names are not.
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{short}/s")
        Path(short, "s").rename(path)


def a_device(path: Path, _aside: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


THINGS = [a_link, a_hard_link, a_link_to_nothing, a_fifo, a_link_to_a_fifo, a_directory, a_socket, a_device]


@pytest.mark.parametrize("make", THINGS)
def test_what_stands_in_the_place_of_a_destinations_file_is_refused(
    make: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    folder, aside = tmp_path / "folder", tmp_path / "aside"
    folder.mkdir()
    make(folder / f"{MAPPING}.jsonl", aside)

    async def run() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(AccessDenied) as refused:
                await sent(folder)
        assert f"{MAPPING}.jsonl" in str(refused.value)

    asyncio.run(run())
    assert not aside.is_file() or aside.read_bytes() == b"theirs"
    assert aside.exists() is (make in {a_link, a_hard_link, a_link_to_a_fifo})


@pytest.mark.parametrize("make", [a_fifo, a_link_to_a_fifo, a_directory, a_socket, a_device])
def test_what_is_no_file_is_no_store(make: Callable[[Path, Path], None], tmp_path: Path) -> None:
    make(tmp_path / "state.db", tmp_path / "aside")

    async def run() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(InvalidConfiguration, match=r"state\.db cannot be opened for writing"):
                async with opened(tmp_path / "state.db"):
                    pass

    asyncio.run(run())


def test_directories_above_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    asyncio.run(sent(tmp_path / "link"))
    assert (tmp_path / "real" / f"{MAPPING}.jsonl").is_file()


def test_a_store_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state.db").symlink_to("real/other.db")

    async def run() -> None:
        async with opened(tmp_path / "state.db") as store:
            assert await store.mappings() == []

    asyncio.run(run())
    modes(tmp_path / "real")


def test_files_that_others_may_open_are_reported_once_and_left_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines, state = tmp_path / f"{MAPPING}.jsonl", tmp_path / "state.db"
    for each in (lines, state):
        each.touch()
        each.chmod(0o644)

    async def run() -> None:
        async with destination("file", tmp_path.as_uri()) as found, opened(state):
            await found.send(notice())
            await found.send(notice())

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    told = sorted(caplog.messages)
    assert told == [
        f"{lines}: every user of this machine may open it (mode 0644); make it 0600",
        f"store: {state}: every user of this machine may open it (mode 0644); make it 0600",
    ]
    assert stat.S_IMODE(lines.stat().st_mode) == 0o644


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"{MAPPING}.jsonl"
    path.touch(mode=0o600)
    os.chown(path, 65534, 65534)
    asyncio.run(sent(tmp_path))
    assert caplog.messages == [
        f"{path}: it belongs to another user (uid 65534), who may read it; give it to the daemon's"
    ]


def test_a_check_warns_of_a_directory_in_which_everybody_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert check_directory(tmp_path).grade is Severity.WARNING
    tmp_path.chmod(0o700)
    assert check_directory(tmp_path).grade is Severity.OK


def test_a_file_in_the_way_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private_directories(tmp_path / "file" / "below")
    with pytest.raises(FileExistsError):
        make_private_directories(tmp_path / "file")
    with pytest.raises(IsADirectoryError):
        open_private(tmp_path, os.O_RDWR)
