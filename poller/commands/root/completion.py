"""Owns completion in shells: the script that a shell loads, and the answers that the script asks for. Both are typer's."""

import os
from contextlib import redirect_stdout, suppress
from enum import StrEnum
from io import StringIO

import typer

PROGRAM = "poller"
VARIABLE = "_POLLER_COMPLETE"
"""The script calls the program with it. It says which shell asks, and for what: words, or the script itself."""

_ZSH_FIRST_TAB = 'if [ "$funcstack[1]" = "_poller" ]; then _poller_completion "$@"; fi\n'
"""zsh runs a script in a folder of $fpath as the completion itself when the key is pressed for the first time."""


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def asked() -> bool:
    """Says whether it was a shell's script that called the program."""
    return VARIABLE in os.environ


def script(shell: Shell) -> str:
    """Returns the script by which a shell completes the words of a call of `poller`."""
    # The script depends on the program's name alone, and typer prints it in a call with this variable.
    program = typer.Typer(add_completion=True)
    program.command()(_nothing)
    os.environ[VARIABLE] = f"source_{shell}"
    try:
        with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
            program(prog_name=PROGRAM)
    finally:
        del os.environ[VARIABLE]
    # zsh reads what a script is for in its first line, and typer begins with an empty one.
    text = f"{printed.getvalue().strip()}\n"
    return text + _ZSH_FIRST_TAB if shell is Shell.ZSH else text


def _nothing() -> None:
    return
