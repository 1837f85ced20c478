"""Owns what a terminal shows of a text: in how many cells, in which characters, and how many cells a line has.

Widths are the most that a terminal takes: some draw joined emoji in the cells of one, others side by side.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import TextIO

from rich.cells import get_character_cell_size

COLUMNS_USUAL = 80
LINES_USUAL = 24
SELECTOR = "\ufe0f"
"""Makes the character before it an emoji, which many terminals then draw in two cells."""
_JOINING = frozenset(map(chr, [*range(0x1F1E6, 0x1F200), *range(0x1F3FB, 0x1F400)]))
"""Letters of flags, and colours of skin. Where they do not join what is before them, they take two cells themselves."""
_JOINERS = frozenset("\u200c\u200d")
_PLAIN = {"←": "<-", "→": "->", "…": "...", "–": "-", "’": "'", "“": '"', "”": '"', "·": "-"}
"""What stands for characters of ours where the terminal's encoding does not have them."""


def cells(text: str) -> int:
    """How many cells a terminal takes for a text at most. Only printable characters count rightly."""
    if text.isascii():
        return len(text)
    return sum(map(_cell, text))


@lru_cache(maxsize=4096)
def _cell(char: str) -> int:
    if char == SELECTOR:
        return 1
    return 2 if char in _JOINING else get_character_cell_size(char, "latest")


def cells_prefix(text: str, room: int) -> int:
    """How many characters of `text` take at most `room` cells, with the marks that belong to the last of them."""
    if text.isascii():
        return min(room, len(text))
    taken = 0
    for at, char in enumerate(text):
        taken += _cell(char)
        if taken > room:
            return at
    return len(text)


def printable(text: str, encoding: str = "utf-8") -> str:
    """A text in characters that the screen shows as they are: others become their escape, such as `\\x1b`, and blanks become spaces.

    So do characters that `encoding` lacks. Joiners stay between characters that are no ASCII, as in emoji.
    """
    if text.isascii() and text.isprintable():
        return text
    if not text.isprintable():
        text = "".join(_shown(text, at) for at in range(len(text)))
    return encodable(text, encoding)


def _shown(text: str, at: int) -> str:
    char = text[at]
    if char.isprintable():
        return char
    if char.isspace():
        return " "
    around = text[at - 1 : at], text[at + 1 : at + 2]
    if char in _JOINERS and all(each.isprintable() and not each.isascii() for each in around):
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def encodable(text: str, encoding: str) -> str:
    """A text with what `encoding` lacks replaced by what is like it, or by its escape."""
    if text.isascii() or has(encoding, text):
        return text
    plain = "".join(char if has(encoding, char) else _PLAIN.get(char, char) for char in text)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def has(encoding: str, text: str) -> bool:
    """Whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def encoding_of(stream: TextIO) -> str:
    """The encoding of a stream; UTF-8 if it has none."""
    return getattr(stream, "encoding", None) or "utf-8"


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal. A closed one is none."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def moves_cursor(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a line can be written over: on a terminal, unless TERM says that it knows no more than lines."""
    return is_terminal(stream) and environ.get("TERM", "dumb").lower() not in {"", "dumb", "unknown"}


def columns_of(stream: TextIO, environ: Mapping[str, str] = os.environ) -> int | None:
    """How many cells a line has: COLUMNS, else what the terminal says; None for what is no terminal, where a line has no end."""
    return _given(environ, "COLUMNS") or (_size(stream)[0] if is_terminal(stream) else None)


def lines_of_screen(stream: TextIO, environ: Mapping[str, str] = os.environ) -> int | None:
    """How many lines a screen has: LINES, else what the terminal says; None for what is no terminal."""
    return (_given(environ, "LINES") or _size(stream)[1]) if is_terminal(stream) else None


def _given(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) or None if text.isascii() and text.isdecimal() and len(text) < 6 else None


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    # A terminal that was not asked for its size says 0.
    return columns or COLUMNS_USUAL, lines or LINES_USUAL
