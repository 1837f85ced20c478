"""The daemon's output where nobody reads it: real pipes, sockets and devices, and whole daemons whose stderr they are."""

import asyncio
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.observers.logs import LogSettings, open_logs
from poller.output.queued_output import BYTES_MAX, CHUNK_BYTES_MAX, DroppedLines, QueuedOutput, unwaiting
from poller.plugins import Environment
from poller.testing.telemetry_events import SetClock
from tests.adapters.control.serving import on_loop

ROOT = Path(__file__).parents[3]
PIPE_BYTES = 64 * 1024
NOTICE = re.compile(rb"(\d+) missing\n")
PATIENCE_S = 30.0


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with suppress(OSError):
                os.close(end)


def dropped() -> DroppedLines:
    """Whose notices these tests can read."""
    return DroppedLines(notice=lambda lines: f"{lines} missing\n")


def read_for(reader: int, done: Callable[[], bool]) -> bytes:
    """What comes out of a pipe until all that was written is out of the queue."""
    found = b""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if select.select([reader], [], [], 0.01)[0]:
            found += os.read(reader, 1 << 20)
        elif done():
            break
    return found


def accounted(found: bytes) -> int:
    """How many numbered lines are there or known to be missing, each in its place; asserts that none is out of place."""
    expected = 0
    for line in found.splitlines(keepends=True):
        if notice := NOTICE.fullmatch(line):
            expected += int(notice[1])
        else:
            assert int(line.split()[0]) == expected
            expected += 1
    return expected


def test_writing_never_waits_though_nobody_reads() -> None:
    with pipe() as (reader, writer):
        lost = dropped()
        output = QueuedOutput(writer, lost)
        lines = 2 * BYTES_MAX // 1000
        for number in range(lines):
            output.write(f"{number:<999}\n".encode())
        assert lost.count > 0
        assert not output.drain(0.05)
        found = read_for(reader, lambda: output.drain(0))
        assert accounted(found) == lines
        assert len(NOTICE.findall(found)) == 1


class Pausing:
    """Reads a pipe only between writes, as much as it is told to, like a reader that is late."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self.found = b""

    def read(self, size: int) -> None:
        if select.select([self._reader], [], [], 0)[0]:
            self.found += os.read(self._reader, size)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 40), st.sampled_from([0, 10, 900, 5000])),
            st.tuples(st.just("read"), st.sampled_from([1, 100, 4096, PIPE_BYTES]), st.just(0)),
            st.tuples(st.just("drain"), st.just(0), st.just(0)),
        ),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_line_arrives_in_order_or_is_counted_where_it_is_missing(
    steps: list[tuple[str, int, int]],
) -> None:
    with pipe() as (reader, writer):
        lost = dropped()
        output = QueuedOutput(writer, lost, bytes_max=50_000)
        late = Pausing(reader)
        number = 0
        for kind, count, size in steps:
            match kind:
                case "write":
                    for _ in range(count):
                        output.write(f"{number} {'x' * size}\n".encode())
                        number += 1
                case "read":
                    late.read(count)
                case _:
                    output.drain(0.001)
        late.found += read_for(reader, lambda: output.drain(0))
        assert accounted(late.found) == number
        assert sum(int(each) for each in NOTICE.findall(late.found)) == lost.count


def test_a_reader_that_goes_away_and_comes_back_learns_what_it_missed(tmp_path: Path) -> None:
    place = tmp_path / "fifo"
    os.mkfifo(place)
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(place, os.O_WRONLY)
    lost = dropped()
    output = QueuedOutput(writer, lost)
    output.write(b"0\n")
    assert output.drain()
    assert os.read(reader, 1000) == b"0\n"
    os.close(reader)
    for number in range(1, 6):
        output.write(f"{number}\n".encode())
        assert output.drain()
    assert lost.count == 5
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    output.write(b"6\n")
    assert output.drain()
    assert os.read(reader, 1000) == b"5 missing\n6\n"
    os.close(reader)
    os.close(writer)


def test_a_line_that_was_cut_by_a_full_disk_does_not_run_into_the_next(tmp_path: Path) -> None:
    """A file that may grow to so many bytes only takes the first part of a line, as a disk that gets full does."""
    program = """
