"""Owns where the words of a text end, and of what they are made. A text is read once, however many places in one word are asked about."""

import re

_WORD = re.compile(r"""[^\s&,;'"()<>{}\[\]]*+""")
_DIGIT = re.compile(r"[0-9]")
_LETTER = re.compile(r"[A-Za-z]")
_DRAWN_CHARS_MIN = 6


class Words:
    """The words of a text: the values that stand without quotes. Places must be asked about from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._begin = self._end = 0
        """The part of a word that was read last."""
        self._digit = self._letter = 0
        """The next digit and letter in it; its end if there is none."""

    def end(self, begin: int) -> int:
        """The end of the word that has the character at `begin`; `begin` if none has."""
        if not self._begin <= begin < self._end:
            word = _WORD.match(self.text, begin)
            assert word is not None, "the pattern takes nothing too"
            self._begin, self._end = begin, word.end()
            self._digit = self._letter = -1
        return self._end

    def drawn(self, begin: int) -> bool:
        """Whether the word from `begin` on has letters, digits and the length of a text that was drawn by lot."""
        end = self.end(begin)
        if end - begin < _DRAWN_CHARS_MIN:
            return False
        if self._digit < begin:
            self._digit = self._next(_DIGIT, begin)
        if self._letter < begin:
            self._letter = self._next(_LETTER, begin)
        return self._digit < end and self._letter < end

    def _next(self, kind: re.Pattern[str], begin: int) -> int:
        found = kind.search(self.text, begin, self._end)
        return self._end if found is None else found.start()
