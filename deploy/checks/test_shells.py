"""Completion in real shells: the tab key is pressed in bash, zsh and fish that have loaded what `poller completion` prints."""

import os
import pty
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.checks.installing import call, variables

ANSWER_S_MAX = 60.0
PROMPT = "ready> "
STARTS = {
    # The start file of each shell, where its script lies, and how it is started.
    "bash": (".bashrc", "poller.bash", "source ~/poller.bash\nPS1='ready> '\n", ["-i"]),
    "zsh": (".zshrc", ".zfunc/_poller", "fpath=(~/.zfunc $fpath)\nautoload -Uz compinit && compinit -u\nPROMPT='ready> '\n", ["-i"]),
    "fish": (".config/fish/config.fish", ".config/fish/completions/poller.fish", "function fish_prompt; echo -n 'ready> '; end\n", ["-i"]),
}  # fmt: skip
LINES = {
    "poller che": "poller check",
    "poller mappings cr": "poller mappings create ",
    "poller mappings create --inp": "poller mappings create --input ",
    "poller demo --rec": "poller demo --records ",
    "poller init --invoker ht": "poller init --invoker http ",
    "poller check --config sho": "poller check --config shop.yaml",
}
"""What is written before the key is pressed, and what stands there afterwards. The last one completes the name of a file."""


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = ""

    def press(self, keys: str) -> None:
        self._seen = ""
        os.write(self._descriptor, keys.encode())

    def shows(self, text: str) -> bool:
        """Waits until the text is there. Colours and movements of the cursor do not count, nor do blanks, which they may replace."""
        deadline = time.monotonic() + ANSWER_S_MAX
        while time.monotonic() < deadline:
            if _plain(text) in _plain(self._seen):
                return True
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self._seen += os.read(self._descriptor, 65536).decode(errors="replace")
        return False

    def seen(self) -> str:
        return self._seen


def _plain(text: str) -> str:
    from re import sub

    text = sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07", "", text)
    return sub(r"[\s\x07]", "", text)


@contextmanager
def terminal(shell: str, env: dict[str, str], folder: Path) -> Iterator[Terminal]:
    program = shutil.which(shell)
    assert program, f"{shell} is missing: install it (Debian: apt-get install {shell})"
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(program, [shell, *STARTS[shell][3]], env)
    try:
        yield Terminal(descriptor)
    finally:
        os.close(descriptor)
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("shell", STARTS)
def test_the_tab_key_completes(shell: str, programs: Path, tmp_path: Path) -> None:
    env = variables(programs, tmp_path)
    start, place, text, _ = STARTS[shell]
    printed = call(["completion", shell], env, tmp_path)
    for name, content in ((place, printed.stdout), (start, text)):
        (file := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "shop.yaml").touch()
    with terminal(shell, env, tmp_path) as screen:
        assert screen.shows(PROMPT), screen.seen()
        for written, completed in LINES.items():
            # Without completion a shell shows what was written, and no more.
            screen.press(f"{written}\t")
            assert screen.shows(completed), screen.seen()
            screen.press("\x15")
