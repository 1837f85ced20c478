"""Owns how a command is written so that it can be pasted into a shell and means the same there, whatever names it has."""

import shlex
from collections.abc import Iterable


def command_line(words: Iterable[str], more: str = "") -> str:
    """The words as one line for a shell, with `more` at its end, such as the address of the daemon.

    A name that begins with a dash would be read as an option. Behind `--` it is none; `more` stands before that.
    """
    given = list(words)
    end = given.index("--") if "--" in given else len(given)
    tail = "".join(f" {shell_word(word)}" for word in given[end:])
    return " ".join(shell_word(word) for word in given[:end]) + more + tail


def shell_word(word: str) -> str:
    """One word for a shell. What a screen cannot show is written as octal bytes in $'…', which bash, zsh and ksh read."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(char: str) -> str:
    if char in "'\\":
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogatepass"))
