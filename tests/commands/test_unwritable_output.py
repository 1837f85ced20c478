"""Commands whose output cannot be written or encoded: one line and an exit status, and no trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURATION = """
functions: {orders: {invoker: python, handler: "json:dumps"}}
mappings: [{FunctionName: orders, EventSourceArn: "arn:aws:sqs:eu-west-1:111122223333:orders"}]
"""
EXPLAIN = ("filter", "explain", "--pattern", '{"a": ["→"]}', "--event", '{"a": "größe"}')
COMMANDS = {
    "overview": ("--help",),
    "help": ("check", "--help"),
    "help of a plug-in": ("mappings", "list", "--help"),
    "version": ("--version",),
    "check": ("check", "--config", "c.yaml"),
    "check as JSON": ("check", "--config", "c.yaml", "--json"),
    "explain": EXPLAIN,
}


def start(words: tuple[str, ...], place: Path, stdout: int, **env: str) -> subprocess.Popen[bytes]:
    (place / "c.yaml").write_text(CONFIGURATION, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "poller", *words],
        cwd=place,
        env={**os.environ, **env},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_full_disk_is_reported_in_one_line(words: tuple[str, ...], unbuffered: str, tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        start(words, tmp_path, full.fileno(), PYTHONUNBUFFERED=unbuffered) as process,
    ):
        _, told = process.communicate(timeout=60)
    expected = (
        "poller: standard output: cannot be written: No space left on device; make room, or write elsewhere\n"
    )
    assert told.decode() == expected
    assert process.returncode == 2


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_reader_that_has_gone_is_no_trouble(words: tuple[str, ...], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with start(words, tmp_path, writing) as process:
        os.close(writing)
        _, told = process.communicate(timeout=60)
    assert told == b""
    assert process.returncode == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("words", [COMMANDS["help"], COMMANDS["check"], EXPLAIN], ids=" ".join)
def test_characters_that_the_encoding_lacks_are_replaced(
    words: tuple[str, ...], encoding: str, tmp_path: Path
) -> None:
    with start(words, tmp_path, subprocess.PIPE, PYTHONIOENCODING=encoding) as process:
        shown, told = process.communicate(timeout=60)
    assert told == b""
    assert shown
    assert process.returncode == (1 if words == EXPLAIN else 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "words", [("check", "--config", "none.yaml"), ("run", "--config", "none.yaml")], ids=" ".join
)
def test_where_nothing_can_be_reported_the_exit_status_is_the_same(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "poller", *words],
            cwd=tmp_path,
            stdout=full,
            stderr=full,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
