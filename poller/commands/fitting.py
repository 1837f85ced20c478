"""Owns how lines are fitted to the width of a screen: they are wrapped, or cut with an ellipsis.

Widths count the cells of a terminal: a wide character takes two. Identifiers that people copy are never split over two lines.
"""

import sys
from collections.abc import Callable

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from poller.domain.untrusted.texts import cut

WIDTH_MIN = 40
"""An indented UUID fits into this width. A narrower screen is treated as this wide."""
CHARS_A_CELL_MAX = 4
"""At most this many characters are read for each cell. Combining characters take no cell."""
COMMAND_CHARS_MAX = 2_000
INDENT = "  "
ELLIPSIS = "…"


class ScreenPage:
    """Lines of one screen. `shortened` says whether anything was cut or left out."""

    def __init__(self, width: int) -> None:
        self.lines: list[str] = []
        self.shortened = False
        self._width = max(width, WIDTH_MIN)

    def line(self, text: str, *, depth: int = 0) -> None:
        """Adds one line; it is cut if it is too long."""
        self.add(text, depth=depth, lines_max=1)

    def add(self, text: str, *, depth: int = 0, lines_max: int = 2) -> None:
        """Adds a text in at most `lines_max` lines. Lines after the first are indented one level more."""
        rest = self._printable(text, lines_max)
        for number in range(lines_max):
            margin = INDENT * (depth if number == 0 else depth + 1)
            room = self._width - len(margin)
            if number == lines_max - 1:
                self.lines.append(margin + self._fitted(rest, room))
                return
            first, rest = _split(rest, room)
            self.lines.append(margin + first)
            if not rest:
                return

    def command(self, text: str, *, depth: int = 0) -> None:
        """Adds a command that people copy: always one line, however wide the screen is. Longer than COMMAND_CHARS_MAX it is cut."""
        self.shortened |= len(text) > COMMAND_CHARS_MAX
        self.lines.append(INDENT * depth + _replaced(cut(text, COMMAND_CHARS_MAX)))

    def left_out(self, text: str, *, depth: int = 0) -> None:
        """Adds a line that says what is not shown."""
        self.shortened = True
        self.line(text, depth=depth)

    def _printable(self, text: str, lines_max: int) -> str:
        """The beginning of a text, with unprintable characters replaced. A function's error may contain anything."""
        chars_max = self._width * lines_max * CHARS_A_CELL_MAX
        self.shortened |= len(text) > chars_max
        return _replaced(cut(text, chars_max))

    def _fitted(self, text: str, room: int) -> str:
        if cell_len(text) <= room:
            return text
        self.shortened = True
        return set_cell_size(text, room - 1).rstrip() + ELLIPSIS


def _replaced(text: str) -> str:
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
        for char in text
    ).strip()


def _split(text: str, room: int) -> tuple[str, str]:
    """Splits a text into the words that fit and the rest. A word that is longer than a line is continued on the next one."""
    if cell_len(text) <= room:
        return text, ""
    fitting = _prefix(text, room)
    at = fitting.rfind(" ")
    if text[len(fitting)] != " " and at > 0:
        fitting = fitting[:at]
    return fitting.rstrip(), text[len(fitting) :].lstrip()


def _prefix(text: str, room: int) -> str:
    """The longest prefix of `text` that takes at most `room` cells."""
    low, high = 0, min(len(text), room * CHARS_A_CELL_MAX)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cell_len(text[:middle]) <= room else (low, middle - 1)
    return text[: max(low, 1)]


def show(page: Callable[[int], ScreenPage], console: Console | None = None) -> None:
    """Prints a page for the terminal's width. Without a terminal the width is COLUMNS, or 80."""
    console = console or Console()
    text = "\n".join(page(console.width).lines)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
