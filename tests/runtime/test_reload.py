"""How a changed configuration file is noticed, taken over or refused."""

import asyncio
import errno
import os
import resource
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from poller.config.loader import examine
from poller.config.loader import load as load_settings
from poller.config.yaml_files import UnreadableNow, read_document, signature
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry.daemon_events import ConfigurationReloaded, ConfigurationUnread
from poller.plugins import InstalledPlugins
from poller.runtime.reload import POLL_S, Loaded, changes_of, follow, watch
from tests.runtime.daemons import daemon_plan
from tests.runtime.fakes import Seen
from tests.virtual import run_virtual


class FakeDaemon:
    """Takes plans; `problems` are what its next rehearsal finds."""

    def __init__(self, problems: Sequence[str] = ()) -> None:
        self.note = ""
        self.plans: list[DaemonPlan] = []
        self._problems = list(problems)

    async def rehearse(self, plan: DaemonPlan) -> list[str]:
        found, self._problems = self._problems, []
        return found

    def replan(self, plan: DaemonPlan) -> tuple[str, ...]:
        self.plans.append(plan)
        return ("tuning.grace_s: 30.0 -> 5.0",)


async def times(count: int) -> AsyncIterator[None]:
    for _ in range(count):
        await asyncio.sleep(0)
        yield


def followed(
    daemon: FakeDaemon, *loads: Loaded | Exception, changes: int | None = None
) -> list[ConfigurationReloaded]:
    """One change after the other, each with its own content unless fewer changes are given."""
    left, seen = list(loads), Seen()

    async def load() -> Loaded:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    run_virtual(follow(times(len(loads) if changes is None else changes), load, daemon, seen))
    return seen.of(ConfigurationReloaded)


def test_a_good_configuration_is_taken_over() -> None:
    daemon, plan = FakeDaemon(), daemon_plan()
    assert followed(daemon, Loaded(plan)) == [
        ConfigurationReloaded(ok=True, changes=("tuning.grace_s: 30.0 -> 5.0",))
    ]
    assert (daemon.plans, daemon.note) == ([plan], "")


def test_settings_that_wait_for_a_restart_are_named() -> None:
    daemon = FakeDaemon()
    (event,) = followed(daemon, Loaded(daemon_plan(), waiting=("listen", "store")))
    assert event.ok
    assert daemon.note == "changed in the configuration file, in effect after a restart: listen, store"
    assert event.reason == daemon.note
    assert len(daemon.plans) == 1


def test_a_bad_file_changes_nothing_and_is_reported_until_a_good_one_comes() -> None:
    daemon = FakeDaemon()
    bad = InvalidConfiguration(["poller.yaml: mappings[0].BatchSize: value 0: too small", "another", "third"])
    (event,) = followed(daemon, bad)
    assert not event.ok
    assert (
        event.reason
        == "poller.yaml: mappings[0].BatchSize: value 0: too small (and 2 more; `poller check` tells them all)"
    )
    assert daemon.note.startswith(
        "the changed configuration file is refused, the one before stays in effect: "
    )
    assert event.reason in daemon.note
    assert daemon.plans == []
    followed(daemon, Loaded(daemon_plan()))
    assert (daemon.note, len(daemon.plans)) == ("", 1)


def test_a_file_whose_parts_cannot_be_opened_is_a_bad_one() -> None:
    daemon = FakeDaemon(["functions.reader.handler: no module shop"])
    events = followed(daemon, Loaded(daemon_plan()), Loaded(daemon_plan()))
    assert [(event.ok, event.reason) for event in events] == [
        (False, "functions.reader.handler: no module shop"),
        (True, ""),
    ]
    assert len(daemon.plans) == 1


def noticed(path: Path, *steps: Callable[[], object]) -> list[int]:
    """After which of these steps the file counts as changed."""

    async def ticks() -> AsyncIterator[int]:
        for number, step in enumerate(steps):
            step()
            done.append(number)
            yield number

    async def main() -> list[int]:
        return [done[-1] async for _ in changes_of(path, ticks(), signature(path))]

    done: list[int] = []
    return run_virtual(main())


