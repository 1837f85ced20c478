"""Owns how lines are fitted to a screen: they are wrapped between words, or cut with an ellipsis, and coloured.

Widths count the cells of a terminal: a wide character takes two. Identifiers that people copy are never cut, and a command that
people copy is folded so that a shell reads it as one. What is no terminal has no width: every text is one line, however long.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

from rich.console import Console
from rich.text import Text

from poller.commands.operations.shell import folded_command
from poller.domain.untrusted.texts import cut
from poller.domain.wording.numbers_of import inflected, number_of
from poller.output.terminal import (
    cells,
    cells_prefix,
    columns_of,
    encodable,
    encoding_of,
    is_terminal,
    printable,
)

WIDTH_MIN = 40
"""An indented UUID fits into this width. A narrower screen is treated as this wide."""
CHARS_A_CELL_MAX = 4
"""At most this many characters are read for each cell. Combining characters take no cell."""
COMMAND_CHARS_MAX = 2_000
LINE_CHARS_MAX = 10_000
"""Of a text where lines have no end."""
ID_LINES_MAX = 30
"""Lines of an identifier."""
LINES_OF_TEXT_MAX = 1_000
INDENT = "  "
GAP = "  "
ELLIPSIS = "…"


class Mark(StrEnum):
    """What a line is about, for its colour. The value is a style of rich."""

    NONE = ""
    TITLE = "bold"
    TROUBLE = "red"
    HELD = "yellow"
    COMMAND = "cyan"


@dataclass(frozen=True, slots=True)
class Screen:
    """What a page is made for. `width` is in cells, None where lines have no end. `everything`: no list is shortened."""

    width: int | None
    encoding: str = "utf-8"
    everything: bool = False


class ScreenPage:
    """Lines of one screen, and the mark of each. `shortened` says whether anything was cut or left out.

    A number in place of a screen is its width; such a screen has all characters.
    """

    def __init__(self, screen: Screen | int) -> None:
        self.screen = Screen(screen) if isinstance(screen, int) else screen
        self.lines: list[str] = []
        self.marks: list[Mark] = []
        self.shortened = False
        self._width = None if self.screen.width is None else max(self.screen.width, WIDTH_MIN)

    def line(self, text: str, *, depth: int = 0, mark: Mark = Mark.NONE) -> None:
        """Adds one line; it is cut if it is too long."""
        self.add(text, depth=depth, lines_max=1, mark=mark)

    def add(self, text: str, *, depth: int = 0, lines_max: int = 2, mark: Mark = Mark.NONE) -> None:
        """Adds a text in at most `lines_max` lines. Lines after the first are indented one level more."""
        rest = self._printable(text, lines_max)
        if self._width is None:
            self._append(INDENT * depth + rest, mark)
            return
        for number in range(lines_max):
            margin = INDENT * (depth if number == 0 else depth + 1)
            room = self._width - len(margin)
            if number == lines_max - 1:
                self._append(margin + self._fitted(rest, room), mark)
                return
            first, rest = _split(rest, room)
            self._append(margin + first, mark)
            if not rest:
                return

    def identifier(self, text: str, *, depth: int = 0, mark: Mark = Mark.NONE) -> None:
        """Adds what has an identifier that people copy. It is never cut: what is wider than the screen goes on in the next line."""
        self.add(text, depth=depth, lines_max=ID_LINES_MAX, mark=mark)

    def command(self, text: str, *, depth: int = 0) -> None:
        """Adds a command that people copy. It is one line, or folded as a shell takes it. Longer than COMMAND_CHARS_MAX it is cut."""
        self.shortened |= len(text) > COMMAND_CHARS_MAX
        given, margin = cut(text, COMMAND_CHARS_MAX), INDENT * depth
        for line in folded_command(given, self._width, margin, self.screen.encoding):
            self._append(line if line.isprintable() else printable(line, self.screen.encoding), Mark.COMMAND)

    def table(self, rows: Sequence[Sequence[str]], *, depth: int = 0) -> None:
        """Adds rows of cells, the most important first. As many columns as fit stand below each other.

        The others follow below each row, one level deeper. No cell is cut, and a column without content is left out.
        """
        shown = [[printable(cell, self.screen.encoding).strip() for cell in row] for row in rows]
        widths = [max(map(cells, column)) for column in zip(*shown, strict=True)]
        fitting = self._columns_fitting(widths, depth)
        for row in shown:
            padded = [row[at] + " " * (widths[at] - cells(row[at])) for at in range(fitting) if widths[at]]
            line = INDENT * depth + GAP.join(padded).rstrip()
            if self._width is None or cells(line) <= self._width:
                self._append(line, Mark.NONE)
            else:
                self.identifier(row[0], depth=depth)
            if below := GAP.join(cell for cell in row[fitting:] if cell):
                self.identifier(below, depth=depth + 1)

    def _columns_fitting(self, widths: Sequence[int], depth: int) -> int:
        """How many columns fit into a line, at least the first."""
        taken = len(INDENT) * depth
        for at, width in enumerate(widths):
            taken += width + (len(GAP) if at and width else 0)
            if at and self._width is not None and taken > self._width:
                return at
        return len(widths)

    def some[Item](self, items: Sequence[Item], most: int) -> Sequence[Item]:
        """The first `most` of a list, or all of it where everything is shown."""
        return items if self.screen.everything else items[:most]

    def count_others(self, items: Sequence[object], most: int, noun: str, *, depth: int = 0) -> None:
        """Adds how many of a list `some` does not have, such as `3 more shards`; nothing if it has all."""
        if others := len(items) - len(self.some(items, most)):
            counted = number_of(others, f"more {noun}")
            self.left_out(f"and {counted}; --all shows {inflected(others, 'it', 'them')}", depth=depth)

    def left_out(self, text: str, *, depth: int = 0) -> None:
        """Adds a line that says what is not shown."""
        self.shortened = True
        self.line(text, depth=depth)

    def _append(self, line: str, mark: Mark) -> None:
        self.lines.append(line)
        self.marks.append(mark)

    def _printable(self, text: str, lines_max: int) -> str:
        """The beginning of a text, in printable characters. A function's error may contain anything."""
        chars_max = LINE_CHARS_MAX if self._width is None else self._width * lines_max * CHARS_A_CELL_MAX
        self.shortened |= len(text) > chars_max
        return printable(cut(text, chars_max), self.screen.encoding).strip()

    def _fitted(self, text: str, room: int) -> str:
        if cells(text) <= room:
            return text
        self.shortened = True
        mark = encodable(ELLIPSIS, self.screen.encoding)
        return text[: cells_prefix(text, room - len(mark))].rstrip() + mark


