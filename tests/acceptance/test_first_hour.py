"""docs/use/first-hour.md can be followed: its commands in an empty folder print what the page shows."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.demo.processes import free_port

PAGE = Path(__file__).parents[2] / "docs" / "use" / "first-hour.md"
EMULATOR_PORT, DAEMON_PORT = "4566", "8080"
"""The ports of the page. The test takes others, since these may be taken."""
_FILE = re.compile(r"^\*\*(?P<name>[\w./]+)\*\*:\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_MASKS = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"\b\d{20,}\b", "NUMBER"),
    (r"\b\d+(\.\d+)? (s|min|h)\b", "SPAN"),
    (r"next try (in SPAN|now)", "next try WHEN"),
    (r"attempt \d+", "attempt N"),
    (r"worker \S+:", "worker NAME:"),
)
_SLOW = re.compile(
    r"^poller: .*, SPAN\n|^  note: the event loop was blocked .*\n(?:    .*\n)*|^\npoller status --json has all .*\n",
    re.MULTILINE,
)
"""Progress, a note of a loop that stood still, and the line below a page that was cut, which only a slow machine shows."""


def files(page: str) -> dict[str, str]:
    """The files of the page, by name."""
    return {found["name"]: found["text"] for found in _FILE.finditer(page)}


def commands(page: str) -> list[tuple[str, str]]:
    """The commands of the page, each with what it prints."""
    found = []
    for block in _CONSOLE.finditer(page):
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def masked(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return _SLOW.sub("", text)


class Shell:
    """One bash, in which all commands of a page are run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, command: str) -> str:
        """What a command prints, on standard output and standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho; echo END-OF-OUTPUT\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line == "END-OF-OUTPUT\n":
                return "".join(lines)[:-1]
            lines.append(line)
        raise AssertionError(f"the shell has ended at: {command}")


@contextmanager
def shell(folder: Path, environ: Mapping[str, str]) -> Iterator[Shell]:
    """A shell in a folder. All that it has started ends with the block."""
    process = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=folder,
        env=dict(environ),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Shell(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def followed(folder: Path, page: str) -> Iterator[tuple[str, str, str]]:
    """Follows the page; yields each command, what it should print and what it prints, both with the ports of the page."""
    emulator, daemon = str(free_port()), str(free_port())
    for name, text in files(page).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "COLUMNS": "80",
        "POLLER_LISTEN": f"127.0.0.1:{daemon}",
        "POLLER_URL": f"http://127.0.0.1:{daemon}",
    }
    with shell(folder, environ) as bash:
        for command, output in commands(page):
            given = command.replace(EMULATOR_PORT, emulator).replace(DAEMON_PORT, daemon)
            found = bash.run(given)
            yield command, output, found.replace(emulator, EMULATOR_PORT).replace(daemon, DAEMON_PORT)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_the_page_can_be_followed_in_an_empty_folder(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for command, wanted, found in followed(tmp_path, page):
        assert masked(found) == masked(wanted), command
    assert (tmp_path / "shipped.txt").read_text() == "A-1\n"


def test_a_page_is_taken_apart_into_files_and_commands_with_their_output() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert sorted(files(page)) == ["src/app.py", "template.yaml"]
    given = commands(page)
    assert given[0][0].startswith("poller init --from-template template.yaml")
    assert len(given) == page.count("\n$ ")
    assert sum(bool(output) for _, output in given) >= 10


def test_what_differs_from_run_to_run_is_masked_and_nothing_else() -> None:
    text = "worker vm-1: ready\nsince 2026-12-01T06:47:35Z, attempt 4, next try in 2 s\nAFTER:000000017961076074350000000007\n"
    other = "worker vm-2: ready\nsince 2027-01-02T03:04:05Z, attempt 12, next try now\nAFTER:000000017961076074350000000009\n"
    assert masked(text) == masked(other) != masked(text.replace("ready", "not ready"))
    assert masked("poller: looked at 1 of 4, 10 s\nx\n") == "x\n"


if __name__ == "__main__":
    for asked, _, printed in followed(Path(sys.argv[1]), PAGE.read_text(encoding="utf-8")):
        print(f"$ {asked}\n{printed}", end="", flush=True)