def test_a_written_and_a_replaced_file_are_noticed_and_a_look_alone_is_not(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("a")
    fresh = tmp_path / "poller.yaml.new"
    steps = [
        lambda: path.read_text(),
        lambda: path.write_text("ab"),
        lambda: None,
        lambda: (fresh.write_text("cd"), fresh.rename(path)),
        lambda: None,
    ]
    assert noticed(path, *steps) == [1, 3]


def test_a_swapped_link_is_noticed_as_kubernetes_swaps_it(tmp_path: Path) -> None:
    """The kubelet writes a new folder and renames a link to it over the old link."""
    for name in ("..one", "..two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "poller.yaml").write_text("same")
        os.utime(tmp_path / name / "poller.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("..one")
    path = tmp_path / "poller.yaml"
    path.symlink_to("..data/poller.yaml")

    def swap() -> None:
        (tmp_path / "..tmp").symlink_to("..two")
        (tmp_path / "..tmp").rename(tmp_path / "..data")

    assert noticed(path, lambda: None, swap, lambda: None) == [1]


def test_a_file_that_goes_and_comes_back_is_noticed_both_times(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("a")
    assert noticed(path, path.unlink, lambda: None, lambda: path.write_text("a")) == [0, 2]


@pytest.mark.parametrize("name", ["missing.yaml", "loop.yaml"])
def test_what_leads_to_no_file_has_no_signature(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert signature(tmp_path / name) is None


def test_a_change_since_the_file_was_read_at_the_start_is_noticed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("a")
    read_at_start = signature(path)
    path.write_text("b")

    async def main() -> float:
        async for _ in changes_of(path, times(3), read_at_start):
            return asyncio.get_running_loop().time()
        raise AssertionError("the change was missed")

    assert run_virtual(main()) == 0.0


def test_a_write_within_one_tick_of_the_file_systems_clock_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("a")
    os.utime(path, (1, 1))

    def write() -> None:
        path.write_text("b")
        os.utime(path, (1, 1))

    assert noticed(path, lambda: None, write, lambda: None) == [1]


def test_each_of_several_quick_changes_leads_to_the_last_content(tmp_path: Path) -> None:
    path, loaded = tmp_path / "poller.yaml", []
    path.write_text("0")
    seen, daemon = signature(path), FakeDaemon()

    async def ticks() -> AsyncIterator[None]:
        for _ in range(5):
            await asyncio.sleep(0)
            yield

    async def load() -> Loaded:
        # The file changes again while it is read, three times.
        loaded.append(path.read_text())
        if len(loaded) <= 3:
            path.write_text(str(len(loaded)))
        return Loaded(daemon_plan())

    path.write_text("first")
    run_virtual(follow(changes_of(path, ticks(), seen), load, daemon, Seen()))
    assert loaded == ["first", "1", "2", "3"]


@contextmanager
def no_descriptor() -> Iterator[None]:
    """This process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_cannot_be_read_for_want_of_descriptors_is_neither_gone_nor_wrong(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("mappings: []")
    with no_descriptor():
        for read in (signature, read_document, load_settings):
            with pytest.raises(
                UnreadableNow, match="cannot be read at the moment: Too many open files; try again"
            ):
                read(path)
        assert examine(path, {}, InstalledPlugins()).settings is None
    assert read_document(path) == {"mappings": []}


def test_a_file_that_a_fifo_replaces_is_refused_without_waiting_and_one_after_it_is_taken(
    tmp_path: Path,
) -> None:
    """Nobody writes into the FIFO, so opening or reading it would wait for ever."""
    path, daemon, events = tmp_path / "poller.yaml", FakeDaemon(), Seen()
    path.write_text("mappings: []")
    seen = signature(path)

    def fifo() -> None:
        path.unlink()
        os.mkfifo(path)

    def file() -> None:
        path.unlink()
        path.write_text("mappings: [] # again")

    async def ticks() -> AsyncIterator[None]:
        for step in (fifo, nothing, file, nothing):
            step()
            yield

    def load() -> Loaded:
        read_document(path)
        return Loaded(daemon_plan())

    async def main() -> None:
        await follow(changes_of(path, ticks(), seen), lambda: asyncio.to_thread(load), daemon, events)

    asyncio.run(main())
    assert [(each.ok, each.reason) for each in events.of(ConfigurationReloaded)] == [
        (False, f"{path}: is no regular file; give the path of a file with --config"),
        (True, ""),
    ]


def nothing() -> None:
    """Nothing happens to the file."""


def test_what_a_pipe_brings_is_read_to_its_end(tmp_path: Path) -> None:
    """As from `poller check --config /dev/stdin`, or `--config <(...)` in a shell, although it comes slowly."""
    assert read_document(Path(os.devnull)) == {}
    reading, writing = os.pipe()
    with open(writing, "wb") as slow, open(reading, "rb"):
        names = [f"name-{number}" for number in range(10_000)]

        def write() -> None:
            for name in names:
                slow.write(f"{name}: 1\n".encode())
            slow.close()

        thread = threading.Thread(target=write)
        thread.start()
        assert list(read_document(Path(f"/dev/fd/{reading}"))) == names
        thread.join()
    assert signature(Path(f"/dev/fd/{reading}")) is None


def test_while_no_signature_can_be_made_nothing_counts_as_changed(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("a")
    limited = ExitStack()
    steps: list[Callable[[], object]] = [
        lambda: limited.enter_context(no_descriptor()),
        lambda: None,
        limited.close,
        lambda: path.write_text("b"),
        lambda: limited.enter_context(no_descriptor()),
        limited.close,
    ]
    assert noticed(path, *steps) == [3]


SHORTAGES = [
    UnreadableNow(["poller.yaml: cannot be read at the moment: Too many open files; try again later"]),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    OSError(errno.ENFILE, os.strerror(errno.ENFILE)),
    InvalidConfiguration(["api.tokens_file: tokens.yaml: Too many open files"]),
]


@pytest.mark.parametrize("shortage", SHORTAGES, ids=lambda each: type(each).__name__)
def test_what_only_lacks_descriptors_is_no_refused_file_and_is_read_again(shortage: Exception) -> None:
    daemon, seen = FakeDaemon(), Seen()
    loads: list[Exception | Loaded] = [shortage, shortage, shortage, Loaded(daemon_plan())]
    notes: list[str] = []

    async def load() -> Loaded:
        notes.append(daemon.note)
        found = loads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def main() -> float:
        await follow(times(1), load, daemon, seen)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3 * POLL_S
    assert [each.ok for each in seen.of(ConfigurationReloaded)] == [True]
    (unread,) = seen.of(ConfigurationUnread)
    assert "open files" in unread.reason
    assert unread.wait_s == POLL_S
    assert notes[0] == daemon.note == ""
    assert all("cannot be read yet, the one before stays in effect" in each for each in notes[1:])


def test_a_rehearsal_that_lacks_descriptors_is_tried_again() -> None:
    daemon = FakeDaemon(["functions.reader: [Errno 24] Too many open files"])
    events = followed(daemon, Loaded(daemon_plan()), Loaded(daemon_plan()), changes=1)
    assert [each.ok for each in events] == [True]
    assert len(daemon.plans) == 1


def test_a_fault_in_reading_is_reported_like_a_file_that_is_refused() -> None:
    daemon = FakeDaemon()
    told = followed(daemon, KeyError("5"), Loaded(daemon_plan()))
    assert [each.ok for each in told] == [False, True]
    assert told[0].reason == "could not be read, by a fault of the daemon: KeyError: '5'"
    assert daemon.plans == [daemon_plan()]


def test_a_file_that_takes_long_to_read_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    path, went_on = tmp_path / "poller.yaml", threading.Event()
    path.write_text("old")
    before = signature(path)
    path.write_text("changed")
    daemon, waited = FakeDaemon(), []

    def load() -> Loaded:
        waited.append(went_on.wait(30))
        return Loaded(daemon_plan())

    async def scenario() -> None:
        following = asyncio.create_task(watch(path, load, daemon, Seen(), seen=before))
        while not daemon.plans:
            await asyncio.sleep(0.01)
            # Only a loop that goes on while the file is read comes here.
            went_on.set()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    asyncio.run(scenario())
    assert waited == [True]