def _split(text: str, room: int) -> tuple[str, str]:
    """Splits a text into the words that fit and the rest. A word that is longer than a line is continued on the next one."""
    at = max(cells_prefix(text, room), 1)
    if at >= len(text):
        return text, ""
    fitting = text[:at]
    space = fitting.rfind(" ")
    if text[at] != " " and space > 0:
        fitting = fitting[:space]
    return fitting.rstrip(), text[len(fitting) :].lstrip()


def screen_of(stream: TextIO, *, everything: bool = False) -> Screen:
    """What a page is made for that goes to `stream`. Where lines have no end nothing is left out, so that all can be searched."""
    width = columns_of(stream)
    return Screen(width, encoding_of(stream), everything=everything or width is None)


def show(
    page: Callable[[Screen], ScreenPage],
    *,
    everything: bool = False,
    stream: TextIO | None = None,
    lines_max: int | None = None,
) -> None:
    """Prints a page: for the terminal's width, or for COLUMNS; what is neither has lines without end.

    With `lines_max` a longer page is cut, and its last line says so. Colours are for terminals: NO_COLOR, FORCE_COLOR and TERM=dumb
    are followed.
    """
    stream = stream or sys.stdout
    made = page(screen_of(stream, everything=everything))
    lines = list(zip(made.lines, made.marks, strict=True))
    if lines_max is not None and len(lines) > lines_max:
        left = number_of(len(lines) - lines_max + 1, "more line")
        lines = [*lines[: lines_max - 1], (f"and {left}; --all shows the whole page", Mark.NONE)]
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if console.color_system is None or console.no_color:
        stream.write("".join(f"{line}\n" for line, _ in lines))
    else:
        text = Text("\n").join(Text(line, mark.value) for line, mark in lines)
        console.print(text, soft_wrap=True)
    stream.flush()


def print_lines(lines: Sequence[str], stream: TextIO | None = None) -> None:
    """Prints lines of text: on a terminal folded between words, each with its indentation; elsewhere each as it is."""
    stream = stream or sys.stdout
    for line in lines:
        print_folded(line, lambda text: print(text, file=stream), stream)
    stream.flush()


def print_folded(line: str, print_line: Callable[[str], None], stream: TextIO | None = None) -> None:
    """Prints a line with `print_line`, on a terminal in as many lines as it takes, each with the indentation of the first."""
    stream = stream or sys.stdout
    if not is_terminal(stream):
        print_line(line)
        return
    text = line.lstrip(" ")
    page = ScreenPage(screen_of(stream))
    page.add(text, depth=(len(line) - len(text)) // len(INDENT), lines_max=LINES_OF_TEXT_MAX)
    for each in page.lines:
        print_line(each)
