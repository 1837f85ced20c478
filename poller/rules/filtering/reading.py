"""Owns the reading of JSON texts of megabytes: in slices, and without objects for parts that no pattern reads.

A parser makes an object for each value and blocks the interpreter until it is done: a text of 10 MB may become three million
lists. This module reads the text token by token. When an array element ends, only a summary of it is kept. That takes about ten
times as long as a parser, but in pieces of a few milliseconds.
"""

import json
import re
from typing import Final

from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.structure import Node
from poller.rules.filtering.summaries import NOTHING, Elements, Index, ValueSummary

SLICE_STEPS: Final = 2_000
"""Steps of one slice: tokens, comparisons and kilobytes. It takes about two milliseconds."""
DEPTH_MAX: Final = 10_000
"""Levels of nested objects and arrays. A text with deeper nesting counts as not JSON, as for other parsers."""
_CHARS_A_STEP: Final = 1024
_LONG_CHARS: Final = 64 * 1024
"""Characters of a text. A longer text is compared with one condition in each slice."""
_SPACE = r"[ \t\n\r]*+"
_VALUE = re.compile(
    _SPACE
    + r'(?:"([^"\\\x00-\x1f]{0,1024}+)"'
    + rf"|(\[{_SPACE}\]|\{{{_SPACE}\}})"
    + r"|([\[{])"
    + r"|(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+)"
    + r"|(true|false|null)"
    + r'|("))'
)
_TEXT, _EMPTY, _OPEN, _NUMBER, _CONSTANT = range(1, 6)
_KEY = re.compile(rf'{_SPACE}"(?:([^"\\\x00-\x1f]{{0,1024}}+)"{_SPACE}:)?')
_COLON = re.compile(rf"{_SPACE}:")
_NEXT = re.compile(rf"{_SPACE}([,\]}}])")
_END = re.compile(rf"{_SPACE}\Z")
_PIECE = re.compile(r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,16384}+')
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_ESCAPED_CHARS: Final = 6
"""Characters that one character of a key takes at most, as an escape."""


class NotJson(Exception):
    """A text is not JSON."""


class _Object:
    """An object that is being read. If a key is repeated, its last value counts."""

    closer = "}"

    def __init__(self, node: Node | None) -> None:
        self.node = node
        self.inner: Node | None = None
        self._key = ""
        self._members: dict[str, ValueSummary] = {}

    def at(self, key: str) -> None:
        """Begins the member with this key."""
        self.inner = None if self.node is None else self.node.at(key)
        self._key = key

    def take(self, part: ValueSummary) -> None:
        """Takes the summary of the member's value."""
        if self.inner is not None:
            self._members[self._key] = part

    def close(self) -> ValueSummary:
        """The summary of the whole object."""
        whole = NOTHING
        for part in self._members.values():
            whole = whole.beside(part) if whole is not NOTHING else part
        return whole


class _Array:
    """An array that is being read. Its scalars belong to the region around it; each object or array in it is an element with a region."""

    closer = "]"

    def __init__(self, node: Node | None) -> None:
        self.node = self.inner = node
        self.present = self.passing = 0
        self.elements: Elements | None = None

    def take(self, part: ValueSummary) -> None:
        """Takes the summary of a scalar."""
        self.present |= part.present
        self.passing |= part.passing


def read(text: str, node: Node | None, index: Index) -> Slices[ValueSummary]:
    """The summary of a JSON text at this place of an event, for the region that contains it. Raises NotJson."""
    return _Reader(text, index).value(node)


def leaf(value: object, node: Node | None, index: Index) -> Slices[ValueSummary]:
    """The same for a scalar."""
    present = passing = 0
    if node is not None:
        long = isinstance(value, str) and len(value) > _LONG_CHARS
        for number in node.fields:
            each = index.fields[number]
            present |= 1 << number
            if (yield from each.long(value)) if long else each.test(value):  # type: ignore[arg-type]  # `long` says that it is text
                passing |= 1 << number
    return ValueSummary(present, passing) if present else NOTHING