import os, resource, signal, sys
from poller.output.queued_output import DroppedLines, QueuedOutput
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (15, resource.RLIM_INFINITY))
lost = DroppedLines(notice=lambda lines: f"{lines} missing\\n")
output = QueuedOutput(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), lost)
for line in (b"0123456789\\n", b"abcdefghij\\n", b"lost\\n"):
    output.write(line)
    assert output.drain()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
output.write(b"again\\n")
assert output.drain()
assert lost.count == 2, lost
print(open(sys.argv[1], "rb").read())
"""
    place = tmp_path / "cut"
    done = subprocess.run(
        [sys.executable, "-c", program, str(place)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "b'0123456789\\nabcd\\n2 missing\\nagain\\n'\n"


def test_threads_write_whole_pieces() -> None:
    with pipe() as (reader, writer):
        output = QueuedOutput(writer, dropped())
        threads = [
            threading.Thread(target=lambda name=name: [output.write(name * 50 + b"\n") for _ in range(200)])
            for name in (b"a", b"b", b"c")
        ]
        for each in threads:
            each.start()
        found = read_for(reader, lambda: not any(each.is_alive() for each in threads) and output.drain(0))
        for each in threads:
            each.join()
        assert sorted(set(found.splitlines())) == [b"a" * 50, b"b" * 50, b"c" * 50]
        assert len(found.splitlines()) == 600


def test_an_output_that_must_not_be_waited_for_is_written_in_full() -> None:
    """As where the parent has made its end of a socket non-blocking for both."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        output = QueuedOutput(ours.fileno(), dropped())
        text = b"x" * (8 * CHUNK_BYTES_MAX)
        output.write(text)
        found = read_for(theirs.fileno(), lambda: output.drain(0))
        assert found == text


def test_a_notice_that_cannot_be_made_is_reported_plainly() -> None:
    lost = DroppedLines(notice=lambda lines: str(1 // 0))
    with pipe() as (reader, writer):
        output = QueuedOutput(writer, lost, bytes_max=200)
        output.write(b"x" * 300 + b"\n")
        assert output.drain()
        assert os.read(reader, 1000).startswith(b"poller: 1 line dropped")


@pytest.mark.parametrize("text", ["\ud800", "\x00", "a\r\nb", "é" * 10])
def test_any_text_is_taken(text: str) -> None:
    with pipe() as (reader, writer):
        output = QueuedOutput(writer, dropped())
        buffer: Any = output
        stream = io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)
        print(text, file=stream)
        assert output.drain()
        assert os.read(reader, 1000) == (text + "\n").encode("utf-8", "backslashreplace")


def test_a_forked_child_writes_by_itself() -> None:
    with pipe() as (reader, writer):
        output = QueuedOutput(writer, dropped())
        program = "import os\nfrom poller.output.queued_output import DroppedLines, QueuedOutput\n" + (
            f"output = QueuedOutput({writer}, DroppedLines())\n"
            "output.write(b'parent\\n')\n"
            "assert output.drain()\n"
            "child = os.fork()\n"
            "if not child:\n    output.write(b'child\\n')\n    os._exit(0)\n"
            "os.waitpid(child, 0)\n"
        )
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, pass_fds=[writer], check=True
        )
        assert os.read(reader, 1000) == b"parent\nchild\n"
        assert output.drain()


def test_the_last_words_do_not_wait_on_a_full_pipe() -> None:
    with pipe() as (_, writer):
        other = unwaiting(writer)
        assert other != writer
        os.write(other, b"x" * 16 * PIPE_BYTES)
        with pytest.raises(BlockingIOError):
            os.write(other, b"x" * 4096)
        assert os.get_blocking(writer)
        os.close(other)


def test_the_log_says_what_is_missing_in_its_own_form() -> None:
    env = Environment(clock=SetClock())

    async def notice() -> str:
        async with open_logs(LogSettings(), env):
            return env.dropped_lines.notice(7)

    line = on_loop(asyncio.SelectorEventLoop, notice())
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found | {"timestamp": ""} == {
        "timestamp": "",
        "level": "warning",
        "event": "log_lines_dropped",
        "lines": 7,
    }


