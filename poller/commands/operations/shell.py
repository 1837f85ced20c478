"""Owns how a command is written so that it can be pasted into a shell and means the same there, whatever names it has."""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from poller.output.terminal import cells, has

FOLD = " \\"
CONTINUED = "    "
BYTES = "$'"
"""The quote in which bytes can be written."""
_PARTS = re.compile(
    r"""\$'(?P<bytes>(?:[^'\\]|\\.)*)'?|'(?P<quoted>[^']*)'?|"[^"]*"?|(?P<plain>.)""", re.DOTALL
)
_ESCAPES = re.compile(r"\\[0-7]{3}|\\.|.", re.DOTALL)

type Atom = tuple[str, str]
"""The quote, or empty; and a part that stands in it."""


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


def folded_command(text: str, width: int | None, margin: str = "", encoding: str = "utf-8") -> list[str]:
    """A line as `command_line` makes it, in lines of at most `width` cells that mean the same when all of them are pasted.

    It is folded between words, behind a backslash. A word that is wider than the screen goes on at the beginning of the next line.
    Characters that `encoding` lacks are written as octal bytes.
    """
    words = _words(text, encoding)
    if width is None:
        return [margin + " ".join(map(_written, words))]
    further = margin + CONTINUED
    lines, line = [], margin
    for number, word in enumerate(words):
        last = number == len(words) - 1
        shown, empty = _written(word), line.isspace() or not line
        joined = line + shown if empty else f"{line} {shown}"
        if cells(joined) + (0 if last else len(FOLD)) <= width:
            line = joined
            continue
        if not empty:
            lines.append(line + FOLD)
            line = further
        rest = word
        while len(rest) > 1 and cells(line + _written(rest)) + (0 if last else len(FOLD)) > width:
            count = _fitting(rest, width - len(line) - 1)
            lines.append(f"{line}{_written(rest[:count])}\\")
            line, rest = "", rest[count:]
        line += _written(rest)
    return [*lines, line]


def _words(text: str, encoding: str) -> list[list[Atom]]:
    words: list[list[Atom]] = [[]]
    for quote, piece in _atoms(text):
        if not quote and piece == " ":
            words.append([])
        elif quote and not has(encoding, piece):
            words[-1] += [(BYTES, f"\\{byte:03o}") for byte in piece.encode("utf-8", "surrogatepass")]
        else:
            words[-1].append((quote, piece))
    return words


def _atoms(text: str) -> Iterator[Atom]:
    """The parts of a line that cannot be divided, each with the quote in which it stands."""
    for found in _PARTS.finditer(text):
        match found.lastgroup:
            case "bytes":
                yield from ((BYTES, each) for each in _ESCAPES.findall(found["bytes"]))
            case "quoted":
                yield from (("'", each) for each in found["quoted"] or ("",))
            case _:
                yield "", found[0]


def _written(word: Iterable[Atom]) -> str:
    return "".join(
        "".join(piece for _, piece in group)
        if not quote
        else f"{quote}{''.join(piece for _, piece in group)}'"
        for quote, group in groupby(word, key=itemgetter(0))
    )


def _fitting(word: Sequence[Atom], room: int) -> int:
    """How many parts of a word fit: at least one, and never the last."""
    count = 1
    while count < len(word) - 1 and cells(_written(word[: count + 1])) <= room:
        count += 1
    return count
