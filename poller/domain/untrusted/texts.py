"""Owns how text from outside is cleaned before it is kept and shown: without credentials or terminal control, and of bounded length.

A text is cleaned where it enters: a function's error, a port's reason, a record's key, a line that a function writes. Code that
shows it later, such as a status, a log line or a table, uses it unchanged.
"""

import re
from collections.abc import Iterable, Sequence

from poller.domain.untrusted.credentials import HIDDEN, hide
from poller.domain.wording.numbers_of import number_of

_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
"""Escape sequences that colour a terminal, move its cursor or set its title."""
_NEWLINES = re.compile(r"\r\n?|[\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NO_BLANK = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""Control characters other than blanks. UTF-16 text has one after each letter, and one may be inside a name to hide it."""
_UNSEEN = re.compile(
    "[\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|(?<=[!-~])[\u200c\u200d]+|(?<![\u200c\u200d])[\u200c\u200d]+(?=[!-~])|(?<=[\u200c\u200d]{2})[\u200c\u200d]+"
)
"""Characters that change the writing direction or have no width. With them a line could look different from its content."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LOOK = 2
"""How many characters are read for each character that is kept. The parts that are removed may be longer than the rest."""
_WORD_CHARS_MAX = 64
"""In a longer text the last word that is read is left out, because half of a key would not be recognized as a key."""
CUT = "…"


def cut(text: str, chars_max: int) -> str:
    """`text`, shortened with an ellipsis to `chars_max` characters."""
    return text if len(text) <= chars_max else text[: chars_max - 1] + CUT


def lines_of(text: str, *, chars_max: int) -> str:
    """`text` with its line breaks, with printable characters only, cut to `chars_max`.

    Credentials are replaced by `[hidden]`, halves of surrogate pairs by U+FFFD, and tabs and other control characters by a space.
    """
    if len(text) > _LOOK * chars_max:
        text = _beginning(text, _LOOK * chars_max)
    return cut(_clean(text), chars_max)


def line_of(text: str, *, chars_max: int) -> str:
    """`text` as `lines_of` makes it, on one line."""
    return lines_of(text, chars_max=chars_max).replace("\n", " ")


def ends_of(lines: Iterable[str], *, lines_max: int, chars_max: int) -> tuple[str, ...]:
    """The first and last of `lines`, `lines_max` at most, each cleaned as by `line_of`. A line says how many are left out.

    A credential may extend over several lines. It is hidden as a whole, so there are fewer lines then.
    """
    first, left_out, last = _parted(list(lines), lines_max)
    return (*_block(first, chars_max), *(cut(line, chars_max) for line in left_out), *_block(last, chars_max))


def fewer(lines: Sequence[str], *, lines_max: int) -> tuple[str, ...]:
    """The same for lines that are already clean."""
    return tuple(line for part in _parted(lines, lines_max) for line in part)


def _parted(lines: Sequence[str], lines_max: int) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    if len(lines) <= lines_max:
        return lines, (), ()
    first = lines_max // 2
    last = lines_max - first - 1
    more = len(lines) - first - last
    return lines[:first], (f"… {number_of(more, 'line')} more …",), lines[len(lines) - last :]


def _block(lines: Sequence[str], chars_max: int) -> tuple[str, ...]:
    if not lines:
        return ()
    looked_at = _LOOK * chars_max
    read = (line if len(line) <= looked_at else _beginning(line, looked_at) for line in lines)
    text = _clean("\n".join(_NEWLINES.sub(" ", line).replace("\n", " ") for line in read))
    return tuple(cut(line, chars_max).rstrip() for line in text.split("\n"))


def _beginning(text: str, chars_max: int) -> str:
    text = text[:chars_max]
    space = max(text.rfind(" ", -_WORD_CHARS_MAX), text.rfind("\n", -_WORD_CHARS_MAX))
    return (text if space < 0 else text[: space + 1]) + CUT


def _clean(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = _SEQUENCES.sub("", text)
        text = _NEWLINES.sub("\n", text)
        text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", _UNSEEN.sub("", text))
        joined = _NO_BLANK.sub("", text) if _NO_BLANK.search(text) else text
        text = _CONTROL.sub(" ", text)
        if joined != text:
            return _hidden(text, _CONTROL.sub(" ", joined))
    return hide(text)


def _hidden(apart: str, joined: str) -> str:
    """A text without control characters: they are replaced by blanks (`apart`) or removed (`joined`), whichever hides more."""
    first, second = hide(apart), hide(joined)
    return second if second.count(HIDDEN) > first.count(HIDDEN) else first