class _Reader:
    """Reads one text."""

    def __init__(self, text: str, index: Index) -> None:
        self._text = text
        self._index = index
        self._at = 0
        self._steps = 0

    def value(self, node: Node | None) -> Slices[ValueSummary]:
        """The summary of the value. The text must contain nothing behind it."""
        text, frames = self._text, list[_Object | _Array]()
        while True:
            found = _VALUE.match(text, self._at)
            if found is None:
                raise NotJson
            self._at = found.end()
            self._steps += 1 + (self._at - found.start()) // _CHARS_A_STEP
            if self._steps >= SLICE_STEPS:
                self._steps = 0
                yield
            kind = found.lastindex
            part, scalar = NOTHING, False
            if kind == _OPEN:
                frame: _Object | _Array
                if found[_OPEN] == "[":
                    frame = _Array(node)
                else:
                    frame = _Object(node)
                    yield from self._key(frame)
                frames.append(frame)
                if len(frames) > DEPTH_MAX:
                    raise NotJson
                node = frame.inner
                continue
            if kind != _EMPTY:
                scalar = True
                if node is not None and node.fields:
                    part = yield from self._scalar(found, node)
                elif kind is not None and kind > _CONSTANT:
                    yield from self._long_text()
            while frames:
                frame = frames[-1]
                self._steps += 1
                if self._steps >= SLICE_STEPS:
                    self._steps = 0
                    yield
                if isinstance(frame, _Object) or scalar:
                    frame.take(part)
                elif part is not NOTHING:
                    self._element(frame, part)
                following = _NEXT.match(text, self._at)
                if following is None:
                    raise NotJson
                self._at = following.end()
                if following[1] == ",":
                    if isinstance(frame, _Object):
                        yield from self._key(frame)
                    node = frame.inner
                    break
                if following[1] != frame.closer:
                    raise NotJson
                frames.pop()
                part, scalar = (yield from self._closed(frame)), False
            else:
                if _END.match(text, self._at) is None:
                    raise NotJson
                return part

    def _element(self, frame: _Array, part: ValueSummary) -> None:
        if frame.elements is None:
            frame.elements = Elements()
        self._steps += 1
        frame.elements.add(self._index.region(part))

    def _closed(self, frame: _Object | _Array) -> Slices[ValueSummary]:
        if isinstance(frame, _Object):
            return frame.close()
        if frame.elements is None:
            return ValueSummary(frame.present, frame.passing) if frame.present else NOTHING
        summed = yield from self._index.array(frame.elements)
        return (
            ValueSummary(frame.present, frame.passing, (summed,))
            if frame.present or summed.present
            else NOTHING
        )

    def _key(self, frame: _Object) -> Slices[None]:
        found = _KEY.match(self._text, self._at)
        if found is None:
            raise NotJson
        self._at = found.end()
        self._steps += 1
        if found[1] is not None:
            frame.at(found[1])
            return
        start = self._at
        yield from self._long_text()
        longest = self._index.key_chars_max * _ESCAPED_CHARS
        if frame.node is not None and self._at - start <= longest + 1:
            frame.at(json.loads(self._text[start - 1 : self._at]))
        else:
            frame.inner = None
        colon = _COLON.match(self._text, self._at)
        if colon is None:
            raise NotJson
        self._at = colon.end()

    def _scalar(self, found: re.Match[str], node: Node) -> Slices[ValueSummary]:
        value: object
        match found.lastindex:
            case 1:
                value = found[_TEXT]
            case 4:
                # Conditions compare doubles.
                value = float(found[_NUMBER])
            case 5:
                value = _CONSTANTS[found[_CONSTANT]]
            case _:
                start = self._at
                yield from self._long_text()
                value = json.loads(self._text[start - 1 : self._at])
        self._steps += sum(self._index.fields[number].weight for number in node.fields)
        return (yield from leaf(value, node, self._index))

    def _long_text(self) -> Slices[None]:
        """Moves behind the quotation mark that ends a text."""
        text = self._text
        while True:
            found = _PIECE.match(text, self._at)
            assert found is not None, "an empty piece is a piece"
            if found.end() == self._at:
                break
            self._steps += (found.end() - self._at) // _CHARS_A_STEP * 4
            self._at = found.end()
            if self._steps >= SLICE_STEPS:
                self._steps = 0
                yield
        if not text.startswith('"', self._at):
            raise NotJson
        self._at += 1