PROGRAM = """
import asyncio, json, os, sys, time, warnings
from poller.commands.run import ending
from poller.commands.run.command import run_daemon
from poller.output.queued_output import keep_standard_descriptors
from tests.commands.test_cli import Diary, FakeEngine, full, mapped, plug_ins
ending.LAST_RESORT_S = ending.LEFT_S_MAX = 0.5

class Engine(FakeEngine):
    grace_s = 0.5

    def __init__(self, act, there):
        super().__init__(Diary(), signals=0)
        self.act, self.there = act, there

    async def run(self):
        for number in range(5_000):
            print("x" * 400, file=sys.stderr)
            if number % 100 == 0:
                await asyncio.sleep(0)
        warnings.warn("as a library does")
        os.write(self.there, b"alive\\n")
        await getattr(self, self.act)()

    async def stop_when_asked(self):
        await self._stopped.wait()

    async def leave_a_task(self):
        self.kept = asyncio.create_task(self.refuse())
        await self._stopped.wait()

    async def block_the_loop(self):
        time.sleep(1000)

    async def end(self):
        print("the end", file=sys.stderr)

    async def refuse(self):
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                continue

def run(act, stderr, there):
    if stderr is None:
        os.close(2)
        sys.stderr = sys.__stderr__ = None
        keep_standard_descriptors()
    else:
        os.dup2(stderr, 2)
    sys.exit(run_daemon(full(mapped()), plug_ins(Diary()), Engine(act, there).make, place="f"))

children = []
for case in json.loads(sys.argv[1]):
    children.append(os.fork())
    if not children[-1]:
        run(*case)
print(json.dumps(children), flush=True)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""
CASES = (
    ("stop_when_asked", "a pipe that nobody reads", 0),
    ("leave_a_task", "a pipe that nobody reads", 1),
    ("block_the_loop", "a pipe that nobody reads", 1),
    ("stop_when_asked", "a pipe without a reader", 0),
    ("stop_when_asked", "a full disk", 0),
    ("stop_when_asked", "a socket that nobody reads", 0),
    ("stop_when_asked", "closed", 0),
)


@contextmanager
def unread(kind: str) -> Iterator[int | None]:
    """Something for stderr that takes little or nothing; None where it is closed."""
    match kind:
        case "a pipe that nobody reads":
            with pipe() as (_, writer):
                yield writer
        case "a pipe without a reader":
            with pipe() as (reader, writer):
                os.close(reader)
                yield writer
        case "a full disk":
            with Path("/dev/full").open("wb") as full:
                yield full.fileno()
        case "a socket that nobody reads":
            ours, theirs = socket.socketpair()
            with ours, theirs:
                yield theirs.fileno()
        case _:
            yield None


@contextmanager
def daemons(cases: Sequence[tuple[str, int | None, int]]) -> Iterator[tuple[list[int], IO[bytes]]]:
    """Daemons, each with what it does, its stderr and where it says that it lives: their ids, and then how they ended."""
    passed = [there for _, _, there in cases] + [stderr for _, stderr, _ in cases if stderr is not None]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(cases)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        pass_fds=passed,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        ids = json.loads(process.stdout.readline())
        try:
            yield ids, process.stdout
        finally:
            # They are a session of their own, whose number is taken as long as its first process is not waited for.
            os.killpg(process.pid, signal.SIGKILL)


def test_a_daemon_lives_and_ends_in_time_whatever_its_stderr_is() -> None:
    with ExitStack() as stack:
        there = [stack.enter_context(pipe()) for _ in CASES]
        streams = [stack.enter_context(unread(kind)) for _, kind, _ in CASES]
        cases = [
            (act, stderr, write)
            for (act, _, _), stderr, (_, write) in zip(CASES, streams, there, strict=True)
        ]
        ids, ended = stack.enter_context(daemons(cases))
        for (act, kind, _), process, (reader, _) in zip(CASES, ids, there, strict=True):
            assert select.select([reader], [], [], PATIENCE_S)[0], f"{act}, {kind}: the daemon stands still"
            os.kill(process, signal.SIGTERM)
        assert select.select([ended], [], [], PATIENCE_S)[0], "a daemon does not end"
        assert json.loads(ended.readline()) == [status for _, _, status in CASES]


def test_what_a_daemon_has_said_is_read_after_its_end() -> None:
    with pipe() as (_, there), pipe() as (reader, writer), daemons([("end", writer, there)]) as (_, ended):
        os.close(writer)
        said = read_for(reader, lambda: bool(select.select([ended], [], [], 0)[0]))
        assert json.loads(ended.readline()) == [0]
    lines = said.splitlines()
    assert lines.count(b"x" * 400) == 5_000
    assert lines[-1] == b"the end"
