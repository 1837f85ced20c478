"""Owns how text from outside is made fit to be kept and shown: no credential, nothing that controls a terminal, and an end.

A text is cleaned where it enters: a function's error, a port's reason, a record's key, a line that a function says. What
shows it later, such as a status, a log line or a table, takes it as it is.
"""

import re
from collections.abc import Iterable, Sequence

from poller.domain.untrusted.credentials import HIDDEN, hide

_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
"""What colours a terminal, moves its cursor or names its window."""
_NEWLINES = re.compile(r"\r\n?|[\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NO_BLANK = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""Control characters that are no blanks: text of two bytes a character has one after each letter, names may be broken by one."""
_UNSEEN = re.compile(
    "[\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|(?<=[!-~])[\u200c\u200d]+|(?<![\u200c\u200d])[\u200c\u200d]+(?=[!-~])|(?<=[\u200c\u200d]{2})[\u200c\u200d]+"
)
"""What turns the direction of writing, or has no width: a line could show something else than it says."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LOOK = 2
"""A text is read for this many times the characters that are kept of it: what is cleaned away may be longer than what stays."""
_WORD_CHARS_MAX = 64
"""Of a longer text the last word that is read is left out: half of a key does not look like one."""
CUT = "…"


def cut(text: str, chars_max: int) -> str:
    """`text`, shortened with an ellipsis to `chars_max` characters."""
    return text if len(text) <= chars_max else text[: chars_max - 1] + CUT


def lines_of(text: str, *, chars_max: int) -> str:
    """`text` in whatever number of lines, with nothing in it that is no character for people, cut to `chars_max`.

    What looks like a credential is `[hidden]`; half of a surrogate pair, which no file can hold, is U+FFFD; a tab or another
    control character is a space.
    """
    if len(text) > _LOOK * chars_max:
        text = _beginning(text, _LOOK * chars_max)
    return cut(_clean(text), chars_max)


def line_of(text: str, *, chars_max: int) -> str:
    """`text` as `lines_of` makes it, on one line."""
    return lines_of(text, chars_max=chars_max).replace("\n", " ")


def ends_of(lines: Iterable[str], *, lines_max: int, chars_max: int) -> tuple[str, ...]:
    """The first and the last of `lines`, `lines_max` at most, each as `line_of` makes it; says how many are left out.

    A credential may go over several lines: it is hidden as a whole, which leaves fewer of them.
    """
    first, left_out, last = _parted(list(lines), lines_max)
    return (*_block(first, chars_max), *(cut(line, chars_max) for line in left_out), *_block(last, chars_max))


def fewer(lines: Sequence[str], *, lines_max: int) -> tuple[str, ...]:
    """The same of lines that are clean."""
    return tuple(line for part in _parted(lines, lines_max) for line in part)


def _parted(lines: Sequence[str], lines_max: int) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    if len(lines) <= lines_max:
        return lines, (), ()
    first = lines_max // 2
    last = lines_max - first - 1
    more = len(lines) - first - last
    return lines[:first], (f"… {more} lines more …",), lines[len(lines) - last :]


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
    """Of two ways to read a text with control characters, as blanks or as nothing, the one in which more is hidden."""
    first, second = hide(apart), hide(joined)
    return second if second.count(HIDDEN) > first.count(HIDDEN) else first
